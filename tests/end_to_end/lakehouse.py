"""A lakehouse of a test's own: landed into, built, asked and compared with another one."""

from __future__ import annotations

import dataclasses
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import psycopg
from psycopg.sql import SQL, Identifier

from loreline.cli.contents import Contents, compare
from loreline.lake import duck
from loreline.lake.catalog import load_catalog
from loreline.postgres import connect, upgrade
from loreline.serving.collections import CollectionState, states
from loreline.serving.search import PUBLIC, Hit, search
from loreline.settings import Settings
from tests.parsed import carry_parsed, copied_project
from tests.steps import Build, Command, Step

NO_TESTS = ["--exclude-resource-type", "test", "--exclude-resource-type", "unit_test"]

TINY_MODEL = "tiny-bert"
TINY_DIMENSIONS = 32
# One text at a time: a vector then does not depend on which texts it was computed together with.
TINY_MODEL_SEED = f"""\
embedding_model,model,revision,dimensions,max_tokens,normalize,batch_size,status,priority,\
model_dimensions,query_prefix,passage_prefix,storage
tiny,{TINY_MODEL},main,{TINY_DIMENSIONS},256,true,1,served,1,,,,
"""
# Another one beside it: longer vectors, not of length 1, and prompts of its own, one by default.
PROMPTED_MODEL = "prompted-bert"
PROMPTED_DIMENSIONS = 48
PROMPTS = {"query": "ask of ledgers: ", "document": "ledger says: "}
SMALL_SLICES = {
    "python_models/knowledge/chunks.py": {
        "DOCUMENTS_PER_SLICE = 2_000": "DOCUMENTS_PER_SLICE = 30"
    },
    "python_models/embedding/text_embeddings.py": {
        "TEXTS_PER_SLICE = 2_048": "TEXTS_PER_SLICE = 50",
        "SECONDS_PER_COMMIT = 30": "SECONDS_PER_COMMIT = 0",
    },
}

# When something was done, and the numbers that commits were given: they differ from run to run.
NEVER_THE_SAME = {
    "built_at",
    "clustered_at",
    "clustered_batch",
    "embedded_at",
    "happened_at",
    "landed_at",
    "pushed_batch",
    "raw_batch",
}

# What was so only in between depends on when one looked: it stays, marked.
_NOT_SUPERSEDED = "superseded_by is null"
STILL_SO = {
    "evaluation.trajectory_units": _NOT_SUPERSEDED,
    "evaluation.trajectory_features": _NOT_SUPERSEDED,
    "evaluation.cluster_category_labels": (
        "not is_withdrawn and subject_id in (select trajectory_id"
        f" from {{lake}}evaluation.trajectory_units where {_NOT_SUPERSEDED})"
    ),
    "evaluation.candidate_preference_pairs": "is_wanted",
    # What a line said that had not come to its end.
    "knowledge.log_windows": "not is_deleted",
    "knowledge.log_templates": "not is_deleted",
    "knowledge.log_bursts": "not is_deleted",
    "knowledge.log_documents": "not is_deleted",
    "knowledge.log_unread_lines": "not is_deleted",
    "knowledge.incident_timeline": "not is_deleted",
}

Rows = list[tuple[Any, ...]]
State = dict[str, Rows]


