"""What is built under which configuration, and what a backfill would embed: the SQL alone."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import duckdb
import pytest

from loreline import backfill
from loreline.backfill import Part, plan
from loreline.cli.backfill import described
from loreline.cli.coverage import print_grid
from loreline.embedding import EmbeddingConfiguration
from loreline.errors import LorelineError
from loreline.operations import overview
from loreline.serving.coverage import coverage
from loreline.settings import Settings

SETTINGS = Settings(target="local")

# Two strategies (k, j) and three models: e is served as it is, h in half precision, c a candidate.
TABLES = """
create schema lake.embedding;
create schema lake.knowledge;
create schema lake.serving;
create schema lake.seeds;
create schema pg.operations;
create schema pg.serving;
create table lake.embedding.embedding_configurations as
select * from (values
    ('e', 'ec', 'vector', 'served', 'org/e'),
    ('h', 'hc', 'halfvec', 'served', 'org/h'),
    ('c', 'cc', 'vector', 'candidate', 'org/c')
) as t (embedding_model, config_hash, storage, status, model);
create table lake.knowledge.chunking_configurations as
select * from (values ('k', 'kc', 'served'), ('j', 'jc', 'candidate'))
as t (chunking_strategy, config_hash, status);
create table lake.knowledge.documents_current (
    doc_id text, document_version_id text, source text, title text, source_updated_at timestamp,
    is_deleted boolean, is_blank boolean
);
create table lake.knowledge.chunks (
    doc_id text, document_version_id text, config_hash text, text_hash text, text text,
    context text, token_count bigint
);
create table lake.embedding.text_embeddings (
    text_hash text, config_hash text, halfvec_sha256 text
);
create table lake.serving.vector_manifest (
    vector_collection text, doc_id text, document_version_id text, is_deleted boolean,
    _batch bigint
);
create table lake.seeds.model_prices as select 'org/e' as model, 0.5 as input_price;
create table pg.operations.quarantine (
    source text, external_id text, origin text, detail text
);
create table pg.serving.collections as
select * from (values
    ('ek', 'e', 'k', 'ec', 'kc', 'vector', 9, 'served'),
    ('hk', 'h', 'k', 'hc', 'kc', 'halfvec', 9, 'served'),
    ('old hk', 'h', 'k', 'hc', 'kc', 'vector', 9, 'retired')
) as t (
    vector_collection, embedding_model, chunking_strategy, embedding_config_hash,
    chunking_config_hash, storage, pushed_batch, status
);
"""


@pytest.fixture
def lake() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("attach ':memory:' as lake")
        connection.execute("attach ':memory:' as pg")
        connection.execute(TABLES)
        yield connection


def put(lake: duckdb.DuckDBPyConnection, table: str, *rows: tuple[Any, ...]) -> None:
    places = ", ".join("?" * len(rows[0]))
    lake.executemany(f"insert into {table} values ({places})", rows)


def add_document(
    lake: duckdb.DuckDBPyConnection, name: str, *texts: str, source: str = "notion", day: int = 1
) -> None:
    """A document of version 2, cut into these texts under k, beside a text of version 1."""
    place = (f"{source}:{name}", f"{name}2", source, name, f"2026-10-0{day}", False, False)
    put(lake, "lake.knowledge.documents_current", place)
    old = (place[0], f"{name}1", "kc", f"old {name}", "old", None, 5)
    rows = [(place[0], f"{name}2", "kc", text, f"text {text}", None, 10) for text in texts]
    put(lake, "lake.knowledge.chunks", old, *rows)


def embed(
    lake: duckdb.DuckDBPyConnection, config_hash: str, *texts: str, half: bool = True
) -> None:
    rows = [(text, config_hash, "digest" if half else None) for text in texts]
    put(lake, "lake.embedding.text_embeddings", *rows)


def push(lake: duckdb.DuckDBPyConnection, collection: str, *versions: str, batch: int = 9) -> None:
    put(
        lake,
        "lake.serving.vector_manifest",
        *((collection, f"notion:{version[:-1]}", version, False, batch) for version in versions),
    )


def states(
    lake: duckdb.DuckDBPyConnection, model: str, strategy: str = "k", **filters: Any
) -> dict:
    coverage(lake, SETTINGS, model=model, strategy=strategy, **filters)
    rows = lake.execute("select doc_id, state, reason from coverage order by 1").fetchall()
    return {doc_id.removeprefix("notion:"): (state, reason) for doc_id, state, reason in rows}


def test_a_served_document_is_built_when_the_store_has_its_version(lake) -> None:
    for name in ("all", "none", "part", "unpushed", "early", "moved"):
        add_document(lake, name, f"{name} 1", f"{name} 2")
    add_document(lake, "uncut")
    embed(lake, "ec", *(f"{n} {i}" for n in ("all", "unpushed", "early", "moved") for i in (1, 2)))
    embed(lake, "ec", "part 1")
    embed(lake, "another", "none 1", "none 2")
    push(lake, "ek", "all2", "part1")
    push(lake, "ek", "early2", batch=10)
    push(lake, "ek", "moved1")
    assert states(lake, "e") == {
        "all": ("built", None),
        "early": ("missing", "embedded, not pushed"),
        "moved": ("stale", "embedded, not pushed; an older version is served"),
        "none": ("missing", "2 of 2 texts not embedded"),
        "part": ("stale", "1 of 2 texts not embedded; an older version is served"),
        "uncut": ("missing", "not cut into chunks"),
        "unpushed": ("missing", "embedded, not pushed"),
    }


def test_a_candidate_is_built_when_it_is_embedded(lake) -> None:
    add_document(lake, "all", "a 1", "a 2")
    add_document(lake, "part", "p 1", "p 2")
    embed(lake, "cc", "a 1", "a 2", "p 2")
    assert states(lake, "c") == {
        "all": ("built", None),
        "part": ("missing", "1 of 2 texts not embedded"),
    }
    assert states(lake, "e", "j")["all"] == ("missing", "not cut into chunks")


def test_a_refused_text_fails_its_document_under_its_configuration_alone(lake) -> None:
    add_document(lake, "long", "l 1", "l 2")
    put(lake, "pg.operations.quarantine", ("embedding", "l 1", "ec", "300 tokens"))
    put(lake, "pg.operations.quarantine", ("notion", "l 2", "ec", "broken"))
    embed(lake, "ec", "l 2")
    push(lake, "ek", "long1")
    failed = "1 of 2 texts refused: 300 tokens; an older version is served"
    assert states(lake, "e") == {"long": ("failed", failed)}
    assert states(lake, "c") == {"long": ("missing", "2 of 2 texts not embedded")}
    embed(lake, "ec", "l 1")
    push(lake, "ek", "long2")
    lake.execute("delete from lake.serving.vector_manifest where document_version_id = 'long1'")
    assert states(lake, "e") == {"long": ("built", None)}, "embedded after all"


def test_a_vector_that_a_half_cannot_hold_fails_where_halves_are_stored(lake) -> None:
    add_document(lake, "large", "l 1")
    embed(lake, "hc", "l 1", half=False)
    embed(lake, "cc", "l 1", half=False)
    state, reason = states(lake, "h")["large"]
    assert state == "failed"
    assert "beyond what halfvec holds" in reason
    assert states(lake, "c")["large"] == ("built", None)


def test_an_older_configuration_that_is_served_is_stale(lake) -> None:
    add_document(lake, "edited", "e 1")
    lake.execute(
        "update pg.serving.collections set embedding_config_hash = 'ex' where storage = 'vector'"
    )
    push(lake, "ek", "edited2")
    reason = "1 of 1 texts not embedded; an older configuration is served"
    assert states(lake, "e") == {"edited": ("stale", reason)}


def test_what_was_deleted_counts_only_while_it_is_served(lake) -> None:
    for name in ("gone", "left"):
        add_document(lake, name, f"{name} 1")
    lake.execute("update lake.knowledge.documents_current set is_deleted = true")
    push(lake, "ek", "left1")
    assert states(lake, "e") == {"left": ("stale", "deleted, and still served")}
    assert states(lake, "e", source="slack") == {}


def test_status_counts_what_coverage_calls_built(lake) -> None:
    names = ("all", "refused", "unpushed", "gone", "blank")
    for name in names:
        add_document(lake, name, f"{name} 1")
    add_document(lake, "slack", "s 1", source="slack")
    current = "update lake.knowledge.documents_current set"
    lake.execute(f"{current} is_deleted = true where title = 'gone'")
    lake.execute(f"{current} is_blank = true where title = 'blank'")
    embed(lake, "ec", "all 1", "unpushed 1", "s 1")
    put(lake, "pg.operations.quarantine", ("embedding", "refused 1", "ec", "300 tokens"))
    push(lake, "ek", "all2", "all2", "refused1", "gone2")
    push(lake, "ek", "unpushed2", batch=10)
    # What was deleted is none, what says nothing is one that cannot be found.
    assert overview._documents(lake, SETTINGS) == {"notion": 4, "slack": 1}
    documents, collections = overview._expected(lake, SETTINGS)
    assert (documents, collections) == (4, {"ek": (5, 1)})
    (notion, slack) = coverage(lake, SETTINGS, model="e", strategy="k").cells()
    assert (notion.built + slack.built, notion.failed) == (1, 1)


def test_the_grid_has_a_column_for_each_source(lake, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    add_document(lake, "a", "a 1")
    add_document(lake, "b", "b 1")
    add_document(lake, "s", "s 1", source="slack")
    embed(lake, "ec", "a 1", "s 1")
    push(lake, "ek", "a2")
    put(lake, "pg.operations.quarantine", ("embedding", "s 1", "hc", "no \x1b[31mvector"))
    found = coverage(lake, SETTINGS, strategy="k")
    print_grid(found.cells())
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown[0] == [
        "embedding", "chunking", "status", "notion", "slack", "missing", "stale", "failed"
    ]  # fmt: skip
    assert shown[2] == ["e", "k", "served", "1", "of", "2", "0", "of", "1", "2", "0", "0"]
    assert shown[3] == ["h", "k", "served", "0", "of", "2", "0", "of", "1", "2", "0", "1"]
    assert shown[4] == ["c", "k", "candidate", "0", "of", "2", "0", "of", "1", "3", "0", "0"]
    gaps = list(found.gaps())
    assert len(gaps) == 8
    assert [gap.doc_id for gap in found.gaps(2)] == [gap.doc_id for gap in gaps[:2]]


class Encoder:
    """Remembers what it was asked."""

    configuration = EmbeddingConfiguration(batch_size=2)

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts: list[str]) -> None:
        self.asked += texts


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """The texts that are embedded for a plan."""
    encoder = Encoder()
    monkeypatch.setattr("loreline.embedding.load_encoder", lambda *_: encoder)
    return encoder.asked


def pending(lake: duckdb.DuckDBPyConnection, **options: Any) -> list[str]:
    tables = {name: f"lake.{table}" for name, table in backfill.TABLES.items()}
    query, parameters = Part("e", **options).pending(tables | {"operations": "operations"}, "ec")
    return [row[0] for row in lake.execute(query, parameters).fetchall()]


def test_a_backfill_takes_what_is_neither_embedded_nor_refused_newest_first(lake) -> None:
    add_document(lake, "a", "a 1", "shared", day=1)
    add_document(lake, "b", "b 1", "shared", "b 2", day=3)
    add_document(lake, "s", "s 1", source="slack", day=2)
    put(lake, "lake.knowledge.chunks", ("notion:a", "a2", "jc", "a j", "text", None, 10))
    embed(lake, "ec", "b 2")
    embed(lake, "cc", "b 1")
    put(lake, "pg.operations.quarantine", ("embedding", "old a", "ec", "300 tokens"))
    old = ["old b", "old s"]
    assert pending(lake) == ["b 1", "shared", "s 1", "a 1", "a j", *old]
    assert pending(lake, chunking_strategy="k") == ["b 1", "shared", "s 1", "a 1", *old]
    assert pending(lake, source="notion") == ["b 1", "shared", "a 1", "a j"]
    assert pending(lake, since="2026-10-02T00:00:00") == ["b 1", "shared", "s 1"]
    assert pending(lake, documents=["notion:a", "slack:s"]) == ["s 1", "a 1", "a j", "shared"]
    assert pending(lake, limit=2) == ["b 1", "shared"]


def test_a_plan_counts_measures_and_prices(lake, asked) -> None:
    add_document(lake, "a", "a 1", "a 2")
    lake.execute("update lake.knowledge.chunks set context = 'Plan: ' where text_hash = 'a 1'")
    found = plan(lake, SETTINGS, Part("e", source="notion"))
    assert (found.texts, found.tokens, found.cost) == (2, 20, Decimal("0.00001"))
    assert sorted(set(asked)) == ["Plan: text a 1", "text a 2"]
    assert found.seconds == found.tokens / found.tokens_per_second
    said = described(found)
    assert said.startswith("2 texts of 20 tokens to embed, about 0:00:01 at ")
    assert said.endswith(" for 0.000010 dollars.")
    assert plan(lake, SETTINGS, Part("c")).cost is None

    embed(lake, "ec", "a 1", "a 2")
    nothing = plan(lake, SETTINGS, Part("e", source="notion"))
    assert (nothing.texts, nothing.seconds) == (0, None)
    assert described(nothing).startswith("Nothing is missing: e ")


def test_the_variable_of_dbt_is_read_back_and_what_it_cannot_say_is_refused() -> None:
    part = Part("e", source="notion", documents=["notion:a"], limit=3)
    assert part.variables() == {
        "embedding_model": "e",
        "source": "notion",
        "documents": ["notion:a"],
        "limit": 3,
    }
    assert Part.from_variables(part.variables(), ["c", "e"]) == part
    for value, said in (
        ({"model": "e"}, "it takes chunking_strategy, documents, embedding_model"),
        ("e", "the variable backfill is 'e'"),
        ({"embedding_model": "x"}, r"no embedding model x .* there are c, e$"),
    ):
        with pytest.raises(LorelineError, match=said):
            Part.from_variables(value, ["e", "c"])


def test_a_plan_for_what_is_not_there_names_what_is(lake) -> None:
    with pytest.raises(LorelineError, match=r"no embedding model x .* there are c, e, h"):
        plan(lake, SETTINGS, Part("x"))
    with pytest.raises(LorelineError, match=r"no chunking strategy x .* there are j, k"):
        plan(lake, SETTINGS, Part("e", "x"))
