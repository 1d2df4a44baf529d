"""What was asked at a node, read from the copies in Postgres and written as a chat request.

The lake keeps messages in their canonical form (`loreline.conversations.canonical`). A request made
of them has the hashes of the one that was recorded: ids of tool calls are new, and reasoning, which
no client sends back, is not in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import class_row, dict_row
from psycopg.sql import SQL, Composed, Identifier

from loreline.conversations.canonical import Messages
from loreline.errors import LorelineError
from loreline.settings import Settings

Json = Any
Row = dict[str, Any]


@dataclass(frozen=True)
class Node:
    """A node as a replay sees it: columns of `conversation_branch_nodes` and `llm_chat_turns`."""

    branch_node_id: str
    session_id: str
    tenant: str
    theme_id: str | None
    turn_id: str
    parent_node_id: str | None
    parent_turn_id: str | None
    sibling_index: int
    model: str | None
    system_hash: str
    tools_hash: str
    context_snapshot_id: str
    response_snapshot_id: str | None
    parameters: str | None
    prompt_tokens: int | None
    completion_tokens: int | None


_NODES = """
select
    nodes.branch_node_id,
    nodes.session_id,
    nodes.tenant,
    nodes.theme_id,
    nodes.turn_id,
    nodes.parent_node_id,
    parents.turn_id as parent_turn_id,
    nodes.sibling_index,
    nodes.model,
    nodes.system_hash,
    nodes.tools_hash,
    nodes.context_snapshot_id,
    nodes.response_snapshot_id,
    turns.parameters,
    turns.prompt_tokens,
    turns.completion_tokens
from {lineage}.conversation_branch_nodes as nodes
left join {lineage}.conversation_branch_nodes as parents
    on nodes.parent_node_id = parents.branch_node_id
left join {lineage}.llm_chat_turns as turns on nodes.turn_key = turns.turn_key
"""

# Which nodes of a theme a set of replays may be made of.
CHOICES = {
    "all": "true",
    "roots": "nodes.is_root",
    "leaves": "not exists (select from {lineage}.conversation_branch_nodes as below"
    " where below.parent_node_id = nodes.branch_node_id and not below.is_replay)",
}


class Contexts:
    """Nodes and what was asked at them.

    Args:
        connection: to Postgres.
        settings: says which schema the copies live in.
    """

    def __init__(self, connection: psycopg.Connection, settings: Settings) -> None:
        self._connection = connection
        self._lineage = Identifier(f"{settings.prefix}lineage")

    def node(self, given: str) -> Node:
        """The node whose id begins like this.

        Raises:
            LorelineError: there is none, or several.
        """
        found = self._nodes("where starts_with(nodes.branch_node_id, %s) limit 2", [given])
        if len(found) > 1:
            raise LorelineError(f"several nodes begin with {given}", "give more of the id")
        if not found:
            raise LorelineError(
                f"there is no node {given} to replay",
                "`loreline tree SESSION` shows ids; `loreline build` copies new nodes to Postgres",
            )
        return found[0]

    def of_theme(self, theme_id: str, choice: str, limit: int | None) -> list[Node]:
        """Original nodes of a theme in the order in which they were made: by session and depth."""
        return self._nodes(
            f"where nodes.theme_id = %s and not nodes.is_replay and {CHOICES[choice]}"
            " order by nodes.session_id, nodes.depth, nodes.sibling_index, nodes.branch_node_id"
            " limit %s",
            [theme_id, limit],
        )

    def below(self, node: Node) -> list[Node]:
        """The original nodes below a node, each after its parent, siblings in their order."""
        return self._nodes(
            """
            where nodes.branch_node_id in (
                with recursive subtree as (
                    select branch_node_id, parent_node_id, is_replay
                    from {lineage}.conversation_branch_nodes
                    where branch_node_id = %s
                    union
                    select child.branch_node_id, child.parent_node_id, child.is_replay
                    from {lineage}.conversation_branch_nodes as child
                    inner join subtree on child.parent_node_id = subtree.branch_node_id
                    where not child.is_replay
                )
                select branch_node_id from subtree
            ) and nodes.branch_node_id <> %s
            order by nodes.depth, nodes.sibling_index, nodes.branch_node_id
            """,
            [node.branch_node_id] * 2,
        )

    def history(self, snapshot_id: str) -> list[Row]:
        """The canonical messages of a history, without the system's."""
        statement = SQL("select * from {}.history(%s)").format(self._lineage)
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(statement, [snapshot_id]).fetchall()

    def attribute(self, node: Node, attribute_hash: str) -> Json:
        """The system's messages or the tools of a node; None where it has none."""
        statement = SQL(
            "select content from {}.request_attributes where tenant = %s and attribute_hash = %s"
        ).format(self._lineage)
        row = self._connection.execute(statement, [node.tenant, attribute_hash]).fetchone()
        return json.loads(row[0]) if row else None

    def _nodes(self, condition: str, parameters: Sequence[Any]) -> list[Node]:
        with self._connection.cursor(row_factory=class_row(Node)) as cursor:
            return cursor.execute(self._query(_NODES + condition), parameters).fetchall()

    def _query(self, statement: str) -> Composed:
        return SQL(statement).format(lineage=self._lineage)


