"""What a push leaves in Postgres, and what a search sees of it while it goes on."""

import hashlib
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg
import pyarrow as pa
import pytest

from loreline.errors import LorelineError
from loreline.postgres import connect
from loreline.serving import collections
from loreline.serving.collections import (
    CHUNK_SCHEMA,
    Collection,
    PushResult,
    drop_retired,
    push,
    pushed_batch,
    retire,
    retire_others,
    states,
    stored_vectors,
)
from loreline.serving.fingerprints import fingerprint, vector_sha256
from loreline.serving.search import search

DIMENSIONS = 8
COLLECTION = Collection(
    vector_collection="small__sections__1111",
    embedding_model="small",
    chunking_strategy="sections",
    config_hash="1111",
    dimensions=DIMENSIONS,
    is_default=True,
)
NEWER = replace(COLLECTION, vector_collection="small__sections__2222", config_hash="2222")

PUSH_IN_A_PROCESS_OF_ITS_OWN = """
import sys
import pyarrow as pa
from loreline.postgres import connect
from loreline.serving.collections import Collection, push
from loreline.settings import Settings

rows, through_batch = sys.argv[1], int(sys.argv[2])
collection = Collection(*sys.argv[3:7], dimensions=8, is_default=True)
settings = Settings.load()
with pa.OSFile(rows) as file, connect(settings) as connection:
    push(
        connection,
        settings,
        collection,
        pa.ipc.open_file(file).read_all().to_batches(1_000),
        through_batch=through_batch,
        progress=lambda step, chunks: print(step, chunks, flush=True),
    )
"""


@dataclass(frozen=True)
class Document:
    doc_id: str
    texts: tuple[str, ...] = ()
    version: int = 1
    principals: tuple[str, ...] = ("public",)
    title: str = "A page"
    source: str = "notion"
    container: str = "general"
    author: str = "ada"
    updated_at: datetime = datetime(2024, 5, 1, tzinfo=UTC)


def embedding_of(text: str, dimensions: int = DIMENSIONS) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    return np.random.default_rng(seed).normal(size=dimensions).astype(np.float32)


def chunk_rows(document: Document, dimensions: int = DIMENSIONS) -> list[dict]:
    if not document.texts:
        return [{"doc_id": document.doc_id}]
    return [
        {
            "chunk_id": f"{document.doc_id}/{document.version}/{index}",
            "doc_id": document.doc_id,
            "document_version_id": f"{document.doc_id}/{document.version}",
            "chunk_index": index,
            "text": text,
            "text_hash": hashlib.sha256(text.encode()).hexdigest(),
            "title": document.title,
            "url": None,
            "heading_path": ["Notes"],
            "start_char": 1,
            "end_char": len(text),
            "source": document.source,
            "container": document.container,
            "author_id": document.author,
            "created_at": document.updated_at,
            "source_updated_at": document.updated_at,
            "allowed_principals": list(document.principals),
            "embedding": embedding_of(text, dimensions).tolist(),
        }
        for index, text in enumerate(document.texts)
    ]


def batches(*documents: Document, dimensions: int = DIMENSIONS) -> list[pa.RecordBatch]:
    ordered = sorted(documents, key=lambda document: document.doc_id)
    rows = [row for document in ordered for row in chunk_rows(document, dimensions)]
    return pa.Table.from_pylist(rows, schema=CHUNK_SCHEMA).to_batches(3)


def pages(count: int, version: int = 1, chunks: int = 3) -> list[Document]:
    return [
        Document(
            f"notion:{number:05d}",
            tuple(f"page {number} part {part} as of v{version}" for part in range(chunks)),
            version,
        )
        for number in range(count)
    ]


@pytest.fixture
def connection(settings):
    with connect(settings, autocommit=True) as connection:
        yield connection


@pytest.fixture
def pushed(connection, settings):
    """Push documents, each call as the next batch."""
    numbers = iter(range(1, 1_000))

    def push_documents(*documents: Document, collection: Collection = COLLECTION) -> PushResult:
        rows = batches(*documents, dimensions=collection.dimensions)
        return push(connection, settings, collection, rows, through_batch=next(numbers))

    return push_documents


