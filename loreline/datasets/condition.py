"""The condition that a frozen dataset's rows were chosen by: SQL, but no more than a condition.

It is given by a person, recorded, and run again at every verification: so it may look at the
dataset's own columns alone, and has to say the same of a row whenever and wherever it is asked.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

import duckdb

from loreline.errors import LorelineError

TABLE = "dataset"
# They read the session, though DuckDB counts them among those that depend on their arguments alone.
SESSION_FUNCTIONS = {"current_setting", "getvariable", "getenv", "version"}
# Parts of a select that are no condition, in the words of DuckDB's parser.
OTHER_PARTS = ("modifiers", "group_expressions", "group_sets", "having", "sample", "qualify")


def checked(connection: duckdb.DuckDBPyConnection, where: str, columns: Collection[str]) -> str:
    """A condition as it may be put behind `where`; empty for an empty one.

    Args:
        connection: any; it parses, and knows the functions.
        where: what was given.
        columns: of the dataset.

    Raises:
        LorelineError: it is no condition over these columns, or what it says may change.
    """
    if not where.strip():
        return ""
    # A comment at its end would take what follows along.
    statement = f"select * from {TABLE} where (\n{where}\n)"
    row = connection.execute("select json_serialize_sql($1)", [statement]).fetchone()
    assert row is not None
    parsed = json.loads(row[0])
    if parsed["error"]:
        raise _refusal(f"DuckDB cannot read it ({parsed['error_message']})")
    nodes = [one["node"] for one in parsed["statements"]]
    if len(nodes) != 1 or not _is_plain_select(nodes[0]):
        raise _refusal("it is more than a condition")
    parts = list(_parts(nodes[0]["where_clause"]))
    if any(part.get("class") == "SUBQUERY" for part in parts):
        raise _refusal("it asks another query, which is not frozen with the dataset")
    known = {column.lower() for column in columns}
    for part in parts:
        if part.get("class") == "COLUMN_REF":
            named = [name.lower() for name in part["column_names"]]
            if named[0] not in known and not (
                named[0] == TABLE and named[1:2] and named[1] in known
            ):
                raise _refusal(f"the dataset has no column {part['column_names'][0]}")
        if part.get("class") == "PARAMETER":
            raise _refusal("it has a parameter, which nobody gives a value")
    functions = {p["function_name"].lower() for p in parts if p.get("class") == "FUNCTION"}
    if unstable := sorted(functions - _stable(connection, functions)):
        raise _refusal(f"{unstable[0]}() may not give the same another time")
    return where.strip()


def _is_plain_select(node: dict[str, Any]) -> bool:
    return (
        node["type"] == "SELECT_NODE"
        and node["from_table"].get("table_name") == TABLE
        and not node["cte_map"]["map"]
        and [item["type"] for item in node["select_list"]] == ["STAR"]
        and not any(node[part] for part in OTHER_PARTS)
    )


def _parts(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for branch in tree:
            yield from _parts(branch)


def _stable(connection: duckdb.DuckDBPyConnection, functions: Collection[str]) -> set[str]:
    """Those of the functions that give the same for the same arguments, in each of their forms."""
    rows = connection.execute(
        "select function_name from duckdb_functions() where function_name in"
        " (select unnest($1::varchar[])) group by function_name having"
        " bool_and(function_type = 'scalar' and coalesce(stability, '') = 'CONSISTENT')",
        [sorted(functions)],
    ).fetchall()
    return {name for (name,) in rows} - SESSION_FUNCTIONS


def _refusal(why: str) -> LorelineError:
    return LorelineError(
        f"--where is refused: {why}",
        "give a condition over the dataset's columns, as in --where \"split = 'train'\"",
    )
