"""Sources, as dlt sources, and the one function that lands them: `load`."""

import os

from loreline.settings import PROJECT_ROOT

# dlt looks for `.dlt/config.toml` in the current folder; commands may be run from any.
os.environ.setdefault("DLT_PROJECT_DIR", str(PROJECT_ROOT))
os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")
# As that file says; dlt takes a variable WORKERS, which many tools set, for its own otherwise.
os.environ.setdefault("NORMALIZE__WORKERS", "1")
os.environ.setdefault("LOAD__WORKERS", "1")

from dlt_sources.landing import LoadSummary
from dlt_sources.pipeline import SOURCES, STORED_SOURCES, load

__all__ = ["SOURCES", "STORED_SOURCES", "LoadSummary", "load"]