@pytest.fixture
def found(connection, settings):
    """What a search for everything finds, by chunk."""

    def find(*principals: str, **options) -> dict[str, str]:
        hits = search(
            connection, settings, "page", embedding_of("page"), principals, k=1_000, **options
        )
        return {hit.chunk_id: hit.text for hit in hits}

    return find


def serving(settings) -> str:
    return f"{settings.prefix}serving"


def held_rows(connection, settings, columns: str = "xmin::text, ctid::text") -> dict[str, tuple]:
    table = f"{serving(settings)}.chunks_{states(connection, settings)[0].table_number}"
    query = f"select chunk_id, {columns} from {table}"
    return {chunk_id: tuple(rest) for chunk_id, *rest in connection.execute(query)}


def vector_rows(connection, settings) -> dict[tuple[str, str], str]:
    query = (
        "select vector_collection, chunk_id, fingerprint"
        f" from {serving(settings)}.vector_rows order by 1, 2"
    )
    return {(name, chunk): digest for name, chunk, digest in connection.execute(query)}


def expected_rows(collection: Collection, *documents: Document) -> dict[tuple[str, str], str]:
    return {
        (collection.vector_collection, row["chunk_id"]): fingerprint(
            row["text"],
            np.array(row["embedding"], np.float32),
            row["allowed_principals"],
            collection.storage,
        )
        for document in documents
        if document.texts
        for row in chunk_rows(document)
    }


def lexeme_counts(connection, settings) -> tuple[dict, dict]:
    """What is counted for the served collection, and what is so."""
    schema = serving(settings)
    (state,) = (state for state in states(connection, settings) if state.status == "served")
    of_collection = f"where vector_collection = '{state.vector_collection}'"
    table = f"{schema}.chunks_{state.table_number}"
    counted, totals, actual, actual_totals = (
        connection.execute(query).fetchall()
        for query in (
            f"select lexeme, chunks from {schema}.lexeme_counts {of_collection}",
            f"select chunk_count, lexeme_total from {schema}.collections {of_collection}",
            f"select word, ndoc from ts_stat('select lexemes from {table}')",
            f"select count(*), coalesce(sum(length(lexemes)), 0) from {table}",
        )
    )
    return {"": totals, **dict(counted)}, {"": actual_totals, **dict(actual)}


def test_a_new_collection_is_served_with_the_fingerprints_that_were_asked_for(
    connection, settings, pushed, found
):
    documents = [Document("notion:1", ("página one", "two\n\ttwo")), Document("slack:2", ("🙂",))]
    assert pushed_batch(connection, settings, COLLECTION) is None
    assert pushed(*documents) == PushResult(documents=2, inserted=3)

    (state,) = states(connection, settings)
    assert (state.status, state.is_default, state.pushed_batch) == ("served", True, 1)
    assert state.row_count == 3
    assert vector_rows(connection, settings) == expected_rows(COLLECTION, *documents)
    assert len(found()) == 3


def test_an_equal_push_writes_nothing(connection, settings, pushed):
    documents = pages(5)
    pushed(*documents)
    before = held_rows(connection, settings)
    assert pushed(*documents) == PushResult(documents=5, unchanged=15)
    assert held_rows(connection, settings) == before
    assert pushed_batch(connection, settings, COLLECTION) == 2


def test_a_changed_document_is_swapped_and_nothing_else_is_written(
    connection, settings, pushed, found
):
    documents = pages(5)
    pushed(*documents)
    before = held_rows(connection, settings)
    changed = Document("notion:00002", ("now one part only",), version=2)

    assert pushed(changed) == PushResult(documents=1, inserted=1, deleted=3)

    after = held_rows(connection, settings)
    kept = {chunk for chunk in before if not chunk.startswith("notion:00002/")}
    assert {chunk: after[chunk] for chunk in kept} == {chunk: before[chunk] for chunk in kept}
    assert after.keys() - kept == {"notion:00002/2/0"}
    assert found().keys() == after.keys()


