"""What is served: found where it drifts, and never of two configurations at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.exports import Page, write_notion
from tests.end_to_end.lakehouse import NO_TESTS, Lakehouse, Rows, replace_in, vectors
from tests.end_to_end.watching import searching_all_the_while

DRIFT_TEST = "assert_the_vector_store_holds_exactly_the_manifest"
REPAIR = ["build", "--select", "vector_collections", "--full-refresh"]

PAGES = {
    f"page {number}": Page(
        [
            f"Ledger {number}, entry {entry}: the {['cooper', 'thatcher', 'farrier'][entry % 3]}"
            f" was paid {number * 7 + entry} shillings for the {['barn', 'byre'][entry % 2]}'s"
            f" roof, door and yard, and for {entry + 2} days of travel over the hills and back."
            for entry in range(number + 4)
        ]
    )
    for number in range(12)
}


@pytest.fixture
def filled(own_lakehouse: Lakehouse, tmp_path: Path) -> Lakehouse:
    """A lakehouse that serves some pages."""
    export = write_notion(tmp_path / "export", "2026-10-06T00:00:00Z", PAGES)
    own_lakehouse.land("notion", export)
    own_lakehouse.build()
    own_lakehouse.check_contents()
    return own_lakehouse


def test_the_store_equals_the_manifest_and_drift_is_found_and_repaired(filled: Lakehouse) -> None:
    whole = filled.state()
    (collection,) = (state for state in filled.collections() if state.is_default)
    table = f"{{serving}}.chunks_{collection.table_number}"
    missing, text, readers, vector, copied = (
        row[0] for row in filled.execute(f"select chunk_id from {table} order by chunk_id limit 5")
    )
    filled.execute(f"delete from {table} where chunk_id = %s", missing)
    filled.execute(f"update {table} set text = text || ' not' where chunk_id = %s", text)
    filled.execute(
        f"update {table} set allowed_principals = '{{{{slack:U0}}}}' where chunk_id = %s", readers
    )
    filled.execute(
        f"update {table} set embedding = (select embedding from {table} where chunk_id = %s)"
        " where chunk_id = %s",
        copied,
        vector,
    )
    columns = ", ".join(
        name
        for (name,) in filled.execute(
            "select attname from pg_attribute where attrelid = %s::regclass and attnum > 1",
            f"{filled.settings.prefix}serving.chunks_{collection.table_number}",
        )
    )
    filled.execute(
        f"insert into {table} (chunk_id, {columns}) select 'x', {columns} from {table}"
        " where chunk_id = %s",
        copied,
    )

    found = next(c for c in filled.contents() if c.is_default)
    assert (found.missing, found.extra, found.different) == (1, 1, 3)
    shown = filled.command("contents")
    assert shown.exit_code == 1
    for drift in ("1 missing", "1 extra", "3 different"):
        assert drift in shown.output, shown
    assert f"loreline {' '.join(REPAIR)}" in shown.output
    with pytest.raises(AssertionError, match="Got 5 results, configured to fail"):
        filled.build("test", "--select", DRIFT_TEST)

    assert not filled.build(*REPAIR, *NO_TESTS).encoded
    filled.check_contents()
    assert filled.command("contents").exit_code == 0
    filled.build("test", "--select", DRIFT_TEST)
    assert filled.state() == whole


def chunking_of_served_rows(lakehouse: Lakehouse) -> Rows:
    """(collection, chunking configuration it should have, one that a row of it has)."""
    return lakehouse.query(
        "select distinct collections.vector_collection, collections.chunking_config_hash,"
        " chunks.config_hash"
        " from {pg}serving.vector_rows as held"
        " inner join {lake}serving.served_collections as collections using (vector_collection)"
        " left join {lake}knowledge.chunks as chunks on held.chunk_id = chunks.chunk_id"
    )


def check_nothing_is_mixed(lakehouse: Lakehouse) -> None:
    """Make sure that every collection holds chunks of its own configuration, and all of them."""
    lakehouse.check_contents()
    rows = chunking_of_served_rows(lakehouse)
    assert len(rows) == len(lakehouse.collections())
    assert all(expected == actual for _, expected, actual in rows), rows


@pytest.mark.soak
def test_a_variant_is_its_configuration_and_the_new_one_is_built_beside_the_old(
    filled: Lakehouse,
) -> None:
    strategies = filled.project / "seeds" / "chunking_strategies.csv"
    models = filled.project / "seeds" / "embedding_models.csv"
    first, other = sorted(filled.collections(), key=lambda state: not state.is_default)
    chunks = "select to_json(chunks) from {lake}knowledge.chunks as chunks"
    stored = "select text_hash, config_hash, vector_sha256 from {lake}embedding.text_embeddings"
    old_chunks, old_vectors = filled.query(chunks), filled.query(stored)
    hashes = [row[0] for row in old_vectors]
    anything = vectors(filled)[0]

    # Another length of chunks: they are cut anew, and only texts that are new are embedded.
    replace_in(
        strategies,
        "markdown_sections,markdown_sections,250",
        "markdown_sections,markdown_sections,90",
    )
    with searching_all_the_while(filled, [("public",)], "cooper", anything) as watches:
        shortened = filled.build()
    check_nothing_is_mixed(filled)
    second = next(state for state in filled.collections() if state.is_default)
    assert second.chunking_strategy == first.chunking_strategy
    assert second.vector_collection != first.vector_collection
    assert {state.vector_collection for state in filled.collections("retired")} == {
        first.vector_collection
    }
    assert other in filled.collections(), "the other strategy is served as it was"
    assert len(shortened.encoded) == len(set(shortened.encoded)) > 0
    assert not set(shortened.encoded) & set(hashes)
    assert set(old_chunks) < set(filled.query(chunks)), "the old slice stays as it was"
    configuration_of = dict(
        filled.query("select chunk_id, config_hash from {lake}knowledge.chunks")
    )
    (watch,) = watches.values()
    assert len(watch.sights) == 2, "searches saw the old collection, then the new one"
    for sight in watch.sights:
        assert len({configuration_of[chunk] for _, _, chunk in sight}) == 1
        assert len({document for document, _, _ in sight}) == len(PAGES)

    # Another revision of the model: all texts of today's chunks are embedded again, once.
    replace_in(models, "tiny-bert,main", "tiny-bert,v2")
    embedded_again = filled.build().encoded
    check_nothing_is_mixed(filled)
    wanted = filled.query(
        "select distinct text_hash from {lake}knowledge.chunks"
        " inner join {lake}knowledge.chunking_configurations using (config_hash)"
    )
    assert set(embedded_again) >= {text_hash for (text_hash,) in wanted}
    assert len(embedded_again) == len(set(embedded_again))
    per_configuration = filled.query(
        "select config_hash, count(*), count(distinct text_hash)"
        " from {lake}embedding.text_embeddings group by config_hash"
    )
    assert len(per_configuration) == 2
    assert all(texts == distinct for _, texts, distinct in per_configuration)
    assert set(old_vectors) < set(filled.query(stored)), "the old slice stays as it was"

    # Back to the first configurations: all is there already. And one that is no longer served.
    replace_in(models, "tiny-bert,v2", "tiny-bert,main")
    replace_in(strategies, "markdown_sections,90", "markdown_sections,250")
    replace_in(strategies, "1,served,2", "1,candidate,2")
    assert not filled.build().encoded
    check_nothing_is_mixed(filled)
    (again,) = filled.collections()
    assert again.vector_collection == first.vector_collection
    with pytest.raises(Exception, match="is not served"):
        filled.search("cooper", collection=other.vector_collection)
