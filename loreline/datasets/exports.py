"""The files of a frozen dataset: Parquet and JSON Lines, the same bytes at every writing.

Rows are ordered by `example_id`; one file per split, and in unlearning one per side and split, so
that no table holds both sides. The content hash is the SHA-256 of all lines of the JSON files, in
the order of the files: it does not depend on the version of any library.
"""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from loreline.datasets.condition import TABLE
from loreline.datasets.messages import MESSAGE_COLUMNS, Shape, parsed
from loreline.errors import LorelineError

KEY, SPLIT, SIDE = "example_id", "split", "partition"
SPLITS = ("train", "validation", "test")
FILE_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")
ROWS_PER_GROUP = 10_000
COMPRESSION, COMPRESSION_LEVEL, PARQUET_VERSION = "zstd", 3, "2.6"
FETCHED_ROWS = 2_048


@dataclass(frozen=True)
class ExportedFile:
    """One file.

    Attributes:
        path: within the dataset's folder.
        sha256: of its bytes.
        size: in bytes.
        rows: that it holds.
        split: of these rows; empty for what holds no rows.
        side: `forget` or `retain`; empty where the dataset has no sides.
    """

    path: str
    sha256: str
    size: int
    rows: int = 0
    split: str = ""
    side: str = ""


@dataclass(frozen=True)
class Exports:
    """What was written: files, and the hash and number of the rows in them."""

    files: tuple[ExportedFile, ...]
    content_sha256: str
    row_count: int
    columns: tuple[tuple[str, str], ...]


def writer_settings() -> dict[str, Any]:
    """How files are written: what their bytes depend on."""
    return {
        "order": [SIDE, SPLIT, KEY],
        "parquet": {
            "compression": COMPRESSION,
            "compression_level": COMPRESSION_LEVEL,
            "row_group_rows": ROWS_PER_GROUP,
            "version": PARQUET_VERSION,
        },
        "message_columns": list(MESSAGE_COLUMNS),
        "libraries": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("duckdb", "orjson", "pyarrow")},
        },
    }


@dataclass(frozen=True)
class Source:
    """Rows of a dataset at a snapshot.

    Attributes:
        connection: DuckDB with the lake attached.
        table: `namespace.table`.
        snapshot_id: of the table.
        where: a checked condition; empty for all rows.
    """

    connection: duckdb.DuckDBPyConnection
    table: str
    snapshot_id: int
    where: str = ""

    def columns(self) -> dict[str, str]:
        """Names and DuckDB types, the bookkeeping left out."""
        rows = self.connection.execute(f"describe select * from {self.relation()}").fetchall()
        return {name: kind for name, kind, *_ in rows if not name.startswith("_")}

    def relation(self) -> str:
        """What to write behind `from`."""
        schema, name = self.table.split(".")
        return f'lake."{schema}"."{name}" as {TABLE} at (version => {self.snapshot_id})'

    def rows(
        self,
        columns: Sequence[str],
        condition: str = "true",
        parameters: Sequence[Any] = (),
        *,
        group_by: str = "",
        order_by: str = "",
    ) -> duckdb.DuckDBPyConnection:
        """Ask for columns, or counts, of the rows that also meet another condition."""
        chosen = f"(\n{self.where or 'true'}\n) and ({condition})"
        end = f" group by {group_by}" if group_by else ""
        end += f" order by {order_by}" if order_by else ""
        statement = f"select {', '.join(columns)} from {self.relation()} where {chosen}{end}"
        return self.connection.execute(statement, list(parameters))


def write(
    source: Source, folder: Path, progress: Callable[[str], None] = lambda _: None
) -> Exports:
    """Write the files of a dataset into a folder.

    Raises:
        LorelineError: the rows are no dataset: no key, a key twice, no split, or no row at all.
    """
    columns = source.columns()
    _check(source, columns)
    shapes = {
        name: shape
        for name in MESSAGE_COLUMNS
        if columns.get(name) == "VARCHAR" and (shape := _shape(source, name))
    }
    content = hashlib.sha256()
    files: list[ExportedFile] = []
    schema: pa.Schema | None = None
    for side, split in _parts(source, columns):
        stem = f"{side}-{split}" if side else split
        progress(stem)
        part = _Part(source, columns, shapes, side, split)
        schema = part.schema
        files += part.write(folder, stem, content)
    assert schema is not None
    described = tuple((field.name, str(field.type)) for field in schema)
    rows = sum(file.rows for file in files if file.path.endswith(".parquet"))
    return Exports(tuple(files), content.hexdigest(), rows, described)