def test_of_two_documents_with_equal_text_the_other_one_stays(pushed, found):
    pushed(Document("notion:1", ("the same page",)), Document("notion:2", ("the same page",)))
    assert pushed(Document("notion:1")) == PushResult(documents=1, deleted=1)
    assert found().keys() == {"notion:2/1/0"}


def test_a_revoked_permission_counts_from_the_next_push_and_moves_no_vector(
    connection, settings, pushed
):
    # Long enough to be stored out of line, where an address tells whether a vector was rewritten.
    wide = replace(COLLECTION, dimensions=900)
    readers = Document("slack:1", ("the secret page",), principals=("slack:C1", "ada"))
    other = Document("slack:2", ("another page",), principals=("slack:C1",))
    pushed(readers, other, collection=wide)
    columns = "pg_column_toast_chunk_id(embedding), xmin::text"
    before = held_rows(connection, settings, columns)
    query = embedding_of("page", 900)
    assert len(search(connection, settings, "page", query, ["ada"])) == 1

    result = pushed(replace(readers, principals=("slack:C1",)), collection=wide)

    assert result == PushResult(documents=1, updated=1)
    assert search(connection, settings, "page", query, ["ada"]) == []
    assert len(search(connection, settings, "page", query, ["slack:C1"])) == 2
    after = held_rows(connection, settings, columns)
    assert before["slack:1/1/0"][0] is not None
    assert after["slack:1/1/0"][0] == before["slack:1/1/0"][0]
    assert after["slack:2/1/0"] == before["slack:2/1/0"]


def test_a_row_that_was_tampered_with_is_put_right(connection, settings, pushed):
    documents = pages(2)
    pushed(*documents)
    table = f"{serving(settings)}.chunks_{states(connection, settings)[0].table_number}"
    connection.execute(f"update {table} set text = 'forged' where chunk_id = 'notion:00000/1/0'")
    connection.execute(f"delete from {table} where chunk_id = 'notion:00000/1/1'")
    assert pushed(*documents) == PushResult(documents=2, inserted=1, updated=1, unchanged=4)
    assert vector_rows(connection, settings) == expected_rows(COLLECTION, *documents)


def test_stored_vectors_are_those_that_were_pushed(connection, settings, pushed):
    assert stored_vectors(connection, settings, COLLECTION, ["notion:00000"]).num_rows == 0
    documents = pages(3)
    pushed(*documents)
    held = stored_vectors(connection, settings, COLLECTION, ["notion:00001", "nobody"]).to_pylist()
    vectors = {row["text_hash"]: row for row in chunk_rows(documents[1])}
    assert {row["text_hash"] for row in held} == set(vectors)
    for row in held:
        vector = np.array(vectors[row["text_hash"]]["embedding"], np.float32)
        assert row["embedding"] == vector.tolist()
        assert row["vector_sha256"] == vector_sha256(vector)


def test_halves_are_pushed_compared_and_read_back_as_such(connection, settings, pushed, found):
    halves = replace(COLLECTION, storage="halfvec", question_embedding='{"model": "m"}')
    documents = pages(4)
    assert pushed(*documents, collection=halves) == PushResult(documents=4, inserted=12)
    assert vector_rows(connection, settings) == expected_rows(halves, *documents)
    assert len(found()) == 12
    before = held_rows(connection, settings)
    assert pushed(*documents, collection=halves) == PushResult(documents=4, unchanged=12)
    assert held_rows(connection, settings) == before
    (state,) = states(connection, settings)
    assert (state.storage, state.question_embedding) == ("halfvec", {"model": "m"})

    documents[2] = Document("notion:00002", ("now one part only",), version=2)
    assert pushed(documents[2], collection=halves) == PushResult(documents=1, inserted=1, deleted=3)
    table = f"{serving(settings)}.chunks_{state.table_number}"
    connection.execute(
        f"update {table} set embedding = embedding + embedding where chunk_id = 'notion:00001/1/0'"
    )
    assert pushed(*documents, collection=halves).updated == 1
    assert vector_rows(connection, settings) == expected_rows(halves, *documents)

    held = stored_vectors(connection, settings, halves, ["notion:00002"]).to_pylist()
    vector = embedding_of("now one part only")
    assert [row["vector_sha256"] for row in held] == [vector_sha256(vector, "halfvec")]
    assert held[0]["embedding"] == vector.astype(np.float16).astype(np.float32).tolist()

    rows = chunk_rows(pages(1)[0])
    rows[1]["embedding"] = [1e6] * DIMENSIONS
    batch = pa.RecordBatch.from_pylist(rows, schema=CHUNK_SCHEMA)
    with pytest.raises(LorelineError, match="notion:00000/1/1 has values beyond what halfvec"):
        push(connection, settings, halves, [batch], through_batch=99)
    assert vector_rows(connection, settings) == expected_rows(halves, *documents)
    with pytest.raises(LorelineError, match="with another configuration"):
        pushed(*documents, collection=COLLECTION)


