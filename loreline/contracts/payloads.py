"""Columns of JSON payloads: which type each field of a contract has, and the values of some."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from loreline.contracts.odcs import Contract, Field, Path_, value_column

_TYPES = ("string", "integer", "number", "boolean", "array", "object")
# The text of a JSON value tells its type by its first character; null is what is not there.
_FIRST = {'"': 0, **dict.fromkeys("-0123456789", 1), "#": 2, "t": 3, "f": 3, "[": 4, "{": 5}
_SIGNS = {
    "OBJECT": "{",
    "ARRAY": "[",
    "VARCHAR": '"',
    "BOOLEAN": "t",
    "DOUBLE": "#",
    **dict.fromkeys(("BIGINT", "UBIGINT", "HUGEINT"), "0"),
}
_CODES = np.full(256, -1, dtype=np.int8)
_CODES[[ord(character) for character in _FIRST]] = list(_FIRST.values())


def columns(
    connection: duckdb.DuckDBPyConnection, contract: Contract, payloads: pa.ChunkedArray
) -> pd.DataFrame:
    """A column per field with the JSON type of its value, and one with the value where it matters.

    Categories all of them, null where a field is not there: judging a column then costs a few
    nanoseconds a row, whatever it holds.

    Args:
        connection: DuckDB, used by this call alone.
        contract: which fields.
        payloads: JSON texts.

    Returns:
        A row per payload, in their order.
    """
    fields = contract.fields
    if not fields:
        return pd.DataFrame(index=range(len(payloads)))
    # All leaves of a payload in one pass: types asked by path (`json_type`) take three times as
    # long. Objects with described fields come as structures, so their own type is asked by path.
    objects = [path for path in contract.objects if path]
    asked = {n: _asked(n, field, objects) for n, field in enumerate(fields)}
    structure = json.dumps(_structure(contract, ()))
    with _shown(connection, payloads):
        found = connection.execute(
            f"""
            select {", ".join(part for parts in asked.values() for part in parts)}
            from (
                select
                    json_transform(payload, {_text(structure)}) as given,
                    json_type(payload, {_paths(objects)}) as object_types
                from payloads
            )
            """  # noqa: S608 - keys are quoted, and come from the contract
        ).to_arrow_table()
    frame: dict[str, Any] = {}
    for n, field in enumerate(fields):
        frame[field.name] = _types(found[f"t{n}"])
        if field.values:
            frame[value_column(field)] = found[f"v{n}"].dictionary_encode().to_pandas()
    return pd.DataFrame(frame, copy=False)


def new_fields(
    connection: duckdb.DuckDBPyConnection, contract: Contract, payloads: pa.ChunkedArray
) -> Counter[str]:
    """Fields that the contract does not know, and how many payloads have them."""
    levels = contract.objects
    with _shown(connection, payloads):
        shapes = connection.execute(
            f"""
            select json_keys(payload, {_paths(levels)}) as keys, count(*)
            from payloads
            group by keys
            """  # noqa: S608
        ).fetchall()
    found: Counter[str] = Counter()
    known = {}
    for keys, count in shapes:
        for level, names in zip(levels, keys, strict=True):
            for name in names or ():
                path = (*level, name)
                if path not in known:
                    known[path] = contract.knows(path)
                if not known[path]:
                    found[".".join(path)] += count
    return found


def _asked(n: int, field: Field, objects: list[Path_]) -> list[str]:
    """SQL for the type of a field, as the first character of its text, and for its value."""
    if field.path in objects:
        # A structure was made of it: any other type is told by DuckDB's name.
        kind = f"object_types[{objects.index(field.path) + 1}]"
        cases = " ".join(f"when '{name}' then {ord(sign)}" for name, sign in _SIGNS.items())
        return [f"case {kind} {cases} end::utinyint as t{n}"]
    value = "given." + ".".join('"{}"'.format(key.replace('"', '""')) for key in field.path)
    # A number that 64 bits do not hold as a whole one is `#`.
    number = (
        f"ascii({value}) between {ord('-')} and {ord('9')} and (contains({value}, '.')"
        f" or contains({value}, 'e') or contains({value}, 'E') or length({value}) > 19)"
    )
    first = f"case when {number} then {ord('#')} else ascii({value}) end"
    parts = [f"least({first}, 255)::utinyint as t{n}"]
    if field.values:
        parts.append(f"json_extract_string({value}, '$') as v{n}")
    return parts


def _structure(contract: Contract, above: Path_) -> dict[str, Any]:
    """What `json_transform` is to make of an object: its described fields, as JSON texts."""
    return {
        field.path[-1]: _structure(contract, field.path)
        if field.path in contract.objects
        else "JSON"
        for field in contract.fields
        if field.path[:-1] == above
    }


def _types(first: pa.ChunkedArray) -> pd.Categorical:
    characters = first.combine_chunks().fill_null(0).to_numpy(zero_copy_only=False)
    return pd.Categorical.from_codes(_CODES[characters], list(_TYPES))


def _paths(paths: Iterator[Path_] | Sequence[Path_]) -> str:
    """A SQL list of JSON paths."""
    quoted = []
    for path in paths:
        keys = "".join('."{}"'.format(key.replace('"', '\\"')) for key in path)
        quoted.append(_text(f"${keys}"))
    return f"[{', '.join(quoted)}]::varchar[]"


def _text(value: str) -> str:
    return "'{}'".format(value.replace("'", "''"))


@contextmanager
def _shown(connection: duckdb.DuckDBPyConnection, payloads: pa.ChunkedArray) -> Iterator[None]:
    connection.register("payloads", pa.table({"payload": payloads}))
    try:
        yield
    finally:
        connection.unregister("payloads")
