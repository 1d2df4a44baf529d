"""What the Linear tables hold, what makes a version of each, and what is read of the schema."""

from typing import NamedTuple

from dlt_sources.versions import Resource

# What makes a tombstone, and its way back no other version than the one before.
ARCHIVED = ("archivedAt", "autoArchivedAt")
# An entry of an issue's history has such a field too, which tells of the issue.
HAVE_A_BIN = ("documents", "issues", "projects")

# What a reference tells of the object that it names: that is a change of the object, and not of
# what refers to it.
_DETAILS = (
    "active",
    "archivedAt",
    "avatarUrl",
    "color",
    "createdAt",
    "displayName",
    "email",
    "endsAt",
    "identifier",
    "key",
    "name",
    "number",
    "startsAt",
    "title",
    "updatedAt",
    "url",
)


def _references(*fields: str) -> tuple[str, ...]:
    return tuple(f"{field}.{detail}" for field in fields for detail in _DETAILS)


def _resource(
    name: str,
    *,
    volatile: tuple[str, ...] = (),
    metadata: tuple[str, ...] = (),
    references: tuple[str, ...] = (),
) -> Resource:
    gone = (*ARCHIVED, "trashed") if name in HAVE_A_BIN else ARCHIVED
    left_out = ("__typename", "updatedAt", *gone, *volatile, *_references(*references))
    return Resource(name, left_out, metadata, swept=True)


# Counters and charts that move with every issue of a project or cycle.
_PROGRESS = (
    "completedIssueCountHistory",
    "completedScopeHistory",
    "currentProgress",
    "inProgressScopeHistory",
    "issueCountHistory",
    "progress",
    "progressHistory",
    "scopeHistory",
)

_RESOURCES = (
    _resource(
        "issues",
        volatile=(
            "activitySummary",
            "boardOrder",
            "customerTicketCount",
            "descriptionState",
            "favorite",
            "labels.nodes.name",
            "prioritySortOrder",
            "reactionData",
            "slaBreachesAt",
            "slaHighRiskAt",
            "slaMediumRiskAt",
            "snoozedUntilAt",
            "sortOrder",
            "state.color",
            "state.description",
            "state.position",
            "state.updatedAt",
            "subIssueSortOrder",
            "subscribers",
            "suggestionsGeneratedAt",
            "summary",
        ),
        metadata=("branchName", "creator.id", "sharedAccess", "team.id", "url"),
        references=("assignee", "creator", "cycle", "delegate", "parent", "project", "team"),
    ),
    _resource(
        "comments",
        volatile=("reactionData", "reactions", "threadSummary"),
        metadata=("url", "user.id"),
        references=("issue", "parent", "project", "resolvingUser", "user"),
    ),
    _resource("relations", references=("issue", "relatedIssue")),
    _resource("history", references=("actor", "issue")),
    _resource(
        "projects",
        volatile=(
            *_PROGRESS,
            "contentState",
            "favorite",
            "healthUpdatedAt",
            "lastUpdate",
            "prioritySortOrder",
            "scope",
            "sortOrder",
        ),
        metadata=("creator.id", "lead.id", "url"),
        references=("creator", "lead"),
    ),
    _resource(
        "cycles",
        volatile=(*_PROGRESS, "isActive", "isFuture", "isNext", "isPast", "isPrevious"),
        references=("team",),
    ),
    _resource(
        "users",
        volatile=(
            "avatarBackgroundColor",
            "avatarUrl",
            "createdIssueCount",
            "isMe",
            "lastSeen",
            "statusEmoji",
            "statusLabel",
            "statusUntilAt",
        ),
    ),
    _resource(
        "teams",
        volatile=(
            "activeCycle",
            "currentProgress",
            "cycleCalenderUrl",
            "issueCount",
            "progressHistory",
            "upcomingCycleCount",
        ),
        metadata=("members", "private", "visibility"),
    ),
    _resource(
        "labels", volatile=("lastAppliedAt",), references=("creator", "organization", "team")
    ),
    _resource(
        "documents",
        volatile=("contentState", "sortOrder", "updatedBy"),
        metadata=("creator.id", "url"),
        references=("creator", "cycle", "issue", "project", "team"),
    ),
    _resource("attachments", metadata=("creator.id",), references=("creator", "issue")),
)
TABLES = {resource.name: resource for resource in _RESOURCES}

# Types of the schema, and the tables that their objects land in.
TYPES = {
    "Issue": "issues",
    "Comment": "comments",
    "IssueRelation": "relations",
    "IssueHistory": "history",
    "Project": "projects",
    "Cycle": "cycles",
    "User": "users",
    "Team": "teams",
    "IssueLabel": "labels",
    "Document": "documents",
    "Attachment": "attachments",
}
# What a file, or a field of an answer, may be called, and what it then holds.
NAMES = {
    **{table: table for table in TABLES},
    **{f"{name[0].lower()}{name[1:]}": table for name, table in TYPES.items()},
    **{f"{name[0].lower()}{name[1:]}s": table for name, table in TYPES.items()},
    "assignedIssues": "issues",
    "createdIssues": "issues",
    "searchDocuments": "documents",
    "searchIssues": "issues",
    "searchProjects": "projects",
    "viewer": "users",
}


class Nested(NamedTuple):
    """A connection inside of an object: what it lists, and the field that names the object there.

    Nothing names it where there is no such field.
    """

    table: str
    owner: str | None