def test_a_halfvec_is_indexed_up_to_4000_dimensions(connection, settings, pushed):
    wide = replace(COLLECTION, dimensions=4_000, storage="halfvec")
    documents = pages(1)
    pushed(*documents, collection=wide)
    assert len(search(connection, settings, None, embedding_of("page", 4_000))) == 3
    with pytest.raises(LorelineError, match=r"indexes a halfvec of 1 to 4000: keep fewer$"):
        replace(wide, dimensions=4_001)
    with pytest.raises(LorelineError, match=r"indexes a vector of 1 to 2000: .* as halfvec"):
        replace(wide, dimensions=2_001, storage="vector")
    with pytest.raises(LorelineError, match="stored as 'bit'"):
        replace(wide, storage="bit")


@pytest.mark.parametrize("seed", range(4))
def test_any_pushes_end_at_the_last_state_of_each_document_with_exact_counts(
    connection, settings, pushed, monkeypatch, seed
):
    monkeypatch.setattr(collections, "ROWS_PER_SWAP", 4)
    choices = random.Random(seed)
    words = ["apple", "pear", "plum", "cherry", "fig", "quince"]
    last: dict[str, Document] = {}
    for version in range(1, 8):
        touched = [
            Document(
                f"notion:{number}",
                tuple(" ".join(choices.choices(words, k=4)) for _ in range(choices.randrange(4))),
                version=choices.choice([1, version]),
                principals=tuple(choices.sample(["public", "ada", "ben"], 2)),
                title=choices.choice(words),
            )
            for number in choices.sample(range(12), choices.randrange(13))
        ]
        last |= {document.doc_id: document for document in touched}
        pushed(*touched)
        assert vector_rows(connection, settings) == expected_rows(COLLECTION, *last.values())
        counted, actual = lexeme_counts(connection, settings)
        assert counted == actual


def test_a_reader_sees_whole_documents_only(connection, settings, pushed, monkeypatch):
    monkeypatch.setattr(collections, "ROWS_PER_SWAP", 40)
    parts = {version: 2 + version % 3 for version in range(1, 9)}
    pushed(*pages(40, version=1, chunks=parts[1]))
    done = threading.Event()
    seen: list[dict[str, set]] = []
    problems: list[str] = []

    def read() -> None:
        with connect(settings, autocommit=True) as reader:
            while not done.is_set():
                hits = search(reader, settings, "page", embedding_of("page"), k=1_000)
                versions: dict[str, list[str]] = {}
                for hit in hits:
                    versions.setdefault(hit.doc_id, []).append(hit.document_version_id)
                seen.append({doc_id: set(of) for doc_id, of in versions.items()})
                if len(versions) != 40:
                    problems.append(f"{len(versions)} documents")
                for of in versions.values():
                    if len(set(of)) != 1 or len(of) != parts[int(of[0].rsplit("/")[-1])]:
                        problems.append(str(of))
                time.sleep(0.002)

    reading = threading.Thread(target=read)
    reading.start()
    for version in range(2, 9):
        pushed(*pages(40, version=version, chunks=parts[version]))
    done.set()
    reading.join()
    assert not problems
    assert len({str(sorted(state.items())) for state in seen}) > 3


