"""The GraphQL queries that are sent to Linear, and how large their pages are.

A query's complexity is charged for what it asks, not for what is there: an object is 1 point, a
field 0.1, and a list multiplies what is in it by its `first`; 10,000 is the most of one query
(https://linear.app/developers/rate-limiting).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from dlt_sources.linear.settings import HAVE_A_BIN

# Lists of ids: the first page when little is expected, and the largest page that there is.
FEW, MANY = 25, 250
PAGE_INFO = "pageInfo { hasNextPage endCursor }"
_PERSON = "{ id name displayName }"


class Inner(NamedTuple):
    """A list inside of an object that lands with it, or whose nodes do.

    Attributes:
        fields: of its nodes.
        first: nodes asked for with the object.
        more: nodes in each further page.
        arguments: others of the list.
    """

    fields: str
    first: int
    more: int
    arguments: str = ""


@dataclass(frozen=True)
class Kind:
    """A kind of objects, as the API names it and is asked for it.

    Attributes:
        table: where they land.
        one: the field of `Query` that gives one of them.
        all: the field that lists them.
        filter: the type of that list's filter; empty where it has none.
        fields: what lands.
        at_once: how many are asked for in one query.
        arguments: others of the list.
        inner: the lists inside of them.
    """

    table: str
    one: str
    all: str
    filter: str
    fields: str
    at_once: int
    arguments: str = ""
    inner: tuple[tuple[str, Inner], ...] = ()

    @property
    def whole(self) -> str:
        """All fields, the first pages of the lists inside among them."""
        return "\n".join([self.fields, *(_list(name, inner) for name, inner in self.inner)])


_HISTORY = """
    id createdAt updatedAt archivedAt actorId
    fromTitle toTitle fromStateId toStateId fromPriority toPriority fromEstimate toEstimate
    fromAssigneeId toAssigneeId fromDueDate toDueDate
    fromCycleId toCycleId fromProjectId toProjectId fromParentId toParentId fromTeamId toTeamId
    addedLabelIds removedLabelIds relationChanges { identifier type } attachmentId
    updatedDescription archived autoArchived autoClosed trashed
