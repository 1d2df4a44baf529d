"""The commands that ask, against real stores that hold a few documents."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from psycopg.sql import SQL, Identifier

from loreline.cli import main, sample
from loreline.lake import duck
from loreline.lake.commits import Writer, append, locked
from loreline.postgres import connect
from loreline.serving.collections import CHUNK_SCHEMA, Collection, push, states
from loreline.serving.fingerprints import fingerprint, vector_sha256
from loreline.settings import Settings

WRITER = Writer("run-1", "knowledge.documents", "0.1.0+abc")
COLLECTION = Collection("tiny__whole__1", "tiny", "whole", "1", dimensions=3, is_default=True)
UPDATED_AT = datetime(2026, 10, 1)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(settings: Settings, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call `loreline …`; gives exit code, output and error output."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        return code, *capsys.readouterr()

    return call


@dataclass(frozen=True)
class Page:
    """A document of one chunk, whose vector points where its first letter says."""

    text: str
    principals: tuple[str, ...] = ("public",)
    source: str = "notion"

    @property
    def vector(self) -> np.ndarray:
        return embedding_of(self.text)


def embedding_of(text: str) -> np.ndarray:
    return np.eye(3, dtype=np.float32)["abc".index(text[0])]


@pytest.fixture
def publish(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Mapping[str, Page]], None]:
    """Write what the lake holds once these documents are built, and push it to Postgres."""
    monkeypatch.setattr("loreline.cli.search.embed", lambda text, *_: embedding_of(text))
    published: set[str] = set()

    def write(pages: Mapping[str, Page]) -> None:
        for name, rows in _tables(pages).items():
            with locked(settings, f"{settings.prefix}{name}") as table:
                table.overwrite(pa.Table.from_pylist(rows), WRITER)
        chunks = {chunk["doc_id"]: chunk for chunk in map(_chunk, pages.items())}
        gone = {doc_id: {"doc_id": doc_id} for doc_id in published - set(chunks)}
        published.update(chunks)
        rows = [row for _, row in sorted((chunks | gone).items())]
        batch = pa.Table.from_pylist(rows, schema=CHUNK_SCHEMA)
        with connect(settings, autocommit=True) as connection:
            known = [state.pushed_batch or 0 for state in states(connection, settings)]
            through = max(known, default=0) + 1
            push(connection, settings, COLLECTION, batch.to_batches(), through_batch=through)

    return write


def _tables(pages: Mapping[str, Page]) -> dict[str, list[dict[str, Any]]]:
    chunks = [_chunk(item) for item in pages.items()]
    return {
        "knowledge.people": [
            {
                "source": "slack",
                "external_id": "U1",
                "principal": "slack:U1",
                "name": "Ada Lowe",
                "email": "ada@example.com",
                "handle": "ada",
                "is_deleted": False,
            }
        ],
        "knowledge.chunks": [
            {
                key: chunk[key]
                for key in (
                    "chunk_id",
                    "chunk_index",
                    "text",
                    "heading_path",
                    "start_char",
                    "end_char",
                )
            }
            for chunk in chunks
        ],
        "knowledge.documents_current": [
            {
                key: chunk[key]
                for key in (
                    "doc_id",
                    "title",
                    "url",
                    "source",
                    "container",
                    "author_id",
                    "source_updated_at",
                )
            }
            for chunk in chunks
        ],
        "embedding.text_embeddings": [
            {"text_hash": c["text_hash"], "config_hash": "e", "embedding": c["embedding"]}
            for c in chunks
        ],
        "embedding.embedding_configurations": [{"embedding_model": "tiny", "config_hash": "e"}],
        "serving.served_collections": [
            {
                "vector_collection": COLLECTION.vector_collection,
                "embedding_config_hash": "e",
                "is_default": True,
            }
        ],
        "serving.vector_manifest": [
            {
                "vector_collection": COLLECTION.vector_collection,
                "chunk_id": chunk["chunk_id"],
                "doc_id": chunk["doc_id"],
                "document_version_id": chunk["document_version_id"],
                "text_hash": chunk["text_hash"],
                "vector_sha256": vector_sha256(embedding_of(chunk["text"])),
                "fingerprint": fingerprint(
                    chunk["text"], embedding_of(chunk["text"]), chunk["allowed_principals"]
                ),
                "allowed_principals": chunk["allowed_principals"],
                "is_deleted": False,
            }
            for chunk in chunks
        ],
    }


def _chunk(item: tuple[str, Page]) -> dict[str, Any]:
    name, page = item
    text_hash = hashlib.sha256(page.text.encode()).hexdigest()
    return {
        "chunk_id": f"{name}:{text_hash[:8]}",
        "doc_id": f"{page.source}:{name}",
        "document_version_id": text_hash,
        "chunk_index": 0,
        "text_hash": text_hash,
        "title": f"Page {name}",
        "url": f"https://example.com/{name}",
        "heading_path": ["Top"],
        "start_char": 1,
        "end_char": len(page.text),
        "source": page.source,
        "container": "general",
        "author_id": "U1",
        "created_at": UPDATED_AT,
        "source_updated_at": UPDATED_AT,
        "allowed_principals": list(page.principals),
        "text": page.text,
        "embedding": page.vector.tolist(),
    }


PAGES = {
    "one": Page("a first thought"),
    "two": Page("b secret plan", ("slack:U1",), source="slack"),
    "three": Page("c third"),
}


def test_sql_gives_a_list_of_row_objects(run: Run, settings: Settings) -> None:
    rows = pa.table({"doc_id": ["x"], "seen_at": [UPDATED_AT], "tags": [["a", "b"]]})
    append(settings, f"{settings.prefix}knowledge.documents", rows, writer=WRITER)
    code, out, _ = run(
        "sql",
        "--json",
        f"select doc_id, seen_at, tags from lake.{settings.prefix}knowledge.documents",
    )
    assert code == 0
    assert json.loads(out) == [
        {"doc_id": "x", "seen_at": "2026-10-01T00:00:00", "tags": ["a", "b"]}
    ]
    code, out, _ = run(
        "sql", "--json", f"select model, rows from pg.{settings.prefix}operations.commits"
    )
    assert json.loads(out) == [{"model": "knowledge.documents", "rows": 1}]


@pytest.mark.parametrize(
    "statement",
    [
        "create table lake.{prefix}knowledge.x as select 1 as a",
        "delete from lake.{prefix}knowledge.documents",
        "delete from pg.{prefix}operations.commits",
        "call postgres_execute('pg', 'delete from {prefix}operations.commits')",
    ],
)
def test_sql_changes_nothing(run: Run, settings: Settings, statement: str) -> None:
    name = f"{settings.prefix}knowledge.documents"
    append(settings, name, pa.table({"doc_id": ["x"]}), writer=WRITER)
    code, out, error = run("sql", statement.format(prefix=settings.prefix))
    assert (code, out) == (1, "")
    assert "read-only" in error
    assert error.count("\n") == 1
    counts = f"(select count(*) from pg.{settings.prefix}operations.commits)"
    _, out, _ = run("sql", "--json", f"select count(*) as n, {counts} as commits from lake.{name}")
    assert json.loads(out) == [{"n": 1, "commits": 1}]


def test_sql_reads_statements_from_a_pipe(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("create temp table t as select 41 as n;\nfrom t;"))
    code, out, _ = run("sql", "--json")
    assert code == 0
    assert json.loads(out) == [{"n": 41}]


def test_sql_lists_tables_and_their_columns(run: Run, settings: Settings) -> None:
    append(
        settings, f"{settings.prefix}knowledge.pages", pa.table({"doc_id": ["x"]}), writer=WRITER
    )
    _, out, _ = run("sql", ".tables", "--json")
    names = {row["name"] for row in json.loads(out)}
    assert f"lake.{settings.prefix}knowledge.pages" in names
    assert f"pg.{settings.prefix}operations.commits" in names
    _, out, _ = run("sql", f".schema {settings.prefix}knowledge.pages", "--json")
    assert [row["column_name"] for row in json.loads(out)][:1] == ["doc_id"]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("selec 1", "Parser Error"),
        ("from nowhere", "Catalog Error"),
        ("select 1/", "Parser Error"),
        (".schema nowhere", "there is no table nowhere"),
        (".drop", "no command .drop"),
    ],
)
def test_a_refused_statement_is_one_line(run: Run, statement: str, said: str) -> None:
    code, out, error = run("sql", statement)
    assert (code, out) == (1, "")
    assert said in error
    assert error.count("\n") == 1


def test_history_is_newest_first_and_names_who_made_it(run: Run, settings: Settings) -> None:
    name = f"{settings.prefix}knowledge.pages"
    raw = f"{settings.prefix}raw_notion.pages"
    append(settings, raw, pa.table({"n": [1]}), writer=WRITER)
    for number in (1, 2):
        rows = pa.table({"n": list(range(number))})
        append(settings, name, rows, writer=Writer(f"run-{number}", "pages", "0.1.0+abc"))
    for asked in ("pages", "knowledge.pages", name, f"lake.{name}"):
        code, out, _ = run("history", asked, "--json")
        assert code == 0
        newest, oldest = json.loads(out)
        assert [newest[key] for key in ("rows_added", "rows_deleted", "rows_total")] == [2, 0, 3]
        assert newest["committed_at"] >= oldest["committed_at"]
        assert newest["invocation_id"] == "run-2"
        assert oldest["model"] == "pages"
        assert oldest["code_version"] == "0.1.0+abc"
        assert oldest["operation"] == "append"
    _, out, _ = run("history", "pages")
    assert str(newest["snapshot_id"]) in out


def test_history_of_a_name_that_is_not_one_table(run: Run, settings: Settings) -> None:
    for namespace in ("knowledge", "staging"):
        name = f"{settings.prefix}{namespace}.pages"
        append(settings, name, pa.table({"n": [1]}), writer=WRITER)
    code, _, error = run("history", "pages")
    assert code == 1
    assert f"{settings.prefix}knowledge.pages, {settings.prefix}staging.pages: say which" in error
    code, _, error = run("history", "nowhere")
    assert code == 1
    assert "there is no table nowhere" in error


def test_contents_agree_until_somebody_changes_a_row(
    run: Run, settings: Settings, publish: Callable[..., None]
) -> None:
    publish(PAGES)
    code, out, _ = run("contents", "--json")
    assert code == 0
    clean = {"expected": 3, "actual": 3, "missing": 0, "extra": 0, "different": 0}
    named = {"name": COLLECTION.vector_collection, "kind": "collection", "is_default": True}
    assert json.loads(out) == [{**named, **clean}]
    with connect(settings, autocommit=True) as connection:
        serving = f"{settings.prefix}serving"
        number = states(connection, settings)[0].table_number
        chunks = Identifier(serving, f"chunks_{number}")
        connection.execute(
            SQL("update {} set text = 'a lie' where doc_id = 'notion:one'").format(chunks)
        )
        connection.execute(SQL("delete from {} where doc_id = 'slack:two'").format(chunks))
    code, out, _ = run("contents", "--json")
    assert code == 1
    drift = {"expected": 3, "actual": 2, "missing": 1, "extra": 0, "different": 1}
    assert json.loads(out) == [{**named, **drift}]
    code, out, _ = run("contents")
    assert code == 1
    assert "1 missing, 1 different" in out


def test_before_the_first_build_it_is_said_what_to_do(run: Run) -> None:
    for arguments in (["contents"], ["search", "a"], ["search", "a", "--as-of", "2026-10-01"]):
        code, _, error = run(*arguments)
        assert code == 1
        assert "run `loreline build`" in error


def test_search_finds_what_the_asker_may_read(run: Run, publish: Callable[..., None]) -> None:
    publish(PAGES)
    assert _found(run("search", "b secret", "--json")) == {"notion:one", "notion:three"}
    for who in ("ada@example.com", "@ada", "Ada Lowe", "slack:U1"):
        code, out, _ = run("search", "b secret", "--as", who, "--json", "--explain", "-k", "1")
        assert code == 0
        (hit,) = json.loads(out)["hits"]
        assert hit["doc_id"] == "slack:two"
        assert hit["visible_to"] == ["slack:U1"]
    code, _, error = run("search", "b", "--as", "nobody")
    assert code == 1
    assert "nobody is called nobody" in error
    assert _found(run("search", "b", "--json", "--source", "slack")) == set()
    assert _found(run("search", "b", "--json", "--since", "2026-10-02")) == set()
    assert len(_found(run("search", "b", "--json", "--author", "ada"))) == 2


def test_search_as_of_a_time_answers_as_it_was_then(run: Run, publish: Callable[..., None]) -> None:
    before = _now()
    publish(PAGES)
    between = _now()
    publish(
        {
            "one": Page("a second thought"),
            "two": Page("b secret plan", ("slack:U2",), source="slack"),
        }
    )
    member = ("--as", "ada", "--json", "--explain")
    assert _texts(run("search", "b", *member)) == {"a second thought"}
    then = run("search", "b", *member, "--as-of", between)
    assert _texts(then) == {"a first thought", "b secret plan", "c third"}
    best = json.loads(then[1])["hits"][0]
    assert (best["text"], best["dense_rank"], best["lexical_rank"]) == ("b secret plan", 1, None)
    assert best["score"] == pytest.approx(1)
    assert best["visible_to"] == ["slack:U1"]
    assert _texts(run("search", "b", "--json", "--as-of", between)) == {
        "a first thought",
        "c third",
    }
    filtered = run("search", "b", *member, "--as-of", between, "--source", "slack")
    assert _texts(filtered) == {"b secret plan"}
    later = run("search", "b", *member, "--as-of", between, "--since", "2026-10-02")
    assert _texts(later) == set()
    code, _, error = run("search", "b", "--as-of", before)
    assert code == 1
    assert "the lake does not reach back to" in error
    assert "it can answer from" in error


def test_ingest_lands_the_good_and_names_the_bad(run: Run, tmp_path: Path) -> None:
    event = {
        "specversion": "1.0",
        "id": "1",
        "source": "gateway",
        "type": "llm.request",
        "time": "2026-10-01T00:00:00Z",
        "data": {},
    }
    file = tmp_path / "events.jsonl"
    file.write_text(json.dumps(event) + "\n{broken\n")
    command = ("ingest", "gateway", "--from", str(file), "--observed-at", "2026-10-02")
    code, out, _ = run(*command, "--json")
    assert code == 0
    (landed,) = json.loads(out)
    assert landed["landed"] == {"events": 1}
    assert sum(landed["quarantined"].values()) == 1
    assert landed["error"] is None
    code, out, _ = run(*command)
    assert code == 0
    assert "loreline quarantine list" in out
    assert out.split("\n")[2].split()[:4] == ["gateway", "0", "0", "1"]


def test_a_load_that_fails_is_named_and_the_others_land(run: Run, tmp_path: Path) -> None:
    code, out, error = run("ingest", "gateway", "--from", str(tmp_path / "nowhere"), "--json")
    assert code == 1
    assert "nothing is at" in json.loads(out)[0]["error"]
    assert error.startswith("loreline: gateway: nothing is at")


def test_the_sample_is_landed_once(run: Run, settings: Settings, capsys: Any) -> None:
    sample.land(settings)
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()[3:]} == {
        "evaluation",
        "gateway",
        "google_docs",
        "incident_reports",
        "linear",
        "log_files",
        "notion",
        "slack",
    }
    sample.land(settings)
    assert "landed already" in capsys.readouterr().out


def test_the_sample_is_for_a_stack_of_its_own(run: Run) -> None:
    code, out, error = run("run-sample")
    assert (code, out) == (1, "")
    assert "is for target local, not ci" in error


def test_the_inventory_counts_what_is_where(
    settings: Settings, publish: Callable[..., None]
) -> None:
    publish(PAGES)
    with duck.connect(settings.as_reader()) as lake:
        found = dict(sample.inventory(lake, settings))
    assert found[f"lake.{settings.prefix}knowledge"] == "chunks 3, documents_current 3, people 1"
    assert found[f"pg.{settings.prefix}serving"] == f"{COLLECTION.vector_collection} 3"


def _now() -> str:
    """This moment, with nothing else in its millisecond."""
    time.sleep(0.01)
    moment = datetime.now(UTC).isoformat()
    time.sleep(0.01)
    return moment


def _found(outcome: tuple[int, str, str]) -> set[str]:
    code, out, _ = outcome
    assert code == 0
    return {hit["doc_id"] for hit in json.loads(out)["hits"]}


def _texts(outcome: tuple[int, str, str]) -> set[str]:
    code, out, _ = outcome
    assert code == 0
    return {hit["text"] for hit in json.loads(out)["hits"]}
