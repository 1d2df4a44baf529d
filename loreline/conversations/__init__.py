"""What LLM-gateway events say: canonical messages, their hashes, replay."""
