"""Columns of JSON payloads: which type each field of a contract has, and the values of some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from loreline.contracts.odcs import Contract, Path_, value_column

# What is read at once, so that DuckDB's copies stay small.
PART_BYTES = 16 * 1024 * 1024
# From twice as many rows on, only every nth is searched for new fields.
SAMPLED_ROWS = 5_000

_TYPES = ("string", "integer", "number", "boolean", "array", "object")
# DuckDB's names of them. JSON's null is what is not there.
_CODES = {
    "VARCHAR": 0,
    **dict.fromkeys(("BIGINT", "UBIGINT", "HUGEINT"), 1),
    "DOUBLE": 2,
    "BOOLEAN": 3,
    "ARRAY": 4,
    "OBJECT": 5,
}
_ABSENT = -1


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
    listed = [field for field in fields if field.values]
    types = f"json_type(payload, {_paths(field.path for field in fields)})"
    values = f"json_extract_string(payload, {_paths(field.path for field in listed)})"
    given = "".join(f", given[{n}] as v{n}" for n in range(1, len(listed) + 1))
    query = (
        f"select shape{given} from"  # noqa: S608 - paths are quoted, and come from the contract
        f" (select hash({types}) as shape, {values} as given from payloads)"
    )
    parts = []
    for part in _parts(payloads):
        with _shown(connection, part):
            parts.append(connection.execute(query).to_arrow_table())
    found = pa.concat_tables(parts)
    # Rows are of few shapes, so types are read of one row of each. Shapes are told apart by 64
    # bits: that two of a thousand look alike has a chance of one in 10^13.
    _, examples, shape_of_row = np.unique(
        found["shape"].to_numpy(), return_index=True, return_inverse=True
    )
    with _shown(connection, payloads.take(pa.array(examples))):
        read = connection.execute(f"select {types} from payloads").fetchall()  # noqa: S608
    codes = np.array(
        [[_CODES.get(name, _ABSENT) for name in names] for (names,) in read], dtype=np.int8
    )
    frame: dict[str, Any] = {
        field.name: pd.Categorical.from_codes(codes[shape_of_row, n], list(_TYPES))
        for n, field in enumerate(fields)
    }
    for n, field in enumerate(listed, start=1):
        frame[value_column(field)] = found[f"v{n}"].dictionary_encode().to_pandas()
    return pd.DataFrame(frame, copy=False)


def new_fields(
    connection: duckdb.DuckDBPyConnection, contract: Contract, payloads: pa.ChunkedArray
) -> Counter[str]:
    """Fields that the contract does not know, and how many payloads have them.

    Of many payloads, some thousand spread evenly are looked at: a new field refuses nothing, and to
    read all of them again would take as long as to judge them.
    """
    levels = contract.objects
    shapes = []
    step = max(len(payloads) // SAMPLED_ROWS, 1)
    sample = payloads if step == 1 else payloads.take(pa.array(range(0, len(payloads), step)))
    for part in _parts(sample):
        with _shown(connection, part):
            shapes += connection.execute(
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


def _paths(paths: Iterator[Path_] | Sequence[Path_]) -> str:
    """A SQL list of JSON paths."""
    quoted = []
    for path in paths:
        keys = "".join('."{}"'.format(key.replace('"', '\\"')) for key in path)
        quoted.append("'${}'".format(keys.replace("'", "''")))
    return f"[{', '.join(quoted)}]::varchar[]"


def _parts(payloads: pa.ChunkedArray) -> Iterator[pa.ChunkedArray]:
    """Payloads cut into parts of about as many bytes: what DuckDB copies of them is no more."""
    ends = np.cumsum(pc.binary_length(payloads).fill_null(0).to_numpy())
    cuts = np.flatnonzero(np.diff(ends // PART_BYTES)) + 1
    for start, end in pairwise([0, *cuts.tolist(), len(payloads)]):
        yield payloads.slice(start, end - start)


@contextmanager
def _shown(connection: duckdb.DuckDBPyConnection, payloads: pa.ChunkedArray) -> Iterator[None]:
    connection.register("payloads", pa.table({"payload": payloads}))
    try:
        yield
    finally:
        connection.unregister("payloads")
