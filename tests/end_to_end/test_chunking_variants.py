"""Ways of cutting beside each other: each is built by itself, and an edit costs what it changes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.end_to_end.exports import Channel, Message, Page, document_of, write_notion, write_slack
from tests.end_to_end.lakehouse import NO_TESTS, Lakehouse, replace_in

SEED = """\
chunking_strategy,algorithm,max_tokens,overlap_tokens,window_sentences,breakpoint_percentile,\
sentence_model,context,tokenizer,algorithm_version,status,priority
bare,recursive,64,0,,,,none,tiny-bert,1,served,1
titled,recursive,64,0,,,,title,tiny-bert,1,served,2
spoken,chat_messages,64,0,,,,title_and_path,tiny-bert,1,candidate,3
meant,semantic,64,0,2,80,tiny,none,tiny-bert,1,candidate,4
meant_too,semantic,48,0,1,80,tiny,none,tiny-bert,1,candidate,5
"""
KNOWLEDGE = ["--changed", *NO_TESTS, "--select", "+chunks", "text_embeddings", "vector_manifest"]
KNOWLEDGE += ["documents_current", "served_collections", "vector_collections"]

LEDGER = [
    f"Entry {entry} of the ledger is long. The {['cooper', 'thatcher'][entry % 2]} was paid"
    f" {entry + 7} shillings. He had asked for {entry + 9}."
    for entry in range(12)
]
PAGES = {"ledger": Page(LEDGER, title="Ledger"), "shelf": Page(["A shelf."], title="Shelf")}
SPEECH = "and so on, at some length, " * 60


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def land(lakehouse: Lakehouse, folder: Path, hour: int, pages: dict[str, Page]) -> None:
    exported_at = f"2026-10-06T{hour:02d}:00:00Z"
    lakehouse.land("notion", write_notion(folder / f"notion{hour}", exported_at, pages))


def rows_of(lakehouse: Lakehouse, strategy: str) -> list[tuple]:
    """Every column of every row, the numbers of its commit among them."""
    return lakehouse.query(
        "select to_json(chunks) from {lake}knowledge.chunks as chunks"
        " where chunking_strategy = $1 order by chunk_id",
        strategy,
    )


def embedded_of(lakehouse: Lakehouse, strategy: str, document: str) -> set[str]:
    """Hashes of what is embedded of the current version of a document."""
    rows = lakehouse.query(
        "select text_hash from {lake}knowledge.chunks"
        " inner join {lake}knowledge.documents_current using (document_version_id)"
        " where chunking_strategy = $1 and documents_current.doc_id = $2",
        strategy,
        document,
    )
    return {text_hash for (text_hash,) in rows}


@pytest.mark.soak
def test_variants_live_beside_each_other_and_cost_what_changes(
    own_lakehouse: Lakehouse, tmp_path: Path
) -> None:
    seed = own_lakehouse.project / "seeds" / "chunking_strategies.csv"
    seed.write_text(SEED)
    land(own_lakehouse, tmp_path, 0, PAGES)
    talk = [Message(0, "Is the till down?"), Message(60, SPEECH, "U0OTHER"), Message(90, "Ah.")]
    channel = Channel("C0TALK", talk, members=("U0AUTHOR", "U0OTHER"))
    own_lakehouse.land("slack", write_slack(tmp_path / "slack", "2026-10-06T00:00:00Z", [channel]))
    first = own_lakehouse.build()
    own_lakehouse.check_contents()
    assert len(own_lakehouse.collections()) == 2
    wrong = own_lakehouse.query(
        "select * from {lake}knowledge.chunks inner join {lake}knowledge.documents"
        " using (document_version_id)"
        " where substr(body, start_char, end_char - start_char + 1) <> text"
        " or text_hash <> sha256(context || text) or shown_text_hash <> sha256(text)"
    )
    assert not wrong
    parts = own_lakehouse.query(
        "select text, context from {lake}knowledge.chunks"
        " where chunking_strategy = 'spoken' and doc_id = $1 order by chunk_index",
        channel.document(talk[0]),
    )
    assert [context.splitlines()[-1] for _, context in parts[2:-1]] == ["u0other: "] * (
        len(parts) - 3
    )
    assert len(parts) > 5 and all("#" in context for _, context in parts)
    sentences = own_lakehouse.query(
        "select text_hash, embedding is not null from {lake}embedding.sentence_embeddings"
    )
    assert len(sentences) == len(dict(sentences)) and all(dict(sentences).values())
    assert digest("The cooper was paid 7 shillings.") in dict(sentences)
    # A sentence that is a chunk too is embedded as both; everything else once.
    repeated = {text for text in first.encoded if first.encoded.count(text) > 1}
    assert repeated <= set(dict(sentences))
    assert all(first.encoded.count(text) == 2 for text in repeated)
    places = {
        strategy: own_lakehouse.query(
            "select doc_id, start_char, end_char from {lake}knowledge.chunks"
            " where chunking_strategy = $1 order by all",
            strategy,
        )
        for strategy in ("bare", "spoken", "meant", "meant_too")
    }
    assert len({str(found) for found in places.values()}) == 4

    # Another title: what is embedded with it is embedded again, and nothing else.
    ledger = document_of("ledger")
    bare = embedded_of(own_lakehouse, "bare", ledger)
    land(own_lakehouse, tmp_path, 1, PAGES | {"ledger": Page(LEDGER, title="Day book")})
    retitled = own_lakehouse.build(*KNOWLEDGE).encoded
    own_lakehouse.check_contents()
    assert embedded_of(own_lakehouse, "bare", ledger) == bare
    in_context = (embedded_of(own_lakehouse, strategy, ledger) for strategy in ("titled", "spoken"))
    assert set(retitled) == set().union(*in_context)

    # Another sentence: its own vector, and those of the chunks around it.
    edited = [*LEDGER[:5], LEDGER[5].replace("shillings", "crowns"), *LEDGER[6:]]
    land(own_lakehouse, tmp_path, 2, PAGES | {"ledger": Page(edited, title="Day book")})
    before = set(dict(sentences))
    own_lakehouse.build(*KNOWLEDGE)
    own_lakehouse.check_contents()
    after = own_lakehouse.query("select text_hash from {lake}embedding.sentence_embeddings")
    assert {text_hash for (text_hash,) in after} - before == {
        digest("The thatcher was paid 12 crowns.")
    }

    # Another configuration of one: the others keep their rows, to the number of the commit.
    others = {name: rows_of(own_lakehouse, name) for name in ("bare", "spoken", "meant")}
    collections = {state.vector_collection for state in own_lakehouse.collections()}
    replace_in(seed, "titled,recursive,64", "titled,recursive,48")
    own_lakehouse.build(*KNOWLEDGE)
    own_lakehouse.check_contents()
    assert {name: rows_of(own_lakehouse, name) for name in others} == others
    assert (
        len({state.vector_collection for state in own_lakehouse.collections()} & collections) == 1
    )

    own_lakehouse.build("test", "--select", "chunks", "sentence_embeddings", "vector_manifest")
    replace_in(seed, "meant,semantic,64,0,2,80,tiny", "meant,semantic,64,0,2,80,nobody")
    failed = own_lakehouse.start_build(*KNOWLEDGE).result()
    assert "names the sentence_model 'nobody'" in failed.faults["chunks"]
