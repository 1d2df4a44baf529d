"""What `loreline serve` answers over HTTP."""
