"""What the Slack tables hold, and what makes a version of each."""

from dlt_sources.versions import Resource

# An export, a list of the API and one answer of it describe a channel or a person with other
# fields each: these are in all of them.
CHANNELS = Resource(
    "channels",
    content=("id", "name", "topic.value", "purpose.value"),
    metadata=("kind", "members", "creator", "is_archived"),
)
USERS = Resource(
    "users",
    content=(
        "id",
        "name",
        "real_name",
        "deleted",
        "is_bot",
        "profile.display_name",
        "profile.email",
        "profile.real_name",
        "profile.title",
    ),
)
MESSAGES = Resource(
    "messages",
    volatile=(
        # What others do with it, or with its thread.
        "is_locked",
        "is_starred",
        "last_read",
        "latest_reply",
        "pinned_info",
        "pinned_to",
        "replies",
        "reply_count",
        "reply_users",
        "reply_users_count",
        "root",
        "subscribed",
        "unread_count",
        # What only the export says of it, or only the API.
        "app_id",
        "assistant_app_thread",
        "bot_profile",
        "display_as_bot",
        "no_notifications",
        "parent_user_id",
        "source_team",
        "team",
        "upload",
        "user_profile",
        "user_team",
        "x_files",
    ),
    metadata=("bot_id", "channel", "permalink", "user", "username"),
    swept=True,
)

# The lists of a workspace export and the kind of conversation that each holds.
CONVERSATION_LISTS = {
    "channels.json": "public",
    "groups.json": "private",
    "dms.json": "dm",
    "mpims.json": "dm",
}
USER_LISTS = ("users.json", "org_users.json")

# A sweep that would delete a larger share of what an export covers is taken for a broken export …
MAX_DELETED_SHARE = 0.3
# … unless it is about fewer messages than this.
MIN_SUSPICIOUS_DELETIONS = 20
