"""The Postgres table that holds the chunks of one collection: filled, changed, indexed, dropped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg.sql import SQL, Composable, Identifier, Literal

from loreline.serving.fingerprints import STORAGES
from loreline.serving.rows import (
    ATTRIBUTES,
    COLUMNS,
    Column,
    copy_cursor,
    copy_into,
    live_rows,
    stored_columns,
)

# An index is built in memory up to here; beyond, pgvector goes on more slowly on disk.
MOST_INDEX_MEMORY_MB = 1024

Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class PushResult:
    """What a push found: documents that it received, and chunks by what became of them."""

    documents: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0

    def __add__(self, other: PushResult) -> PushResult:
        return PushResult(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class ChunkTable:
    """The table of one collection, with its rows in `collections` and `lexeme_counts`.

    `load`, `swap`, `recount`, `complete` and `drop` are parts of a transaction that the caller
    opens.
    """

    connection: psycopg.Connection
    schema: str
    number: int
    vector_collection: str
    dimensions: int
    storage: str
    text_search_config: str
    report: Progress

    def load(self, tables: Iterable[pa.Table]) -> PushResult:
        """Make the table and fill it.

        COPY is fastest into a bare unlogged table; words are split on several cores by the one kind
        of statement that writes what parallel workers compute.
        """
        cursor = copy_cursor(self.connection, self.storage)
        self._run("create unlogged table {copied} ({types})")
        documents = chunks = 0
        for rows in tables:
            self._copy(cursor, self._identifier("_copied"), live_rows(rows))
            documents += pc.count_distinct(rows["doc_id"]).as_py()
            chunks += cursor.rowcount
            self.report("copied", chunks)
        self._run("set local jit = off")
        self._run("set local parallel_setup_cost = 0")
        self._run("set local parallel_tuple_cost = 0")
        self._run("set local min_parallel_table_scan_size = 0")
        self._run("create unlogged table {split} as select chunk_id, {split_text} from {copied}")
        self.report("split into words", chunks)
        self._run("create table {chunks} ({types_and_rules}, lexemes tsvector not null)")
        self._run(
            "alter table {chunks} alter embedding type {storage}({dimensions})",
            dimensions=Literal(self.dimensions),
        )
        # Scoring reads the lexemes of thousands of rows: out of line or compressed they would take
        # three times as long.
        self._run("alter table {chunks} alter lexemes set storage main")
        self._run(
            """
            insert into {chunks} ({columns}, lexemes)
            select {columns}, lexemes
            from {copied}
            inner join {split} using (chunk_id)
            """
        )
        self._run("drop table {copied}, {split}")
        self._run("alter table {chunks} add primary key (chunk_id)")
        self._run("create index on {chunks} (doc_id)")
        self.recount()
        self.report("stored", chunks)
        return PushResult(documents=documents, inserted=chunks)

    def swap(self, rows: pa.Table) -> PushResult:
        """Make the chunks of each document in `rows` those that `rows` hold.

        Equal rows are left alone, and a row whose text and vector are equal keeps its vector where
        it is.
        """
        if not rows.num_rows:
            return PushResult()
        self._run("create temp table pushed ({types}) on commit drop")
        self._copy(copy_cursor(self.connection, self.storage), Identifier("pushed"), rows)
        self._run("analyze pushed (chunk_id, doc_id)")
        self._run(_FIND_CHANGES)
        found = dict(self._run("select change, count(*) from changes group by change").fetchall())
        result = PushResult(
            documents=pc.count_distinct(rows["doc_id"]).as_py(),
            inserted=found.get("insert", 0),
            updated=found.get("update", 0) + found.get("replace", 0),
            deleted=found.get("delete", 0),
            unchanged=found.get("keep", 0),
        )
        if found.keys() - {"keep"}:
            self._run("create temp table counted (lexeme text, chunks bigint) on commit drop")
            self._run(_COUNT_LEXEMES, sign=Literal(-1))
            self._run(_DELETE)
            self._run(_UPDATE)
            self._run(_INSERT)
            self._run(_COUNT_LEXEMES, sign=Literal(1))
            self._run(_ADD_TO_LEXEME_COUNTS)
            self._run(_FORGET_LEXEMES)
            self._run(_ADD_TO_TOTALS)
        self.report("compared", rows.num_rows)
        return result

    def recount(self) -> None:
        """Count chunks and lexemes anew, whatever was counted before."""
        self._run("delete from {serving}.lexeme_counts where vector_collection = {collection}")
        self._run(
            """
            insert into {serving}.lexeme_counts (vector_collection, lexeme, chunks)
            select {collection}, word, ndoc
            from ts_stat('select lexemes from {chunks}')
            """
        )
        self._run(
            """
            update {serving}.collections
            set
                chunk_count = (select count(*) from {chunks}),
                lexeme_total = (select coalesce(sum(length(lexemes)), 0) from {chunks})
            where vector_collection = {collection}
            """
        )

    def complete(self, through_batch: int) -> None:
        """Note through which batch the table now holds everything."""
        self._run(
            """
            update {serving}.collections
            set pushed_batch = {batch}
            where vector_collection = {collection} and pushed_batch is distinct from {batch}
            """,
            batch=Literal(through_batch),
        )

    def build_indexes(self, m: int, ef_construction: int) -> None:
        """Build the indexes that are not there yet, each in a transaction of its own.

        Args:
            m: links of a node of the vector index.
            ef_construction: candidates considered for those links.
        """
        vector_index = SQL("hnsw (embedding {}) with (m = {}, ef_construction = {})")
        indexes = {
            # A list of pending entries would slow down every search until it is merged.
            "lexemes": SQL("gin (lexemes) with (fastupdate = off)"),
            "allowed_principals": SQL("gin (allowed_principals) with (fastupdate = off)"),
            "source": SQL("btree (source)"),
            "container": SQL("btree (container)"),
            "author_id": SQL("btree (author_id)"),
            "source_updated_at": SQL("btree (source_updated_at)"),
            "embedding": vector_index.format(
                SQL(f"{self.storage}_cosine_ops"), Literal(m), Literal(ef_construction)
            ),
        }
        chunks = self._run("select count(*) from {chunks}").fetchone()[0]
        memory_mb = _index_memory_mb(chunks, self.dimensions, self.storage, m)
        for column, definition in indexes.items():
            self._build_index(column, definition, memory_mb)
            self.report(f"indexed {column}", chunks)
        self._run("analyze {chunks}")

    def drop(self) -> None:
        """Drop the table, and forget what was counted in it."""
        self._run("drop table {chunks}")
        self._run("delete from {serving}.lexeme_counts where vector_collection = {collection}")
        self._run(
            """
            update {serving}.collections
            set pushed_batch = null, chunk_count = 0, lexeme_total = 0
            where vector_collection = {collection}
            """
        )

    def _copy(self, cursor: psycopg.Cursor, target: Identifier, rows: pa.Table) -> None:
        copy_into(cursor, target, rows, self.dimensions, self.storage)

    def _build_index(self, column: str, definition: Composable, memory_mb: int) -> None:
        workers = (os.cpu_count() or 1) - 1
        try:
            self._create_index(column, definition, memory_mb, workers)
        except psycopg.errors.DiskFull:
            # Parallel workers share the index in /dev/shm, which is small in many containers.
            self._create_index(column, definition, memory_mb, 0)

    def _create_index(
        self, column: str, definition: Composable, memory_mb: int, workers: int
    ) -> None:
        with self.connection.transaction():
            self._run("set local maintenance_work_mem = {mb}", mb=Literal(f"{memory_mb}MB"))
            self._run("set local max_parallel_maintenance_workers = {n}", n=Literal(workers))
            self._run(
                "create index if not exists {index} on {chunks} using {definition}",
                index=Identifier(f"chunks_{self.number}_{column}"),
                definition=definition,
            )

    def _identifier(self, suffix: str = "") -> Identifier:
        return Identifier(self.schema, f"chunks_{self.number}{suffix}")

    def _run(self, statement: str, **parts: Composable) -> psycopg.Cursor:
        """Execute a statement whose braces name parts of it."""
        serving = Identifier(self.schema)
        split_text = SQL("{}.lexemes({}, title, heading_path, text) as lexemes")
        common = {
            "serving": serving,
            "collection": Literal(self.vector_collection),
            "chunks": self._identifier(),
            "copied": self._identifier("_copied"),
            "split": self._identifier("_split"),
            "split_text": split_text.format(serving, Literal(self.text_search_config)),
            "columns": _each("{name}", COLUMNS),
            "types": _each("{name} {type}", stored_columns(self.storage)),
            "types_and_rules": _each("{name} {type} {rule}", stored_columns(self.storage)),
            "storage": SQL(self.storage),
            "send": SQL(f"{self.storage}_send"),
            "assignments": _each("{name} = pushed.{name}", ATTRIBUTES),
            "held_attributes": _each("held.{name}", ATTRIBUTES),
            "pushed_attributes": _each("pushed.{name}", ATTRIBUTES),
        }
        return self.connection.execute(SQL(statement).format(**common, **parts))


def _index_memory_mb(chunks: int, dimensions: int, storage: str, m: int) -> int:
    """What pgvector needs to build an index in memory: vectors, links, and what is around."""
    node = np.dtype(STORAGES[storage]).itemsize * dimensions + 2 * m * 16 + 256
    return min(max(64, chunks * node * 5 // 4 >> 20), MOST_INDEX_MEMORY_MB)


def _each(template: str, columns: Iterable[Column]) -> Composable:
    """`template` for each column, with commas between."""
    return SQL(", ").join(
        SQL(template).format(
            name=Identifier(column.name),
            type=SQL(column.postgres_type),
            rule=SQL("not null" if column.is_required else ""),
        )
        for column in columns
    )


_FIND_CHANGES = """
create temp table changes on commit drop as
select
    chunk_id,
    case
        when held.doc_id is null then 'insert'
        when pushed.doc_id is null then 'delete'
        when
            held.text <> pushed.text
            or {send}(held.embedding) <> {send}(pushed.embedding)
            then 'replace'
        when ({held_attributes}) is distinct from ({pushed_attributes}) then 'update'
        else 'keep'
    end as change
