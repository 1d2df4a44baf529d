"""How much of a stream is committed at once: what waits in memory, and what a kill brings again."""

MESSAGES_PER_COMMIT = 20_000
BYTES_PER_COMMIT = 32 * 1024 * 1024