def added(history: Sequence[Row]) -> list[Row]:
    """What a client added to the last answer: its messages after it, and a prefill after those."""
    end = len(history)
    while end and history[end - 1]["role"] == "assistant":
        end -= 1
    start = end
    while start and history[start - 1]["role"] != "assistant":
        start -= 1
    return list(history[start:])


def chat_messages(history: Iterable[Row], system: Sequence[Json] | None) -> list[Json]:
    """Canonical messages as those of a chat request.

    Args:
        history: rows with role, content, name, tool_calls and tool_call_id: which of the calls of
            the answer before it a tool's result answers, from 0.
        system: the system's messages, each with its position among all.
    """
    messages: list[Json] = []
    answer = 0
    for place, row in enumerate(history):
        message: Json = {"role": row["role"], "content": _content(row["content"])}
        if row["name"]:
            message["name"] = row["name"]
        if row["tool_calls"]:
            answer = place
            calls = json.loads(row["tool_calls"])
            message["tool_calls"] = [_call(call, place, n) for n, call in enumerate(calls)]
        else:
            message["content"] = message["content"] or ""
        if row["role"] == "tool":
            message["tool_call_id"] = _call_id(answer, row["tool_call_id"])
        messages.append(message)
    for text in system or []:
        named = {"name": text["name"]} if text.get("name") else {}
        said = {"role": "system", "content": _content(text["content"]) or "", **named}
        messages.insert(text["position"], said)
    return messages


def tools_of(offered: Json) -> dict[str, Json]:
    """The field of a request that offers tools; older requests call it `functions`."""
    if not offered:
        return {}
    is_old = not any(isinstance(tool, dict) and tool.get("type") for tool in offered)
    return {"functions" if is_old else "tools": offered}


def _content(content: str | None) -> Json:
    """Text, or the parts that it is the canonical JSON of."""
    if not content or not content.startswith("[{"):
        return content
    try:
        parts = json.loads(content)
    except json.JSONDecodeError:
        return content
    again = Messages().message({"role": "user", "content": parts})
    return parts if again.content == content else content


def _call(call: Json, place: int, number: int) -> Json:
    function = {"name": call["name"], "arguments": _arguments(call["arguments"])}
    return {"id": _call_id(place, number), "type": "function", "function": function}


def _arguments(arguments: Json) -> str:
    """Arguments as the text of a call; what was no JSON stays as it was."""
    if isinstance(arguments, str):
        try:
            json.loads(arguments)
        except json.JSONDecodeError:
            return arguments
    return json.dumps(arguments, ensure_ascii=False)


def _call_id(place: int, number: int | str | None) -> str:
    return f"call_{place}_{number}"
