"""What was asked at a node, read from the copies in Postgres and written as a chat request.

The lake keeps messages in their canonical form (`loreline.conversations.canonical`). A request made
of them has the hashes of the one that was recorded: ids of tool calls are new, and reasoning, which
no client sends back, is not in it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import class_row, dict_row
from psycopg.sql import SQL, Composed, Identifier

from loreline.conversations.canonical import EMPTY
from loreline.errors import LorelineError
from loreline.settings import Settings

Json = Any
Row = dict[str, Any]


@dataclass(frozen=True)
class Node:
    """A node as a replay sees it: columns of `conversation_branch_nodes` and `llm_chat_turns`.

    Where the gateway did not tell `prompt_tokens`, they are estimated from the messages.
    """

    branch_node_id: str
    session_id: str
    tenant: str
    theme_id: str | None
    turn_id: str
    parent_node_id: str | None
    parent_turn_id: str | None
    parent_response_id: str | None
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
    parents.response_snapshot_id as parent_response_id,
    nodes.model,
    nodes.system_hash,
    nodes.tools_hash,
    nodes.context_snapshot_id,
    nodes.response_snapshot_id,
    turns.parameters,
    coalesce(
        nullif(turns.prompt_tokens, 0),
        (
            select sum(token_count)::bigint
            from {lineage}.history(nodes.context_snapshot_id)
        )
    ) as prompt_tokens,
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
        """Original nodes of a theme, the latest first."""
        return self._nodes(
            f"where nodes.theme_id = %s and not nodes.is_replay and {CHOICES[choice]}"
            " order by nodes.started_at desc, nodes.branch_node_id limit %s",
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
        """The canonical messages of a history, without the system's.

        Raises:
            LorelineError: some of them are not there.
        """
        statement = SQL("select * from {}.history(%s)").format(self._lineage)
        with self._connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(statement, [snapshot_id]).fetchall()
        if snapshot_id != EMPTY and (not rows or len(rows) != rows[-1]["depth"]):
            raise _incomplete(f"messages of history {snapshot_id}")
        return rows

    def attribute(self, node: Node, attribute_hash: str) -> Json:
        """The system's messages or the tools of a node; None where it has none.

        Raises:
            LorelineError: it has some, and they are not there.
        """
        if attribute_hash == EMPTY:
            return None
        statement = SQL(
            "select content from {}.request_attributes where tenant = %s and attribute_hash = %s"
        ).format(self._lineage)
        row = self._connection.execute(statement, [node.tenant, attribute_hash]).fetchone()
        if row is None:
            raise _incomplete(f"system or tools {attribute_hash}")
        return json.loads(row[0])

    def _nodes(self, condition: str, parameters: Sequence[Any]) -> list[Node]:
        with self._connection.cursor(row_factory=class_row(Node)) as cursor:
            return cursor.execute(self._query(_NODES + condition), parameters).fetchall()

    def _query(self, statement: str) -> Composed:
        return SQL(statement).format(lineage=self._lineage)


def _incomplete(what: str) -> LorelineError:
    return LorelineError(
        f"Postgres lacks {what}",
        "mend the copies: loreline build --select lineage_copies --full-refresh",
    )


def added(history: Sequence[Row], answer: Sequence[Row]) -> list[Row]:
    """What a client added to an answer.

    Args:
        history: of the client's request.
        answer: the history that ends in the answer. Where the client sent another history, as one
            that was cut, the last message that equals the answer ends what was there before; where
            there is none, the last answer before what a person or a tool said last.
    """
    for name in ("context_snapshot_id", "message_hash") if answer else ():
        for place in range(len(history) - 1, -1, -1):
            if history[place][name] == answer[-1][name]:
                return list(history[place + 1 :])
    place = len(history)
    while place and history[place - 1]["role"] == "assistant":
        place -= 1
    while place and history[place - 1]["role"] != "assistant":
        place -= 1
    return list(history[place:])


def moved(system: Sequence[Json], length: int, kept: int, now: int) -> list[Json]:
    """The system's messages in a history of another length.

    Those among what was kept of the beginning stay where they are, later ones as far from the end.

    Args:
        system: each with its position among all messages.
        length: of the history that they were in, without them.
        kept: so many of its first messages stand at the beginning of the other one.
        now: the length of the other one.
    """
    texts = []
    for number, text in enumerate(system):
        before = text["position"] - number
        place = before if before < kept else max(0, now - (length - before))
        texts.append({**text, "position": place + number})
    return texts