@dataclass(frozen=True)
class Lakehouse:
    """Stores, a copy of the project, and what one does with them.

    Attributes:
        settings: of namespaces and schemas that nothing else uses.
        project: the copy of the dbt project, which a test may change.
        in_small_slices: whether loads, models and pushes are cut as if there were far more rows.
    """

    settings: Settings
    project: Path
    in_small_slices: bool = False

    def start(self, step: str, **arguments: Any) -> Step:
        """Begin one of the functions of `steps`."""
        others = {k: v for k, v in os.environ.items() if not k.startswith("LORELINE_")}
        environment = others | self.settings.environment()
        return Step(step, environment, in_small_slices=self.in_small_slices, **arguments)

    def start_build(self, *arguments: str, from_node: str | None = None) -> Step:
        """Begin `dbt` with these arguments; without any, what changed is built and nothing tested.

        `--changed` as the first argument builds what changed of what the others select.

        The step counts as started when the first node begins, or `from_node`.
        """
        arguments = arguments or ("--changed", *NO_TESTS, "--exclude", "tag:manual+")
        return self.start(
            "build",
            project=self.project,
            arguments=list(arguments),
            encode_alone=bool(self.settings.model_path),
            from_node=from_node,
        )

    def land(self, source: str, location: Path, **options: Any) -> Any:
        """Land a source; gives the summary of the load."""
        return self.start("land", source=source, location=location, **options).result()

    def land_events(self, events: Iterable[Any]) -> None:
        """Land gateway events, from a file of their own."""
        file = self.settings.home / "events" / f"{uuid.uuid4().hex}.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(json.dumps(event) + "\n" for event in events))
        self.land("gateway", file)

    def build(self, *arguments: str) -> Build:
        """Run dbt to its end, and make sure that nothing failed."""
        done = self.start_build(*arguments).result()
        assert not done.faults, done.faults
        return done

    def command(self, *arguments: str) -> Command:
        """Run a `loreline` command."""
        return self.start("command", arguments=list(arguments)).result()

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Vectors of texts by the default model."""
        return self.start("encode", texts=texts).result()

    def contents(self) -> list[Contents]:
        """What `loreline contents` compares."""
        return compare(self.settings)

    def check_contents(self) -> None:
        """Make sure that something is served, and that it is just what should be."""
        found = self.contents()
        assert sum(collection.actual for collection in found), "nothing is served"
        assert not [collection for collection in found if collection.has_drifted], found

    def search(
        self,
        text: str | None,
        *principals: str,
        embedding: np.ndarray | None = None,
        k: int = 1000,
        collection: str | None = None,
    ) -> list[Hit]:
        """Search as somebody: the public when nobody is named."""
        with connect(self.settings) as connection:
            asker = principals or PUBLIC
            return search(
                connection, self.settings, text, embedding, asker, k, collection=collection
            )

    def found(self, text: str, *principals: str) -> set[str]:
        """The documents that any collection finds for some words."""
        return {
            hit.doc_id
            for collection in self.collections()
            for hit in self.search(text, *principals, collection=collection.vector_collection)
        }

    def collections(self, status: str = "served") -> list[CollectionState]:
        """The collections of this status in Postgres."""
        with connect(self.settings) as connection:
            return [state for state in states(connection, self.settings) if state.status == status]

    @contextmanager
    def lake(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """DuckDB with the stores attached to read."""
        with duck.connect(self.settings) as connection:
            yield connection

    def query(self, statement: str, *parameters: Any) -> Rows:
        """Ask the lake; `{lake}` and `{pg}` stand before the names of schemas."""
        with self.lake() as connection:
            return connection.execute(self.with_names(statement), parameters).fetchall()

    def with_names(self, statement: str) -> str:
        """A statement with the schemas' full names."""
        prefix = self.settings.prefix
        return statement.replace("{lake}", f"lake.{prefix}").replace("{pg}", f"pg.{prefix}")

    def execute(self, statement: str, *parameters: Any) -> Rows:
        """Execute a statement in Postgres; `{serving}` and the like stand for schemas."""
        schemas = ("serving", "lineage", "review", "operations")
        names = {name: Identifier(self.settings.prefix + name) for name in schemas}
        with connect(self.settings, autocommit=True) as connection:
            cursor = connection.execute(SQL(statement).format(**names), parameters)
            return cursor.fetchall() if cursor.description else []

    def tables(self) -> list[str]:
        """The tables of the lake as `schema.table`, without what stands before them."""
        catalog, prefix = load_catalog(self.settings), self.settings.prefix
        return sorted(
            f"{namespace[0].removeprefix(prefix)}.{table[1]}"
            for namespace in catalog.list_namespaces()
            if namespace[0].startswith(prefix)
            for table in catalog.list_tables(namespace)
        )

    def snapshots(self) -> dict[str, list[int]]:
        """The snapshots of every table, oldest first."""
        catalog = load_catalog(self.settings)
        return {
            name: [
                snapshot.snapshot_id
                for snapshot in catalog.load_table(self.settings.prefix + name).snapshots()
            ]
            for name in self.tables()
        }

    def state(self) -> State:
        """All that is held, by table, in an order of its own; not when and by whom it was done."""
        held = {}
        with self.lake() as connection:
            for name in self.tables():
                table = f"lake.{self.settings.prefix}{name}"
                described = connection.execute(f"describe {table}").fetchall()
                columns = [row[0] for row in described if row[0] not in NEVER_THE_SAME]
                listed = ", ".join(name for name in columns if not name.startswith("_"))
                current = self.with_names(STILL_SO.get(name, "true"))
                held[name] = connection.execute(
                    f"select {listed} from {table} where {current} order by all"
                ).fetchall()
        return held | self._served() | self._operations()

    def _served(self) -> State:
        held = {
            "pg.collections": self.execute(
                "select vector_collection, config_hash, dimensions, status, is_default,"
                " chunk_count, lexeme_total from {serving}.collections order by 1"
            ),
            "pg.lexeme_counts": self.execute(
                "select vector_collection, lexeme, chunks from {serving}.lexeme_counts"
                " order by 1, 2"
            ),
        }
        for collection in self.collections():
            held[f"pg.{collection.vector_collection}"] = self.execute(
                f"select * from {{serving}}.chunks_{collection.table_number} order by chunk_id"
            )
        return held

    def _operations(self) -> State:
        return {
            "pg.quarantine": self.execute(
                "select fingerprint, reason, origin from {operations}.quarantine order by 1"
            ),
            "pg.source_freshness": self.execute(
                "select source, resource, last_source_update, rows, tombstones"
                " from {operations}.source_freshness order by 1, 2"
            ),
        }


