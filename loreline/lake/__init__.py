"""The lake: the Iceberg catalog, DuckDB attached to it, and the protocol of every commit."""
