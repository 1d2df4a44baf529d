"""Looking at conversations: sessions, their forest, one node, and two side by side.

What is shown was written by others: control characters are shown, not obeyed.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.cells import cell_len, set_cell_size
from rich.text import Text

from loreline.cli.options import Json
from loreline.cli.output import console, print_json, print_table, say
from loreline.cli.text import one_line, shortened, visible
from loreline.errors import LorelineError

if TYPE_CHECKING:
    import duckdb

Row = dict[str, Any]

Tenant = Annotated[str | None, typer.Option("--tenant", help="Only this tenant's.")]

# Of a line of turns without a branch, and of siblings without children, so many are shown.
LINE_ENDS = 2
SIBLINGS = 6
GAP = 2
# Of what was said, so many characters are shown at least, and at most.
SHORTEST_TEXT = 24
LONGEST_TEXT = 80
# Of two nodes side by side: the widest lines, and equal lines shown around a difference.
WIDEST = 200
EQUAL_LINES = 2
SHORT_ID = 8

_NODES = """
select
    nodes.branch_node_id,
    nodes.parent_node_id,
    nodes.session_id,
    nodes.tenant,
    nodes.turn_id,
    nodes.choice_index,
    nodes.branch_kind,
    nodes.branch_reason,
    nodes.variant_of_node_id,
    nodes.variant_config,
    nodes.match,
    nodes.node_status,
    nodes.is_replay,
    nodes.depth,
    nodes.sibling_index,
    nodes.model,
    nodes.context_snapshot_id,
    nodes.response_snapshot_id,
    nodes.system_hash,
    nodes.tools_hash,
    nodes.started_at,
    runs.execution_id,
    runs.backend,
    runs.parameters,
    runs.prompt_tokens,
    runs.completion_tokens,
    runs.duration_ms,
    runs.finish_reason,
    runs.error,
    runs.response_text,
    runs.tool_trace
from lake.{prefix}conversations.conversation_branch_nodes as nodes
left join lake.{prefix}conversations.conversation_links as links using (branch_node_id)
left join lake.{prefix}conversations.execution_run_records as runs
    on links.execution_id = runs.execution_id
"""

_HISTORY = """
with recursive history as (
    select context_snapshot_id, parent_snapshot_id, message_hash, depth
    from lake.{prefix}conversations.context_snapshots
    where context_snapshot_id = $snapshot
    union all
    select below.context_snapshot_id, below.parent_snapshot_id, below.message_hash, below.depth
    from lake.{prefix}conversations.context_snapshots as below
    inner join history on below.context_snapshot_id = history.parent_snapshot_id
)

select messages.role, messages.name, messages.content, messages.tool_calls, messages.tool_call_id
from history
inner join lake.{prefix}conversations.messages as messages using (message_hash)
order by history.depth
"""


class Conversations:
    """The conversation tables of the lake, read-only."""

    def __init__(self) -> None:
        from loreline.lake.duck import connect
        from loreline.settings import Settings

        settings = Settings.load()
        self._prefix = settings.prefix
        self._connection: duckdb.DuckDBPyConnection = connect(settings.as_reader())

    def rows(self, query: str, **parameters: Any) -> list[Row]:
        """Rows of a query in which `{prefix}` stands before the names of schemas.

        Raises:
            LorelineError: the tables are not there.
        """
        import duckdb

        try:
            result = self._connection.execute(
                query.replace("{prefix}", self._prefix), parameters or None
            )
        except duckdb.CatalogException as error:
            raise LorelineError(
                "no conversation was built yet",
                "run `loreline ingest gateway` and `loreline build`",
            ) from error
        names = [column[0] for column in result.description]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def node(self, given: str) -> Row:
        """The node whose id begins like this.

        Raises:
            LorelineError: there is none, or several.
        """
        found = self.rows(
            f"{_NODES} where starts_with(nodes.branch_node_id, $id) limit 3", id=given
        )
        if len(found) > 1:
            raise LorelineError(f"several nodes begin with {given}", "give more of the id")
        if not found:
            raise LorelineError(
                f"there is no node {given}", "`loreline tree SESSION` shows the ids of a session"
            )
        return found[0]

    def messages(self, node: Row) -> list[Row]:
        """What the node was asked and answered, the system's messages in their places."""
        snapshot = node["response_snapshot_id"] or node["context_snapshot_id"]
        messages = self.rows(_HISTORY, snapshot=snapshot)
        for system in self.attribute(node, "system_hash") or []:
            message = {"role": "system", "name": system["name"], "content": system["content"]}
            messages.insert(
                system["position"], message | {"tool_calls": None, "tool_call_id": None}
            )
        return messages

    def attribute(self, node: Row, column: str) -> Any:
        """The system's messages or the tools of a node; None where there are none."""
        found = self.rows(
            "select content from lake.{prefix}conversations.request_attributes"
            " where tenant = $tenant and attribute_hash = $hash",
            tenant=node["tenant"],
            hash=node[column],
        )
        return json.loads(found[0]["content"]) if found else None