# Connections that are taken out of an object, as their nodes are objects of their own.
CONNECTIONS: dict[str, dict[str, Nested]] = {
    "issues": {
        "attachments": Nested("attachments", "issue"),
        "children": Nested("issues", "parent"),
        "comments": Nested("comments", "issue"),
        "documents": Nested("documents", "issue"),
        "history": Nested("history", "issue"),
        "inverseRelations": Nested("relations", "relatedIssue"),
        "relations": Nested("relations", "issue"),
    },
    "comments": {"children": Nested("comments", "parent"), "createdIssues": Nested("issues", None)},
    "projects": {
        "comments": Nested("comments", "project"),
        "documents": Nested("documents", "project"),
        "issues": Nested("issues", "project"),
    },
    "cycles": {
        "documents": Nested("documents", "cycle"),
        "issues": Nested("issues", "cycle"),
        "uncompletedIssuesUponClose": Nested("issues", None),
    },
    "users": {
        "assignedIssues": Nested("issues", "assignee"),
        "createdIssues": Nested("issues", "creator"),
    },
    "teams": {
        "cycles": Nested("cycles", "team"),
        "issues": Nested("issues", "team"),
        "labels": Nested("labels", "team"),
        "projects": Nested("projects", None),
    },
    "labels": {"children": Nested("labels", "parent"), "issues": Nested("issues", None)},
    "documents": {"comments": Nested("comments", None)},
}
# Connections that say something of the object itself: they stay, with these fields of each node.
MEMBERSHIPS = {
    "issues": {"labels": (Nested("labels", None), ("id", "name"))},
    "teams": {"members": (Nested("users", None), ("id",))},
}
# What a node inside of another object must hold to be the object, and not a mere reference to it.
WHOLE = {
    "issues": ("title", "description", "updatedAt"),
    "comments": ("body",),
    "relations": ("type",),
    "history": ("createdAt",),
    "projects": ("name", "description", "updatedAt"),
    "cycles": ("number", "startsAt", "updatedAt"),
    "users": ("name", "updatedAt"),
    "teams": ("key", "name", "updatedAt"),
    "labels": ("name", "updatedAt"),
    "documents": ("title", "content"),
    "attachments": ("title", "url"),
}

# Every field that is read, here and in the models, with its type in Linear's schema.
_EVERY = {"id": "ID!", "updatedAt": "DateTime!", "archivedAt": "DateTime"}
FIELDS: dict[str, dict[str, str]] = {
    "issues": {
        **_EVERY,
        "assignee": "User",
        "createdAt": "DateTime!",
        "creator": "User",
        "cycle": "Cycle",
        "description": "String",
        "dueDate": "TimelessDate",
        "estimate": "Float",
        "identifier": "String!",
        "labelIds": "[String!]!",
        "labels": "IssueLabelConnection!",
        "parent": "Issue",
        "previousIdentifiers": "[String!]!",
        "priority": "Float!",
        "priorityLabel": "String!",
        "project": "Project",
        "sharedAccess": "IssueSharedAccess!",
        "state": "WorkflowState!",
        "team": "Team!",
        "title": "String!",
        "trashed": "Boolean",
        "url": "String!",
    },
    "comments": {
        **_EVERY,
        "body": "String!",
        "botActor": "ActorBot",
        "createdAt": "DateTime!",
        "externalUser": "ExternalUser",
        "hideInLinear": "Boolean!",
        "issue": "Issue",
        "issueId": "String",
        "parent": "Comment",
        "parentId": "String",
        "quotedText": "String",
        "user": "User",
    },
    "relations": {**_EVERY, "issue": "Issue!", "relatedIssue": "Issue!", "type": "String!"},
    "history": {**_EVERY, "createdAt": "DateTime!", "issue": "Issue!"},
    "projects": {
        **_EVERY,
        "content": "String",
        "description": "String!",
        "name": "String!",
        "trashed": "Boolean",
        "url": "String!",
    },
    "cycles": {**_EVERY, "name": "String", "number": "Float!", "startsAt": "DateTime!"},
    "users": {**_EVERY, "displayName": "String!", "email": "String!", "name": "String!"},
    "teams": {
        **_EVERY,
        "key": "String!",
        "members": "UserConnection!",
        "name": "String!",
        "private": "Boolean!",
        "visibility": "TeamVisibility!",
    },
    "labels": {**_EVERY, "name": "String!"},
    "documents": {
        **_EVERY,
        "content": "String",
        "title": "String!",
        "trashed": "Boolean",
        "url": "String!",
    },
    "attachments": {**_EVERY, "issue": "Issue!", "title": "String!", "url": "String!"},
}
# Fields that say who may read something. Whatever they hold lands: set aside, it would leave in
# force what they said before. Staging takes what it cannot read for a no, and contracts report it.
TELL_READERS: dict[str, tuple[str, ...]] = {
    "issues": ("sharedAccess", "team"),
    "teams": tuple(FIELDS["teams"]),
}
# So does a list of members that is not whole: rather too few than those that there were.
LAND_IN_PART = ("teams",)
# What lies in the fields that are read.
INNER_FIELDS = {
    "ActorBot": {"name": "String", "userDisplayName": "String"},
    "Comment": {"id": "ID!"},
    "Cycle": {"id": "ID!", "name": "String", "number": "Float!"},
    "ExternalUser": {"id": "ID!", "displayName": "String!", "name": "String!"},
    "Issue": {"id": "ID!", "identifier": "String!"},
    "IssueSharedAccess": {"sharedWithUsers": "[User!]!"},
    "PageInfo": {"hasNextPage": "Boolean!"},
    "Project": {"id": "ID!", "name": "String!"},
    "Team": {"id": "ID!", "key": "String!"},
    "User": {"id": "ID!", "displayName": "String!", "name": "String!"},
    "WorkflowState": {"name": "String!"},
}

# A sweep that would delete a larger share of a table is taken for a broken export …
MAX_DELETED_SHARE = 0.3
# … unless it is about fewer objects than this.
MIN_SUSPICIOUS_DELETIONS = 20
