"""What the table of incident reports holds."""

from dlt_sources.versions import Resource

REPORTS = Resource("reports", metadata=("file", "fields.url"), swept=True)

# A larger share of absent reports is taken for a broken folder, unless they are few.
MAX_DELETED_SHARE = 0.3
MIN_SUSPICIOUS_DELETIONS = 10