def test_a_search_sees_the_snapshot_of_the_statement_that_calls_it(connection, settings, pushed):
    pushed(Document("notion:1", ("an old page",)))
    begun = threading.Event()
    texts: list[str] = []

    def read_slowly() -> None:
        query = (
            "select hit.text from (select pg_sleep(1)) as pause"
            f" cross join lateral {serving(settings)}.search('page', null) as hit"
        )
        with connect(settings, autocommit=True) as reader:
            begun.set()
            texts.extend(text for (text,) in reader.execute(query))

    reading = threading.Thread(target=read_slowly)
    reading.start()
    begun.wait()
    time.sleep(0.3)
    pushed(Document("notion:1", ("a new page",), version=2))
    reading.join()
    assert texts == ["an old page"]


def test_a_newer_configuration_takes_over_in_one_step(connection, settings, pushed):
    documents = pages(200)
    pushed(*documents)
    done = threading.Event()
    served: set[frozenset[str]] = set()

    def read() -> None:
        with connect(settings, autocommit=True) as reader:
            while not done.is_set():
                names = reader.execute(
                    f"select distinct vector_collection from {serving(settings)}.vector_rows"
                )
                served.add(frozenset(name for (name,) in names))
                assert search(reader, settings, "page", None)

    reading = threading.Thread(target=read)
    reading.start()
    pushed(*documents, collection=NEWER)
    done.set()
    reading.join()
    old, new = COLLECTION.vector_collection, NEWER.vector_collection
    assert served <= {frozenset({old}), frozenset({new})}
    assert {state.vector_collection: state.status for state in states(connection, settings)} == {
        old: "retired",
        new: "served",
    }
    assert vector_rows(connection, settings) == expected_rows(NEWER, *documents)


def test_a_retired_collection_is_revived_while_its_table_is_there_and_built_anew_after(
    connection, settings, pushed, found
):
    pushed(*pages(3))
    retire(connection, settings, COLLECTION.vector_collection)
    assert vector_rows(connection, settings) == {}
    with pytest.raises(LorelineError, match="default collection is not served"):
        found()
    with pytest.raises(LorelineError, match="collection small__sections__1111 is not served"):
        found(collection=COLLECTION.vector_collection)

    assert pushed_batch(connection, settings, COLLECTION) == 1
    assert pushed(Document("notion:00001")) == PushResult(documents=1, deleted=3)
    assert len(found()) == 6

    retire(connection, settings, COLLECTION.vector_collection)
    assert drop_retired(connection, settings) == []
    assert drop_retired(connection, settings, timedelta(0)) == [COLLECTION.vector_collection]
    assert pushed_batch(connection, settings, COLLECTION) is None
    assert pushed(*pages(2)) == PushResult(documents=2, inserted=6)
    counted, actual = lexeme_counts(connection, settings)
    assert counted == actual


def test_a_table_that_is_being_read_is_dropped_later(connection, settings, pushed):
    pushed(*pages(1))
    table = f"{serving(settings)}.chunks_{states(connection, settings)[0].table_number}"
    retire_others(connection, settings, [])
    with connect(settings) as reader:
        reader.execute(f"select count(*) from {table}")
        assert drop_retired(connection, settings, timedelta(0)) == []
    assert drop_retired(connection, settings, timedelta(0)) == [COLLECTION.vector_collection]


def test_only_one_collection_is_the_default(connection, settings, pushed):
    other = replace(
        COLLECTION, vector_collection="small__recursive__1", chunking_strategy="recursive"
    )
    pushed(*pages(1))
    pushed(*pages(1), collection=other)
    pushed(*pages(1), collection=replace(COLLECTION, is_default=False))
    assert {
        state.vector_collection: (state.status, state.is_default)
        for state in states(connection, settings)
    } == {
        other.vector_collection: ("served", True),
        COLLECTION.vector_collection: ("served", False),
    }
    assert retire_others(connection, settings, [other.vector_collection]) == [
        COLLECTION.vector_collection
    ]


