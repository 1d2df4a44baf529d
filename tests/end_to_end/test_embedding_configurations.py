"""Two models and two strategies at once, what is built of each, and filling one in beforehand."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from loreline.settings import Settings
from tests.end_to_end.exports import Page, document_of, write_notion
from tests.end_to_end.lakehouse import (
    NO_TESTS,
    PROMPTED_DIMENSIONS,
    PROMPTED_MODEL,
    PROMPTS,
    TINY_MODEL,
    TINY_MODEL_SEED,
    Lakehouse,
    Rows,
    replace_in,
    temporary_lakehouse,
    write_models,
)

KEPT_DIMENSIONS = 24
PROMPTED = (
    f"prompted,{PROMPTED_MODEL},main,{KEPT_DIMENSIONS},256,true,1,served,2,"
    f'{PROMPTED_DIMENSIONS},"{PROMPTS["query"]}","{PROMPTS["document"]}",halfvec\n'
)
EDITED = PROMPTED.replace("ledger says", "a ledger says")
TRIAL = f"trial,{PROMPTED_MODEL},main,{PROMPTED_DIMENSIONS},256,true,1,candidate,3,,,,vector\n"
# Reads hardly more than a sentence.
SHORT = f"short,{TINY_MODEL},main,32,24,true,1,served,4,,,,vector\n"

PAGES = {
    f"page {number}": Page(
        [
            f"Ledger {number}, entry {entry}: the {['cooper', 'thatcher', 'farrier'][entry % 3]}"
            f" was paid {number * 7 + entry} shillings for the {['barn', 'byre'][entry % 2]}'s"
            f" roof, door and yard, and for {entry + 2} days of travel over the hills and back."
            for entry in range(number + 4)
        ]
    )
    for number in range(8)
}
NOTE = {"note": Page(["The cooper owes a cask."])}

# What another configuration changes, and what new documents change besides.
CONFIGURED = [
    "embedding_models",
    "embedding_configurations",
    "chunks",
    "text_embeddings",
    "served_collections",
    "vector_manifest",
    "vector_collections",
]
REBUILD = ["build", "--select", *CONFIGURED, *NO_TESTS]
REBUILD_DOCUMENTS = ["build", "--select", "+documents_current", *CONFIGURED, *NO_TESTS]


@pytest.fixture(scope="module")
def filled(
    stack: Settings, tiny_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lakehouse]:
    """Some pages under both models and both strategies; a commit for every few texts."""
    folder = tmp_path_factory.mktemp("configurations")
    with temporary_lakehouse(
        stack, folder, tiny_model=tiny_models, in_small_slices=True
    ) as lakehouse:
        model = lakehouse.project / "python_models" / "embedding" / "text_embeddings.py"
        replace_in(model, "TEXTS_PER_SLICE = 50", "TEXTS_PER_SLICE = 4")
        write_models(lakehouse.project, TINY_MODEL_SEED, PROMPTED)
        pages = {**PAGES, **NOTE}
        lakehouse.land("notion", write_notion(folder / "export", "2026-10-06T00:00:00Z", pages))
        lakehouse.build()
        yield lakehouse


@pytest.fixture
def both(filled: Lakehouse) -> Iterator[Lakehouse]:
    """The same, with the two models again afterwards, whatever a test made of them."""
    filled.check_contents()
    yield filled
    write_models(filled.project, TINY_MODEL_SEED, PROMPTED)
    filled.build(*REBUILD)


def project_of(lakehouse: Lakehouse) -> list[str]:
    return ["--project-dir", str(lakehouse.project), "--profiles-dir", str(lakehouse.project)]


def collection_of(lakehouse: Lakehouse, model: str, strategy: str = "recursive") -> Any:
    (found,) = (
        state
        for state in lakehouse.collections()
        if (state.embedding_model, state.chunking_strategy) == (model, strategy)
    )
    return found


def stored(lakehouse: Lakehouse, model: str) -> dict[str, np.ndarray]:
    """The vectors of a model's configuration of now, by text."""
    rows = lakehouse.query(
        "select distinct chunks.text, embeddings.embedding"
        " from {lake}embedding.text_embeddings as embeddings"
        " inner join {lake}embedding.embedding_configurations as configurations"
        " using (config_hash)"
        " inner join {lake}knowledge.chunks as chunks using (text_hash)"
        " where configurations.embedding_model = $1",
        model,
    )
    return {text: np.array(vector, np.float32) for text, vector in rows}