def differences(state: State, expected: State) -> str:
    """In words, where a state is not what it should be; empty where it is."""
    return "\n".join(
        f"{table}: {_difference(state.get(table, []), expected.get(table, []))}"
        for table in sorted({*state, *expected})
        if state.get(table, []) != expected.get(table, [])
    )


def _difference(rows: Rows, wanted: Rows) -> str:
    extra = [row for row in rows if row not in wanted]
    missing = [row for row in wanted if row not in rows]
    counts = f"{len(rows)} rows, not {len(wanted)}; {len(extra)} extra, {len(missing)} missing"
    if not extra or not missing:
        return f"{counts}, such as {(extra or missing)[0]}"
    one = extra[0]
    other = max(missing, key=lambda row: sum(a == b for a, b in zip(one, row, strict=True)))
    values = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
    return f"{counts}, such as {one[0]}, which holds (first) and should hold (second): {values}"


@contextmanager
def temporary_lakehouse(
    stack: Settings, folder: Path, *, tiny_model: Path | None = None, in_small_slices: bool = False
) -> Iterator[Lakehouse]:
    """A lakehouse with nothing in it, which is removed afterwards.

    Args:
        stack: the stores.
        folder: for its files.
        tiny_model: a folder of models with the one that is used instead of the default model.
        in_small_slices: cut loads, models and pushes as if there were far more rows.
    """
    settings = dataclasses.replace(
        stack,
        target="ci",
        namespace_suffix=f"e{uuid.uuid4().hex[:10]}",
        state_folder=str(folder / "state"),
        model_path=str(tiny_model or ""),
    )
    settings.home.mkdir(parents=True)
    project = copied_project(folder / "project")
    carry_parsed(stack, settings, project, project / "target")
    if tiny_model:
        write_models(project, TINY_MODEL_SEED)
        replace_in(project / "seeds" / "clustering_configurations.csv", "all-minilm-l6-v2", "tiny")
    for file, changes in SMALL_SLICES.items() if in_small_slices else ():
        for old, new in changes.items():
            replace_in(project / file, old, new)
    upgrade(settings)
    try:
        yield Lakehouse(settings, project, in_small_slices)
    finally:
        _remove(settings)


def write_models(project: Path, *rows: str) -> None:
    """Write the seed of embedding models of a project; the first text has its header."""
    (project / "seeds" / "embedding_models.csv").write_text("".join(rows))


def replace_in(file: Path, old: str, new: str) -> None:
    """Replace the one place of a file that holds a text."""
    text = file.read_text()
    assert text.count(old) == 1, f"{file} holds {old!r} {text.count(old)} times"
    file.write_text(text.replace(old, new))


def _remove(settings: Settings) -> None:
    with connect(settings, autocommit=True) as connection:
        _drop_schemas(connection, settings)
    catalog = load_catalog(settings)
    for namespace in catalog.list_namespaces():
        if namespace[0].startswith(settings.prefix):
            for table in catalog.list_tables(namespace):
                catalog.drop_table(table)
            catalog.drop_namespace(namespace)


def _drop_schemas(connection: psycopg.Connection, settings: Settings) -> None:
    for name in ("serving", "lineage", "review", "operations"):
        schema = Identifier(settings.prefix + name)
        connection.execute(SQL("drop schema if exists {} cascade").format(schema))


def vectors(lakehouse: Lakehouse, documents: str = "%") -> list[np.ndarray]:
    """The stored vectors of all chunks of the documents whose ids are like this."""
    rows = lakehouse.query(
        "select text_hash, any_value(embedding) from {lake}embedding.text_embeddings"
        " where text_hash in (select text_hash from {lake}knowledge.chunks where doc_id like $1)"
        " group by text_hash order by text_hash",
        documents,
    )
    return [np.array(embedding, np.float32) for _, embedding in rows]