def sessions(
    tenant: Tenant = None,
    theme: Annotated[str | None, typer.Option("--theme", help="Only of this theme.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many, the latest first.")] = 20,
    as_json: Json = False,
) -> None:
    """List sessions of conversations, the latest first."""
    found = Conversations().rows(
        "select * exclude (_batch, _code_version)"
        " from lake.{prefix}conversations.conversation_sessions"
        " where status <> 'renamed' and ($tenant is null or tenant = $tenant)"
        " and ($theme is null or theme_id = $theme)"
        " order by last_turn_at desc, session_id limit $k",
        tenant=tenant,
        theme=theme,
        k=k,
    )
    if as_json:
        print_json(found)
        return
    columns = ["session_id", "tenant", "theme_id", "started_at", "turn_count", "branch_count"]
    columns += ["models", "status"]
    names = ["session", "tenant", "theme", "began (UTC)", "turns", "branches", "models", "status"]
    rows = [[_cell(row[column]) for column in columns] for row in found]
    print_table(names, rows, optional=["models", "theme", "tenant"])


def tree(
    session: Annotated[str, typer.Argument(help="As `loreline sessions` names it.")],
    tenant: Tenant = None,
    show_all: Annotated[bool, typer.Option("--all", help="Fold nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Show the forest of a session: what went on from what, and what else was tried.

    Turns that follow each other stand below each other; where one went on in several ways, each is
    a branch. Long lines and many equal siblings are folded.
    """
    nodes = Conversations().rows(
        f"{_NODES} where nodes.session_id = $session"
        " and ($tenant is null or nodes.tenant = $tenant)"
        " order by nodes.depth, nodes.sibling_index, nodes.branch_node_id",
        session=session,
        tenant=tenant,
    )
    if not nodes:
        raise LorelineError(f"there is no session {session}", "`loreline sessions` lists them")
    if as_json:
        print_json(nodes)
        return
    for name in dict.fromkeys(node["tenant"] for node in nodes):
        own = [node for node in nodes if node["tenant"] == name]
        if len(own) < len(nodes):
            say(f"tenant {name or '(none)'}")
        for line in aligned(tree_lines(own, fold=not show_all), console().width):
            say(line)


def aligned(lines: Iterable[Sequence[str]], width: int) -> Iterator[str]:
    """Lines of several cells under each other, the last one as long as there is room.

    Args:
        lines: a line of one cell stays as it is.
        width: of the terminal.
    """
    lines = list(lines)
    columns = zip(*(line[:-1] for line in lines if len(line) > 1), strict=True)
    widths = [max(map(cell_len, column)) for column in columns]
    room = min(LONGEST_TEXT, max(SHORTEST_TEXT, width - sum(widths) - GAP * len(widths)))
    for *cells, text in lines:
        padded = (set_cell_size(*cell) for cell in zip(cells, widths, strict=False))
        yield (" " * GAP).join([*padded, shortened(text, room) if cells else text])


def tree_lines(nodes: Sequence[Row], *, fold: bool) -> Iterator[list[str]]:
    """The lines of a forest: a cell for what is folded, several for a node.

    A line of turns keeps its place, whatever else was tried on the way; only where it goes on in
    several ways, these stand below it.

    Args:
        nodes: siblings in their order; one whose parent is not among them is a root.
        fold: leave out the middle of long lines, and all but a few siblings.
    """
    known = {node["branch_node_id"] for node in nodes}
    children: dict[str | None, list[Row]] = {}
    for node in nodes:
        parent = node["parent_node_id"]
        children.setdefault(parent if parent in known else None, []).append(node)
    # A conversation may branch deeper than functions may call each other.
    waiting: list[Iterator[Any]] = [_siblings(children.get(None, []), children, "", fold)]
    while waiting:
        item = next(waiting[-1], None)
        if item is None:
            waiting.pop()
        elif isinstance(item, list):
            yield item
        else:
            waiting.append(item)


def _siblings(
    nodes: Sequence[Row],
    children: dict[str | None, list[Row]],
    indent: str,
    fold: bool,
    *,
    goes_on: bool = False,
) -> Iterator[Any]:
    """Lines of siblings, and iterators of lines; the last is no end where the line goes on."""
    folded = list(nodes[SIBLINGS:]) if fold and len(nodes) > SIBLINGS + 1 else []
    shown = nodes[: len(nodes) - len(folded)]
    for number, first in enumerate(shown):
        is_last = number == len(shown) - 1 and not folded and not goes_on
        yield _branch(first, children, indent, "└─ " if is_last else "├─ ", fold)
    if folded:
        kinds = Counter(node["branch_kind"] for node in folded).most_common()
        told = ", ".join(f"{count} {kind}" for kind, count in kinds)
        below = sum(_count_below(node, children) for node in folded)
        more = f", with {below:,} below them" if below else ""
        mark = "├─ " if goes_on else "└─ "
        yield [f"{indent}{mark}… {len(folded)} more{more}: {told}"]


def _branch(
    first: Row, children: dict[str | None, list[Row]], indent: str, mark: str, fold: bool
) -> Iterator[Any]:
    """A line of turns, what else was tried at each, and the ways in which it goes on at last."""
    line, tried = [first], [[]]
    while further := children.get(line[-1]["branch_node_id"], []):
        going_on = [node for node in further if node["branch_node_id"] in children]
        if len(going_on) > 1 or (not going_on and len(further) > 1):
            break
        (on,) = going_on or further
        line.append(on)
        tried.append([node for node in further if node is not on])
    else:
        further = []
    below = indent + ("   " if mark == "└─ " else "│  ")
    hidden = range(LINE_ENDS, len(line) - LINE_ENDS) if fold and len(line) > 6 else range(0)
    for number, node in enumerate(line):
        if number not in hidden:
            yield _siblings(tried[number], children, below, fold, goes_on=True)
            yield _line(indent + mark if number == 0 else below, node)
        elif number == hidden.start:
            tokens = sum(line[n]["completion_tokens"] or 0 for n in hidden)
            others = sum(len(tried[n]) for n in hidden)
            also = f", {others:,} other answers" if others else ""
            yield [f"{below}⋮  {len(hidden)} turns that follow each other, {tokens:,} tokens{also}"]
    yield _siblings(further, children, below, fold)


def _count_below(node: Row, children: dict[str | None, list[Row]]) -> int:
    waiting, count = [node], 0
    while waiting:
        below = children.get(waiting.pop()["branch_node_id"], [])
        count += len(below)
        waiting += below
    return count


def _line(lead: str, node: Row) -> list[str]:
    said = node["response_text"] or _called(node["tool_trace"]) or node["error"] or ""
    if node["node_status"] != "completed":
        said = f"{node['node_status'].upper()} {said}"
    return [
        lead + node["branch_node_id"][:SHORT_ID],
        node["branch_kind"] + (", replay" if node["is_replay"] else ""),
        one_line(node["model"] or "no model"),
        f"{node['prompt_tokens'] or 0:,}→{node['completion_tokens'] or 0:,}",
        one_line(said),
    ]


def _called(tool_trace: str | None) -> str:
    calls = json.loads(tool_trace or "[]")
    return ", ".join(f"{_tool_name(call)}()" for call in calls)


def node(
    node_id: Annotated[str, typer.Argument(metavar="NODE", help="Its id, or how it begins.")],
    as_json: Json = False,
) -> None:
    """Show a node: what was asked and answered, its tools, settings and siblings."""
    lake = Conversations()
    found = lake.node(node_id)
    messages, tools = lake.messages(found), lake.attribute(found, "tools_hash")
    siblings = lake.rows(
        f"{_NODES} where nodes.tenant = $tenant and"
        " (nodes.parent_node_id = $parent or $parent is null and nodes.parent_node_id is null"
        " and nodes.session_id = $session)"
        " order by nodes.sibling_index",
        tenant=found["tenant"],
        parent=found["parent_node_id"],
        session=found["session_id"],
    )
    if as_json:
        print_json(found | {"messages": messages, "tools": tools, "siblings": siblings})
        return
    for name in ("branch_node_id", "session_id", "turn_id", "parent_node_id", "branch_kind"):
        say(f"{name:<16}{one_line(found[name] or '')}")
    say(f"{'because':<16}{found['branch_reason']} (parent: {found['match']})")
    say(f"{'variant':<16}{found['variant_config']}")
    say(f"{'model':<16}{found['model']} {found['parameters']} on {found['backend'] or 'unknown'}")
    tokens = f"{found['prompt_tokens'] or 0:,} read, {found['completion_tokens'] or 0:,} written"
    say(f"{'answer':<16}{found['node_status']}, {tokens}, {found['duration_ms'] or 0:,} ms")
    if tools:
        offered = ", ".join(one_line(_tool_name(tool)) for tool in tools)
        say(f"{'tools':<16}{offered}")
    for line in conversation_lines(messages):
        say(line)
    others = [row for row in siblings if row["branch_node_id"] != found["branch_node_id"]]
    if others:
        say("")
        say("siblings")
        for line in aligned(tree_lines(others, fold=True), console().width):
            say(line)


def conversation_lines(messages: Sequence[Row]) -> Iterator[str]:
    """Messages to be read, each under its role."""
    for message in messages:
        name = f" {message['name']}" if message["name"] else ""
        answered = f" to call {message['tool_call_id']}" if message["tool_call_id"] else ""
        yield ""
        yield one_line(f"── {message['role']}{name}{answered}")
        # Nothing that was said looks like the line above it.
        for line in (message["content"] or "").splitlines():
            yield f"   {line}"
        for call in json.loads(message["tool_calls"] or "[]"):
            yield f"   → {call['name']}({json.dumps(call['arguments'], ensure_ascii=False)})"


def diff(
    one: Annotated[str, typer.Argument(metavar="NODE", help="A node.")],
    other: Annotated[str, typer.Argument(metavar="NODE", help="Another one.")],
    as_json: Json = False,
) -> None:
    """Show two nodes side by side: settings, what was asked and answered, differences marked."""
    lake = Conversations()
    nodes = [lake.node(one), lake.node(other)]
    names = ("branch_kind", "model", "backend", "parameters", "node_status", "finish_reason")
    names += ("prompt_tokens", "completion_tokens", "duration_ms")
    differing = {n: [nodes[0][n], nodes[1][n]] for n in names if nodes[0][n] != nodes[1][n]}
    if nodes[0]["tools_hash"] != nodes[1]["tools_hash"]:
        differing["tools"] = [_offered(lake, node) for node in nodes]
    texts = [list(conversation_lines(lake.messages(node))) for node in nodes]
    rows = list(side_by_side(*texts))
    if as_json:
        print_json({"settings": differing, "messages": rows})
        return
    ids = [node["branch_node_id"][:SHORT_ID] for node in nodes]
    if differing:
        print_table(
            ["setting", *ids], [[n, *map(_cell, values)] for n, values in differing.items()]
        )
    if texts[0] == texts[1]:
        say("Nothing else was said." if differing else "They are the same.")
        return
    for line in in_columns([(ids[0], " ", ids[1]), *rows], min(console().width, WIDEST)):
        say(line)


def side_by_side(left: Sequence[str], right: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Lines against each other: left, mark and right.

    The mark is blank where they are equal, `|` where they differ, `<` or `>` where one side has
    nothing, and `⋮` where equal lines are left out.
    """
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    for kind, start, end, from_right, to_right in matcher.get_opcodes():
        if kind != "equal":
            for one, other in zip_longest(left[start:end], right[from_right:to_right]):
                mark = "|" if None not in (one, other) else "<" if other is None else ">"
                yield one or "", mark, other or ""
            continue
        before = 0 if start == 0 else EQUAL_LINES
        after = 0 if end == len(left) else EQUAL_LINES
        hidden = range(start + before, end - after)
        for number in range(start, end):
            if len(hidden) < 2 or number not in hidden:
                yield left[number], " ", left[number]
            elif number == hidden.start:
                told = f"{len(hidden)} equal lines"
                yield told, "⋮", told


def in_columns(rows: Iterable[tuple[str, str, str]], width: int) -> Iterator[str]:
    """Two columns with a mark between them, long lines folded, in a terminal of this width."""
    room = (width - 3) // 2
    for left, mark, right in rows:
        folded = (_folded(left, room), _folded(right, room))
        for one, other in zip_longest(*folded, fillvalue=""):
            yield f"{set_cell_size(one, room)} {mark} {other}".rstrip()


def _folded(text: str, room: int) -> list[str]:
    return [part.plain for part in Text(visible(text)).wrap(console(), room)] or [""]


def _offered(lake: Conversations, node: Row) -> str:
    """The tools of a node by name, with a mark of how they are described."""
    tools = lake.attribute(node, "tools_hash") or []
    named = ", ".join(one_line(_tool_name(tool)) for tool in tools) or "none"
    return f"{named} ({node['tools_hash'][:SHORT_ID]})" if tools else named


def _tool_name(tool: Any) -> str:
    if not isinstance(tool, dict):
        return "?"
    function = tool.get("function")
    return str((function if isinstance(function, dict) else tool).get("name") or "?")


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return value.replace(microsecond=0) if hasattr(value, "microsecond") else value