def embedded_rows(lakehouse: Lakehouse) -> Rows:
    return lakehouse.query(
        "select embedding_model, config_hash, text_hash, vector_sha256, _batch"
        " from {lake}embedding.text_embeddings order by all"
    )


def rows_in_postgres(lakehouse: Lakehouse, model: str) -> dict[str, Rows]:
    """Where the rows of a model's collections lie: a row that was written lies elsewhere."""
    return {
        state.vector_collection: lakehouse.execute(
            f"select chunk_id, xmin::text, ctid::text from {{serving}}.chunks_{state.table_number}"
            " order by 1"
        )
        for state in lakehouse.collections()
        if state.embedding_model == model
    }


def coverage(lakehouse: Lakehouse, *options: str) -> dict[str, Any]:
    shown = lakehouse.command("coverage", "--json", "--documents", *options)
    assert shown.exit_code == 0, shown.errors
    return json.loads(shown.output)


def counted(lakehouse: Lakehouse, model: str) -> dict[str, tuple[int, ...]]:
    """Built, missing, stale and failed documents of a model, by strategy."""
    return {
        cell["chunking_strategy"]: tuple(
            cell[state] for state in ("built", "missing", "stale", "failed")
        )
        for cell in coverage(lakehouse, "--model", model)["coverage"]
    }


def test_vectors_and_questions_are_what_sentence_transformers_makes_of_them(
    filled: Lakehouse, tiny_models: Path
) -> None:
    model = SentenceTransformer(str(tiny_models / PROMPTED_MODEL), device="cpu")

    def encoded(text: str, **options: Any) -> np.ndarray:
        return model.encode(text, normalize_embeddings=True, **options)

    vectors = stored(filled, "prompted")
    assert len(vectors) > 20
    for text, vector in vectors.items():
        prompted = {"prompt": PROMPTS["document"], "truncate_dim": KEPT_DIMENSIONS}
        assert np.allclose(vector, encoded(text, **prompted), atol=1e-6)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5), "normalized when cut off"
    assert not np.allclose(vector, encoded(text, prompt="", truncate_dim=24), atol=1e-3)
    assert not np.allclose(vector, encoded(text, **prompted | {"truncate_dim": 48})[:24], atol=1e-3)

    # A question is embedded as the collection that is asked was, also as of another time.
    question = "Who was paid for the byre?"
    plain = SentenceTransformer(str(tiny_models / TINY_MODEL), device="cpu")
    queries = {
        "tiny": (plain.encode(question, normalize_embeddings=True), stored(filled, "tiny")),
        "prompted": (
            encoded(question, prompt=PROMPTS["query"], truncate_dim=KEPT_DIMENSIONS),
            vectors,
        ),
    }
    for name, (query, texts) in queries.items():
        asked = [question, "--collection", collection_of(filled, name).vector_collection]
        now = json.loads(filled.command("search", *asked, "--json", "-k", "1000").output)["hits"]
        assert len(now) > 20
        for hit in now:
            hit["cosine"] = float(texts[hit["text"]] @ query)
        nearest = sorted((hit for hit in now if hit["dense_rank"]), key=lambda h: h["dense_rank"])
        assert [h["cosine"] for h in nearest] == sorted(
            (pytest.approx(h["cosine"], abs=2e-3) for h in nearest),
            key=lambda near: -near.expected,
        )
        then = filled.command(
            "search", *asked, "--json", "-k", "1000", "--as-of", datetime.now(UTC).isoformat()
        )
        for hit in json.loads(then.output)["hits"]:
            assert hit["score"] == pytest.approx(float(texts[hit["text"]] @ query), abs=1e-5)


def test_two_models_and_two_strategies_are_served_each_as_it_is_stored(filled: Lakehouse) -> None:
    filled.check_contents()
    served = filled.collections()
    assert {(s.embedding_model, s.storage, s.dimensions) for s in served} == {
        ("tiny", "vector", 32),
        ("prompted", "halfvec", KEPT_DIMENSIONS),
    }
    assert len(served) == 4
    assert [s.embedding_model for s in served if s.is_default] == ["tiny"]
    everything = len(PAGES) + len(NOTE)
    for model in ("tiny", "prompted"):
        built = (everything, 0, 0, 0)
        assert counted(filled, model) == {"recursive": built, "markdown_sections": built}
    shown = filled.command("coverage", "--check")
    assert shown.exit_code == 0, shown.errors
    assert "Everything is built." in shown.output
    counts = "select state, is_served, count(*) as documents from operations.coverage group by all"
    told = json.loads(filled.command("sql", counts, "--json").output)
    assert told == [{"state": "built", "is_served": True, "documents": 4 * everything}]
    assert filled.build(*REBUILD).encoded == []


