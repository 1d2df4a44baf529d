"""Columns of JSON payloads: which type each field of a contract has, and the values of some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from loreline.contracts.odcs import Contract, Path_, value_column

# DuckDB's names of JSON types, in the order of the enumeration that codes refer to …
_DUCKDB_TYPES = ("VARCHAR", "BIGINT", "UBIGINT", "HUGEINT", "DOUBLE", "BOOLEAN", "ARRAY", "OBJECT")
# … and what they are called in contracts. JSON's null is what is not there.
_NAMES = ("string", "integer", "number", "boolean", "array", "object")
_CODES = np.array([0, 1, 1, 1, 2, 3, 4, 5], dtype=np.int8)


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
    listed = [field for field in fields if field.values]
    if not fields:
        return pd.DataFrame(index=range(len(payloads)))
    kinds = ", ".join(f"'{name}'" for name in _DUCKDB_TYPES)
    types = ", ".join(
        f"nullif(types[{n}], 'NULL')::enum({kinds}) as t{n}" for n in range(1, len(fields) + 1)
    )
    values = "".join(f", given[{n}] as v{n}" for n in range(1, len(listed) + 1))
    texts = f", json_extract_string(payload, {_paths(f.path for f in listed)}) as given"
    with _shown(connection, payloads):
        found = connection.execute(
            f"""
            select {types}{values}
            from (
                select json_type(payload, {_paths(f.path for f in fields)}) as types
                {texts if listed else ""}
                from payloads
            )
            """  # noqa: S608 - paths are quoted, and come from the contract
        ).to_arrow_table()
    frame = {field.name: _types(found.column(n)) for n, field in enumerate(fields)} | {
        value_column(field): found.column(len(fields) + n).dictionary_encode().to_pandas()
        for n, field in enumerate(listed)
    }
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


def _types(codes: pa.ChunkedArray) -> pd.Categorical:
    indices = codes.combine_chunks()
    indices = indices.chunk(0) if isinstance(indices, pa.ChunkedArray) else indices
    given = indices.indices.fill_null(0).to_numpy(zero_copy_only=False)
    named = _CODES[given]
    if indices.null_count:
        named[indices.is_null().to_numpy(zero_copy_only=False)] = -1
    return pd.Categorical.from_codes(named, list(_NAMES))


def _paths(paths: Iterator[Path_] | Sequence[Path_]) -> str:
    """A SQL list of JSON paths."""
    quoted = []
    for path in paths:
        keys = "".join('."{}"'.format(key.replace('"', '\\"')) for key in path)
        quoted.append("'${}'".format(keys.replace("'", "''")))
    return f"[{', '.join(quoted)}]"


@contextmanager
def _shown(connection: duckdb.DuckDBPyConnection, payloads: pa.ChunkedArray) -> Iterator[None]:
    connection.register("payloads", pa.table({"payload": payloads}))
    try:
        yield
    finally:
        connection.unregister("payloads")
