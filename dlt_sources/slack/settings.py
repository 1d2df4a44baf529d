"""What the Slack tables hold, and what makes a version of each."""

from dlt_sources.versions import Resource

CHANNELS = Resource(
    "channels",
    volatile=(
        "is_member",
        "last_read",
        "latest",
        "num_members",
        "unread_count",
        "unread_count_display",
        "updated",
    ),
    metadata=("kind", "members", "creator", "is_archived"),
)
USERS = Resource(
    "users",
    volatile=(
        "presence",
        "updated",
        "profile.avatar_hash",
        "profile.huddle_state",
        "profile.huddle_state_expiration_ts",
        "profile.status_emoji",
        "profile.status_emoji_display_info",
        "profile.status_expiration",
        "profile.status_text",
    ),
)
MESSAGES = Resource(
    "messages",
    volatile=(
        "last_read",
        "latest_reply",
        "replies",
        "reply_count",
        "reply_users",
        "reply_users_count",
        "subscribed",
        "unread_count",
        "user_profile",
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