@pytest.mark.soak
def test_editing_one_leaves_the_other_and_serves_the_old_one_until_the_new_is_complete(
    both: Lakehouse,
) -> None:
    rows, tiny = embedded_rows(both), rows_in_postgres(both, "tiny")
    old = {s.vector_collection for s in both.collections() if s.embedding_model == "prompted"}
    manifest = (
        "select to_json(manifest) from {lake}serving.vector_manifest as manifest"
        " where vector_collection like 'tiny%' order by all"
    )
    tiny_manifest = both.query(manifest)
    before = datetime.now(UTC).isoformat()

    write_models(both.project, TINY_MODEL_SEED, EDITED)
    filling = ["backfill", "embeddings", "--model", "prompted", "--limit", "7", "--yes"]
    shown = both.command(*filling, *project_of(both))
    assert shown.exit_code == 0, shown.errors
    assert shown.output.endswith("7 texts embedded.\n")
    # Built without what fills it in: the half of it is not served, and nothing of it is mixed in.
    both.build("build", "--select", "served_collections+", *NO_TESTS)
    both.check_contents()
    assert {
        s.vector_collection for s in both.collections() if s.embedding_model == "prompted"
    } == old
    stale = coverage(both, "--model", "prompted")
    assert {cell["built"] for cell in stale["coverage"]} == {0}
    assert {gap["state"] for gap in stale["documents"]} == {"stale"}
    assert all(
        gap["reason"].endswith("; an older configuration is served") for gap in stale["documents"]
    )
    assert both.command("coverage", "--check").exit_code == 1
    assert both.command("coverage", "--check", "--model", "tiny").exit_code == 0
    question = ["search", "Who owes a cask?", "--json", "--collection", max(old)]
    asked = json.loads(both.command(*question).output)
    assert len(asked["hits"]) == 5, "the old one is asked as it was embedded"

    done = both.build(*REBUILD)
    both.check_contents()
    new = {s.vector_collection for s in both.collections() if s.embedding_model == "prompted"}
    assert len(new) == 2
    assert not new & old
    assert {s.vector_collection for s in both.collections("retired")} >= old
    assert coverage(both)["documents"] == []
    # What was there is as it was; what came is the edited one's alone, each text once.
    after = embedded_rows(both)
    assert set(rows) < set(after)
    added = [row for row in after if row not in set(rows)]
    texts = {row[2] for row in rows if row[0] == "prompted"}
    assert {row[0] for row in added} == {"prompted"}
    assert len({row[1] for row in added}) == 1
    assert sorted(row[2] for row in added) == sorted(texts)
    assert len(done.encoded) == len(added) - 7
    assert rows_in_postgres(both, "tiny") == tiny
    assert both.query(manifest) == tiny_manifest
    then = json.loads(both.command(*question, "--as-of", before).output)
    assert len(then["hits"]) == 5, "the lake still answers as it did"


def test_what_needs_no_other_vector_embeds_nothing(both: Lakehouse) -> None:
    old = collection_of(both, "prompted")
    write_models(both.project, TINY_MODEL_SEED, PROMPTED.replace("halfvec", "vector"))
    assert both.build(*REBUILD).encoded == []
    both.check_contents()
    new = collection_of(both, "prompted")
    assert (new.storage, old.storage) == ("vector", "halfvec")
    assert new.vector_collection != old.vector_collection

    write_models(both.project, TINY_MODEL_SEED, PROMPTED.replace("ask of", "asking"))
    assert both.build(*REBUILD).encoded == []
    asked = collection_of(both, "prompted")
    assert asked.question_embedding["query_prefix"].startswith("asking")
    assert asked.vector_collection not in (old.vector_collection, new.vector_collection)


