"""What the Notion tables hold, and what makes a version of each."""

from dlt_sources.versions import Resource

# `archived` was renamed to `in_trash` with version 2026-03-11; both become `is_deleted`.
TRASHED = ("in_trash", "archived")

PAGES = Resource(
    "pages",
    volatile=(
        "page.request_id",
        "page.last_edited_time",
        *(f"page.{name}" for name in TRASHED),
        "blocks.**.request_id",
        "blocks.**.last_edited_time",
        "blocks.**.last_edited_by",
        *(f"blocks.**.{name}" for name in TRASHED),
    ),
    metadata=(
        "page.parent",
        "page.url",
        "page.public_url",
        "page.is_locked",
        "page.created_by",
        "page.last_edited_by",
    ),
)

_CONTAINER = {
    "volatile": ("request_id", "last_edited_time", *TRASHED),
    "metadata": ("parent", "database_parent", "url", "public_url", "created_by", "last_edited_by"),
}
DATABASES = Resource("databases", **_CONTAINER)
DATA_SOURCES = Resource("data_sources", **_CONTAINER)
USERS = Resource("users", volatile=("request_id", "avatar_url"))
COMMENTS = Resource("comments", volatile=("request_id", "last_edited_time"))

# Kinds of objects, as their `object` field says, and the tables that they land in.
TABLES = {
    "page": PAGES,
    "user": USERS,
    "database": DATABASES,
    "data_source": DATA_SOURCES,
    "comment": COMMENTS,
}
# Blocks whose children are pages of their own, or cannot be had.
WITHOUT_CHILDREN = {"child_page", "child_database", "unsupported"}
# Each level of blocks is two of JSON, and 254 is the deepest JSON that can be written.
MAX_DEPTH = 120