def test_two_pushes_at_once_take_turns(connection, settings, pushed, monkeypatch):
    monkeypatch.setattr(collections, "ROWS_PER_SWAP", 30)
    pushed(*pages(60))
    results: list[PushResult] = []

    def push_second_version() -> None:
        with connect(settings) as own:
            rows = batches(*pages(60, version=2))
            results.append(push(own, settings, COLLECTION, rows, through_batch=9))

    pushes = [threading.Thread(target=push_second_version) for _ in range(2)]
    for thread in pushes:
        thread.start()
    for thread in pushes:
        thread.join()
    assert sorted(results, key=lambda result: result.inserted) == [
        PushResult(documents=60, unchanged=180),
        PushResult(documents=60, inserted=180, deleted=180),
    ]
    assert vector_rows(connection, settings) == expected_rows(COLLECTION, *pages(60, version=2))


def test_a_push_that_is_behind_another_changes_nothing(connection, settings, pushed):
    pushed(*pages(2, version=1))
    push(connection, settings, COLLECTION, batches(*pages(2, version=5)), through_batch=5)
    late = push(connection, settings, COLLECTION, batches(*pages(2, version=4)), through_batch=4)
    assert late == PushResult()
    assert vector_rows(connection, settings) == expected_rows(COLLECTION, *pages(2, version=5))


def test_changes_are_refused_by_a_collection_that_does_not_hold_what_they_build_on(
    connection, settings, pushed
):
    with pytest.raises(LorelineError, match="no longer holds batch 3"):
        push(connection, settings, COLLECTION, batches(*pages(1)), through_batch=4, since=3)
    pushed(*pages(1))
    with pytest.raises(LorelineError, match="no longer holds batch 3"):
        push(connection, settings, COLLECTION, batches(*pages(1)), through_batch=4, since=3)
    push(connection, settings, COLLECTION, batches(*pages(1)), through_batch=4, since=1)
    assert pushed_batch(connection, settings, COLLECTION) == 4


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda row: row | {"text": "a\0b"}, "refused a chunk of the documents notion:1"),
        (lambda row: row | {"embedding": [1.0]}, "chunk notion:1/2/1 has not 8 dimensions"),
        (lambda row: row | {"embedding": None}, "chunk notion:1/2/1 has not 8 dimensions"),
        (lambda row: row | {"embedding": [float("nan")] * 8}, "refused a chunk"),
        (lambda row: row | {"allowed_principals": None}, "cannot hold a chunk"),
        (lambda row: row | {"chunk_id": "notion:1/2/0"}, "cannot hold a chunk"),
        (lambda row: row | {"doc_id": "notion:0"}, "not ordered by document"),
        (lambda row: row | {"doc_id": None}, "names no document"),
    ],
)
@pytest.mark.parametrize("is_new", [True, False])
def test_a_row_that_cannot_be_held_is_named_and_nothing_changes(
    connection, settings, pushed, spoil, message, is_new
):
    if not is_new:
        pushed(Document("notion:1", ("a page", "another")))
    before = vector_rows(connection, settings)
    first, second = chunk_rows(Document("notion:1", ("new page", "new other"), version=2))
    rows = pa.Table.from_pylist([first, spoil(second)], schema=CHUNK_SCHEMA)
    with pytest.raises(LorelineError, match=message):
        push(connection, settings, COLLECTION, rows.to_batches(), through_batch=7)
    assert vector_rows(connection, settings) == before
    assert pushed_batch(connection, settings, COLLECTION) == (None if is_new else 1)
    push(connection, settings, COLLECTION, batches(*pages(1)), through_batch=8)