def described(
    path: Path, folder: Path, rows: int = 0, split: str = "", side: str = ""
) -> ExportedFile:
    """What is kept of a written file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    name = path.relative_to(folder).as_posix()
    return ExportedFile(name, digest, path.stat().st_size, rows, split, side)


def as_json(files: Sequence[ExportedFile]) -> list[dict[str, Any]]:
    """The files as the registry keeps them."""
    return [asdict(file) for file in files]


class _Part:
    """The rows of one split, of one side where there are sides."""

    def __init__(
        self,
        source: Source,
        columns: dict[str, str],
        shapes: dict[str, Shape],
        side: str,
        split: str,
    ) -> None:
        self.shapes, self.side, self.split = shapes, side, split
        condition, parameters = f"{SPLIT} = ?", [split]
        if side:
            condition, parameters = f"{condition} and {SIDE} = ?", [split, side]
        named = [_name(column) for column in columns]
        found = source.rows(named, condition, parameters, order_by=KEY)
        self.reader = found.to_arrow_reader(FETCHED_ROWS)
        self.schema = pa.schema(
            [
                pa.field(f.name, shapes[f.name].arrow_type() if f.name in shapes else f.type)
                for f in self.reader.schema
            ]
        )

    def write(self, folder: Path, stem: str, content: Any) -> Iterator[ExportedFile]:
        tabular, lines = folder / "parquet" / f"{stem}.parquet", folder / "jsonl" / f"{stem}.jsonl"
        for path in (tabular, lines):
            path.parent.mkdir(parents=True, exist_ok=True)
        rows = 0
        with (
            pq.ParquetWriter(
                tabular,
                self.schema,
                version=PARQUET_VERSION,
                compression=COMPRESSION,
                compression_level=COMPRESSION_LEVEL,
            ) as parquet,
            lines.open("wb") as text,
        ):
            for group in _groups(self._records()):
                parquet.write_table(pa.Table.from_pylist(group, self.schema), ROWS_PER_GROUP)
                for record in group:
                    line = orjson.dumps(record, default=str) + b"\n"
                    text.write(line)
                    content.update(line)
                rows += len(group)
        for path in (tabular, lines):
            yield described(path, folder, rows, self.split, self.side)

    def _records(self) -> Iterator[dict[str, Any]]:
        for batch in self.reader:
            for record in batch.to_pylist():
                for name in self.shapes:
                    record[name] = parsed(record[name])
                yield record


def _groups(records: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    for record in records:
        group.append(record)
        if len(group) == ROWS_PER_GROUP:
            yield group
            group = []
    if group:
        yield group


def _check(source: Source, columns: dict[str, str]) -> None:
    if missing := [name for name in (KEY, SPLIT) if name not in columns]:
        raise LorelineError(
            f"{source.table} has no column {missing[0]}, so it is no dataset",
            "freeze a model that gives example_id and split",
        )
    row = source.rows([f"count(*), count({KEY}), count({SPLIT}), count(distinct {KEY})"]).fetchone()
    assert row is not None
    total, keys, splits, distinct = row
    if not total:
        raise LorelineError("no row is left to freeze", "check --where, or build the dataset")
    if keys < total or splits < total:
        raise LorelineError(
            f"{total - min(keys, splits)} rows have no {KEY} or no {SPLIT}",
            "correct the model and build the dataset again",
        )
    if distinct < total:
        raise LorelineError(
            f"{total - distinct} rows repeat the {KEY} of another",
            "make the model's example_id unique and build the dataset again",
        )


def _parts(source: Source, columns: dict[str, str]) -> list[tuple[str, str]]:
    """(side, split) in the order of the files; the side is empty where there is none."""
    has_sides = SIDE in columns
    side = SIDE if has_sides else "''"
    found = source.rows([f"distinct {side}, {SPLIT}"]).fetchall()
    for side, split in found:
        names = [side, split] if has_sides else [split]
        if bad := [name for name in names if not FILE_NAME.fullmatch(name or "")]:
            raise LorelineError(
                f"{bad[0]!r} cannot be the name of a split's file",
                "use lower-case letters, digits and underscores in split and partition",
            )
    return sorted(found, key=lambda part: (part[0], split_order(part[1])))


def split_order(split: str) -> tuple[int, str]:
    """By which splits are sorted: the usual ones first."""
    return (SPLITS.index(split) if split in SPLITS else len(SPLITS), split)


def _shape(source: Source, column: str) -> Shape | None:
    """The shape of a column's messages; None where it holds plain text.

    What most rows hold decides: somebody may have typed a text that looks like a list of messages.

    Raises:
        LorelineError: most of its rows hold messages, and others do not.
    """
    shape, found, others = Shape(set(), set()), 0, []
    reader = source.rows([KEY, _name(column)], f"{_name(column)} is not null")
    for batch in reader.to_arrow_reader(FETCHED_ROWS):
        for key, text in zip(batch[0].to_pylist(), batch[1].to_pylist(), strict=True):
            messages = parsed(text)
            if messages is None:
                others.append(key)
            else:
                found += 1
                shape.widen(messages)
    if found <= len(others):
        return None
    if others:
        raise LorelineError(
            f"{column} of example {others[0]} is no list of messages, though that of others is",
            "correct the model and build the dataset again",
        )
    return shape


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'
