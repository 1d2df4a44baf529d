"""What the table of GitHub issues holds, and what makes a version of one."""

from dlt_sources.versions import Resource

ISSUES = Resource(
    "issues",
    volatile=(
        *(f"issue.{name}" for name in ("comments", "reactions", "score", "updated_at")),
        *(f"comments.{name}" for name in ("reactions", "updated_at")),
    ),
    metadata=("issue.html_url", "issue.user", "repository"),
)
API_VERSION = "2022-11-28"
PER_PAGE = 100
# What changed shortly before a list was begun may come into it late.
OVERLAP_SECONDS = 120