def test_other_misuse_is_refused_with_what_to_do(connection, settings, pushed):
    pushed(*pages(1))
    with pytest.raises(LorelineError, match="another configuration"):
        pushed(*pages(1), collection=replace(COLLECTION, config_hash="3333"))
    with pytest.raises(LorelineError, match="no text search configuration 'klingon'"):
        pushed(*pages(1), collection=replace(NEWER, text_search_config="klingon"))
    with pytest.raises(LorelineError, match="2001 dimensions"):
        replace(COLLECTION, dimensions=2001)
    without_text = [batch.drop_columns(["text"]) for batch in batches(*pages(1))]
    with pytest.raises(LorelineError, match="are not chunks"):
        push(connection, settings, COLLECTION, without_text, through_batch=9)
    with connect(settings) as busy:
        busy.execute("select 1")
        with pytest.raises(LorelineError, match="without an open transaction"):
            push(busy, settings, COLLECTION, batches(*pages(1)), through_batch=9)


def test_a_connection_is_given_back_as_it_was(settings):
    with connect(settings) as connection:
        push(connection, settings, COLLECTION, batches(*pages(1)), through_batch=1)
        assert not connection.autocommit
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        # Its own locks: other tests use the same server.
        held = "select count(*) from pg_locks where locktype = 'advisory' and pid = %s"
        with connect(settings, autocommit=True) as other:
            locks = other.execute(held, [connection.info.backend_pid])
            assert locks.fetchone() == (0,)


def kill_a_push(settings, tmp_path, collection, documents, through_batch, lines) -> int:
    """Push in another process, kill it after so many lines of progress, return how many came."""
    file = tmp_path / "rows.arrow"
    table = pa.Table.from_batches(batches(*documents))
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    identity = [
        collection.vector_collection,
        collection.embedding_model,
        collection.chunking_strategy,
        collection.config_hash,
    ]
    command = [sys.executable, "-c", PUSH_IN_A_PROCESS_OF_ITS_OWN, file, str(through_batch)]
    process = subprocess.Popen([*command, *identity], stdout=subprocess.PIPE, text=True)
    seen = 0
    while seen < lines and process.stdout.readline():
        seen += 1
    process.kill()
    process.communicate()
    return seen


def check_killed_pushes(connection, settings, tmp_path, choices, rounds):
    for number in range(rounds):
        name = f"small__sections__{number}"
        collection = replace(COLLECTION, vector_collection=name, config_hash=str(number))
        first, second = pages(1_000, version=1), pages(1_000, version=2)
        kill_a_push(settings, tmp_path, collection, first, 1, choices.randrange(12))
        before = vector_rows(connection, settings)
        assert before == expected_rows(collection, *first) or name not in {n for n, _ in before}
        push(connection, settings, collection, batches(*first), through_batch=1)
        assert vector_rows(connection, settings) == expected_rows(collection, *first)

        kill_a_push(settings, tmp_path, collection, second, 2, choices.randrange(4))
        push(connection, settings, collection, batches(*second), through_batch=2)
        assert vector_rows(connection, settings) == expected_rows(collection, *second)
        (state,) = (s for s in states(connection, settings) if s.status == "served")
        assert (state.vector_collection, state.row_count) == (name, 3_000)
        drop_retired(connection, settings, timedelta(0))
        counted, actual = lexeme_counts(connection, settings)
        assert counted == actual


def test_a_killed_push_is_made_up_for_by_the_next(connection, settings, tmp_path):
    check_killed_pushes(connection, settings, tmp_path, random.Random(1), rounds=3)


@pytest.mark.soak
def test_many_killed_pushes_are_made_up_for(connection, settings, tmp_path):
    check_killed_pushes(connection, settings, tmp_path, random.Random(2), rounds=30)


def test_an_index_build_that_was_killed_is_resumed_without_reading_the_rows_again(
    connection, settings, tmp_path
):
    documents = pages(1_500)
    # The rows are in after the fourth line: two of COPY are followed by the words and the table.
    kill_a_push(settings, tmp_path, COLLECTION, documents, 1, 5)
    with connect(settings, autocommit=True) as patient:
        result = push(patient, settings, COLLECTION, [], through_batch=1, since=1)
    assert result == PushResult()
    assert vector_rows(connection, settings) == expected_rows(COLLECTION, *documents)
