"""What the tables of log files hold, and the sizes in which files are read."""

from dlt_sources.versions import Resource
from loreline.settings import PROJECT_ROOT

# The name changes when a file is rotated: the lines do not.
LINES = Resource("lines", volatile=("file",))
FILES = Resource("files")

FORMATS = PROJECT_ROOT / "seeds" / "log_formats.csv"
# Names that are logs in a folder; a glob may say otherwise.
NAMES = ("*.log", "*.log.*", "*.jsonl", "*.jsonl.*")

READ_BYTES = 1024 * 1024
# DuckDB reads two thousand blocks at once: the unit of memory when lines are parsed.
BLOCK_BYTES = 64 * 1024
# A longer line is set aside in pieces.
MAX_LINE_BYTES = 512 * 1024
PIECE_BYTES = 8 * 1024 * 1024
# By how many of its first bytes a file is known, whatever it is called.
HEAD_BYTES = 1024