@pytest.mark.soak
def test_a_candidate_is_filled_in_killed_resumed_and_found_done_by_the_build(
    both: Lakehouse,
) -> None:
    write_models(both.project, TINY_MODEL_SEED, PROMPTED, TRIAL)
    filling = ["backfill", "embeddings", "--model", "trial", *project_of(both)]
    chunks = "select count(distinct text_hash) from {lake}knowledge.chunks"
    trial = "select count(*) from {lake}embedding.text_embeddings where embedding_model = 'trial'"
    ((texts,),) = both.query(chunks)

    refused = both.command(*filling)
    assert refused.exit_code == 2
    assert "add --yes, or --plan" in refused.errors
    planned = json.loads(both.command(*filling, "--plan", "--json").output)
    assert (planned["texts"], planned["cost"]) == (texts, None)
    assert planned["tokens"] > texts
    assert planned["seconds"] > 0
    assert both.query(trial) == [(0,)]

    # One document, chosen by its id.
    note = ["--document", document_of("note"), "--source", "notion", "--since", "2026-10-01"]
    chosen = both.command(*filling, *note, "--strategy", "recursive", "--yes")
    assert chosen.output.endswith("1 texts embedded.\n"), chosen
    assert both.query(trial) == [(1,)]
    states = {
        (gap["doc_id"], gap["state"]) for gap in coverage(both, "--model", "trial")["documents"]
    }
    assert states == {(document_of(page), "missing") for page in PAGES}
    assert both.command("coverage", "--check").exit_code == 0, "a candidate is not served"

    running = both.start("command", arguments=[*filling, "--yes"])
    commits = "select count(*) from {operations}.commits where model like '%%text_embeddings'"
    ((at_first,),) = both.execute(commits)
    while both.execute(commits)[0][0] < at_first + 2:
        assert running.is_running()
        time.sleep(0.005)
    assert running.kill(after=0)
    ((by_then,),) = both.query(trial)
    assert 1 < by_then < texts

    resumed = both.command(*filling, "--yes", "--json")
    assert json.loads(resumed.output) == {
        "planned": texts - by_then,
        "embedded": texts - by_then,
        "refused_by_now": 0,
    }
    assert both.query(trial) == [(texts,)]
    assert both.build(*REBUILD).encoded == [], "the build finds it done"
    assert not {s.embedding_model for s in both.collections()} - {"tiny", "prompted"}
    write_models(both.project, TINY_MODEL_SEED, PROMPTED, TRIAL.replace("candidate", "served"))
    assert both.build(*REBUILD).encoded == []
    assert collection_of(both, "trial").row_count > 20
    both.check_contents()


@pytest.mark.soak
def test_a_document_with_a_refused_text_is_not_served_by_half(
    both: Lakehouse, tmp_path: Path
) -> None:
    write_models(both.project, TINY_MODEL_SEED, PROMPTED, SHORT)
    both.build(*REBUILD)
    both.check_contents()
    everything = len(PAGES) + len(NOTE)
    strategies = ("recursive", "markdown_sections")
    assert counted(both, "short") == dict.fromkeys(strategies, (1, 0, 0, len(PAGES)))
    held = "select doc_id from {pg}serving.vector_rows where vector_collection like 'short__rec%'"
    assert both.query(held) == [(document_of("note"),)]
    shown = both.command("coverage", "--documents", "--model", "short", "--check")
    assert shown.exit_code == 1
    assert "tokens, of which the model reads 24" in shown.output
    assert both.build(*REBUILD).encoded == [], "what was refused is not tried again"

    # A new version that cannot be embedded: the one before stays, and the reason says so.
    longer = {"note": Page([*NOTE["note"].paragraphs, *PAGES["page 1"].paragraphs])}
    both.land("notion", write_notion(tmp_path / "longer", "2026-10-07T00:00:00Z", longer))
    both.build(*REBUILD_DOCUMENTS)
    both.check_contents()
    assert both.query(held) == [(document_of("note"),)]
    (gap,) = (
        gap
        for gap in coverage(both, "--model", "short", "--strategy", "recursive")["documents"]
        if gap["doc_id"] == document_of("note")
    )
    assert gap["state"] == "failed"
    assert gap["reason"].endswith("; an older version is served")
    assert counted(both, "tiny") == dict.fromkeys(strategies, (everything, 0, 0, 0))

    # A limit that lets it in is another configuration, and refuses nothing of it.
    write_models(both.project, TINY_MODEL_SEED, PROMPTED, SHORT.replace(",24,", ",256,"))
    both.build(*REBUILD)
    assert counted(both, "short") == dict.fromkeys(strategies, (everything, 0, 0, 0))
    both.land("notion", write_notion(tmp_path / "back", "2026-10-08T00:00:00Z", NOTE))
    both.build(*REBUILD_DOCUMENTS)