"""

KINDS = {
    kind.table: kind
    # What says who may read comes first, and what others refer to.
    for kind in (
        Kind(
            "users",
            "user",
            "users",
            "UserFilter",
            "id name displayName email active admin guest app url createdAt updatedAt archivedAt",
            100,
            arguments="includeDisabled: true",
        ),
        Kind(
            "teams",
            "team",
            "teams",
            "TeamFilter",
            """
            id key name displayName description private visibility createdAt updatedAt archivedAt
            parent { id }
            """,
            20,
            inner=(("members", Inner("id", 25, MANY)),),
        ),
        Kind(
            "labels",
            "issueLabel",
            "issueLabels",
            "IssueLabelFilter",
            """
            id name color description isGroup createdAt updatedAt archivedAt
            team { id key } parent { id }
            """,
            100,
        ),
        Kind(
            "projects",
            "project",
            "projects",
            "ProjectFilter",
            f"""
            id name slugId url description content priority priorityLabel startDate targetDate
            createdAt updatedAt startedAt completedAt canceledAt archivedAt trashed
            status {{ id name type }} lead {_PERSON} creator {_PERSON}
            """,
            50,
        ),
        Kind(
            "cycles",
            "cycle",
            "cycles",
            "CycleFilter",
            """
            id number name description startsAt endsAt completedAt createdAt updatedAt archivedAt
            team { id key }
            """,
            100,
        ),
        Kind(
            "documents",
            "document",
            "documents",
            "DocumentFilter",
            f"""
            id title content slugId url createdAt updatedAt archivedAt trashed
            creator {_PERSON} project {{ id name }} issue {{ id identifier }}
            cycle {{ id number name }} team {{ id key }}
            """,
            50,
        ),
        Kind(
            "issues",
            "issue",
            "issues",
            "IssueFilter",
            f"""
            id identifier number previousIdentifiers title description priority priorityLabel
            estimate dueDate url branchName
            createdAt updatedAt startedAt completedAt canceledAt archivedAt trashed
            state {{ id name type }} team {{ id key name }}
            creator {_PERSON} assignee {_PERSON} delegate {_PERSON}
            botActor {{ id name userDisplayName }}
            project {{ id name }} cycle {{ id number name }} parent {{ id identifier }}
            sharedAccess {{ sharedWithUsers {{ id }} }}
            """,
            50,
            inner=(
                ("labels", Inner("id name", 10, 50)),
                ("history", Inner(_HISTORY, 10, 50, "includeArchived: true")),
            ),
        ),
        Kind(
            "comments",
            "comment",
            "comments",
            "CommentFilter",
            f"""
            id body quotedText url hideInLinear
            createdAt updatedAt editedAt resolvedAt archivedAt
            issue {{ id }} parent {{ id }} project {{ id }}
            user {_PERSON} externalUser {_PERSON} botActor {{ id name userDisplayName }}
            """,
            100,
        ),
        Kind(
            "attachments",
            "attachment",
            "attachments",
            "AttachmentFilter",
            f"""
            id title subtitle url sourceType createdAt updatedAt archivedAt
            issue {{ id }} creator {_PERSON}
            """,
            100,
        ),
        Kind(
            "relations",
            "issueRelation",
            "issueRelations",
            "",
            """
            id type createdAt updatedAt archivedAt
            issue { id identifier } relatedIssue { id identifier }
            """,
            100,
        ),
    )
}


@dataclass(frozen=True)
class Listing:
    """One list, of which a query asks a page.

    Attributes:
        name: what the answer calls it.
        kind: what it lists.
        is_whole: whether it gives the objects, or only what tells whether they are landed.
        most: objects in a page.
    """

    name: str
    kind: Kind
    is_whole: bool = False
    most: int = MANY

    @property
    def node(self) -> str:
        """What it asks of each object."""
        if self.is_whole:
            return self.kind.whole
        return "id updatedAt archivedAt" + " trashed" * (self.kind.table in HAVE_A_BIN)


# Relations cannot be asked for by their ids, and are small.
LISTINGS = {
    name: Listing(name, kind, name == "relations", 100 if name == "relations" else MANY)
    for name, kind in KINDS.items()
}
# Who is a member of a team is not seen at its `updatedAt`.
ALL_TEAMS = Listing("teams", KINDS["teams"], is_whole=True, most=KINDS["teams"].at_once)
CLOSED_TEAMS = Listing("closedTeams", KINDS["teams"], is_whole=True, most=KINDS["teams"].at_once)
# Nor is with whom an issue is shared, which a sub-issue has from its parent.
SHARED_ISSUES = Listing("sharedIssues", KINDS["issues"])
# What lists of some objects only are limited to.
FILTERS = {
    "closedTeams": {"visibility": {"neq": "public"}},
    "sharedIssues": {"hasSharedUsers": {"eq": True}},
}


def listing_query(listings: Iterable[Listing]) -> str:
    """A page of each of some lists.

    Its variables are `order`, and for each list `<name>First`, `<name>After` and, where the kind
    has one, `<name>Filter`.
    """
    declared, lists = ["$order: PaginationOrderBy"], []
    for listing in listings:
        name, kind = listing.name, listing.kind
        declared += [f"${name}First: Int!", f"${name}After: String"]
        arguments = [f"first: ${name}First", f"after: ${name}After", "orderBy: $order"]
        arguments += ["includeArchived: true", *filter(None, [kind.arguments])]
        if kind.filter:
            declared.append(f"${name}Filter: {kind.filter}")
            arguments.append(f"filter: ${name}Filter")
        page = f"{{ nodes {{ {listing.node} }} {PAGE_INFO} }}"
        lists.append(f"{name}: {kind.all}({', '.join(arguments)}) {page}")
    return _query(f"List({', '.join(declared)})", *lists)


def objects_query(kind: Kind, *, is_whole: bool = True) -> str:
    """Objects by their ids, as `$filter` names them, or only their ids."""
    arguments = ["first: $first", "filter: $filter", "includeArchived: true"]
    arguments += filter(None, [kind.arguments])
    fields = kind.whole if is_whole else "id"
    return _query(
        f"Objects($first: Int!, $filter: {kind.filter}!)",
        f"{kind.table}: {kind.all}({', '.join(arguments)}) {{ nodes {{ {fields} }} {PAGE_INFO} }}",
    )


def object_query(kind: Kind) -> str:
    """One object by its id."""
    return _query("Object($id: String!)", f"{kind.table}: {kind.one}(id: $id) {{ {kind.whole} }}")


def rest_query(kind: Kind, name: str) -> str:
    """A further page of a list inside of an object."""
    inner = dict(kind.inner)[name]
    arguments = [f"first: {inner.more}", "after: $after", *filter(None, [inner.arguments])]
    page = f"{name}({', '.join(arguments)}) {{ nodes {{ {inner.fields} }} {PAGE_INFO} }}"
    return _query(
        "Rest($id: String!, $after: String!)", f"{kind.table}: {kind.one}(id: $id) {{ {page} }}"
    )


def _list(name: str, inner: Inner) -> str:
    arguments = ", ".join([f"first: {inner.first}", *filter(None, [inner.arguments])])
    return f"{name}({arguments}) {{ nodes {{ {inner.fields} }} {PAGE_INFO} }}"


def _query(signature: str, *fields: str) -> str:
    # Blanks say nothing, and are sent with each request.
    return " ".join(f"query {signature} {{ {' '.join(fields)} }}".split())