from (select * from {chunks} where doc_id in (select doc_id from pushed)) as held
full join (select * from pushed where chunk_id is not null) as pushed using (chunk_id)
"""

_COUNT_LEXEMES = """
insert into counted (lexeme, chunks)
select entry.lexeme, {sign} * count(*)
from {chunks}
inner join changes using (chunk_id)
cross join unnest(lexemes) as entry
where change <> 'keep'
group by entry.lexeme
"""

_DELETE = """
delete from {chunks} as held
using changes
where held.chunk_id = changes.chunk_id and change in ('delete', 'replace')
"""

_UPDATE = """
update {chunks} as held
set {assignments}, lexemes = pushed.lexemes
from (select *, {split_text} from pushed) as pushed
inner join changes using (chunk_id)
where held.chunk_id = pushed.chunk_id and change = 'update'
"""

_INSERT = """
insert into {chunks} ({columns}, lexemes)
select {columns}, {split_text}
from pushed
inner join changes using (chunk_id)
where change in ('insert', 'replace')
order by doc_id, chunk_index
"""

_ADD_TO_LEXEME_COUNTS = """
insert into {serving}.lexeme_counts as known (vector_collection, lexeme, chunks)
select {collection}, lexeme, sum(chunks)
from counted
group by lexeme
having sum(chunks) <> 0
on conflict (vector_collection, lexeme) do update set chunks = known.chunks + excluded.chunks
"""

_FORGET_LEXEMES = """
delete from {serving}.lexeme_counts as known
using counted
where known.vector_collection = {collection} and known.lexeme = counted.lexeme and known.chunks <= 0
"""

_ADD_TO_TOTALS = """
update {serving}.collections
set
    chunk_count = chunk_count
    + (select count(*) filter (where change = 'insert') from changes)
    - (select count(*) filter (where change = 'delete') from changes),
    lexeme_total = lexeme_total + (select coalesce(sum(chunks), 0) from counted)
where vector_collection = {collection}
"""
