"""Search in Postgres: collections of chunks, how they are pushed, and how they are searched."""
