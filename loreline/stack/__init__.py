"""The local stack: an object store with an Iceberg catalog, and Postgres, as child services.

Everything it needs and keeps is in one state folder; production settings point elsewhere and use
nothing of this package but `doctor` and `environment`.
"""

from loreline.stack.lifecycle import ServiceStatus, down, status, up

__all__ = ["ServiceStatus", "down", "status", "up"]
