"""Frozen datasets: tagged snapshots, exports, and the registry that names them."""
