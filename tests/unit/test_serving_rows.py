"""How rows to push are regrouped into whole documents."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loreline.errors import LorelineError
from loreline.serving.rows import CHUNK_SCHEMA, live_rows, whole_documents

DOC_IDS = st.lists(st.sampled_from("abcdef"), max_size=30).map(sorted)


def as_batches(doc_ids: list[str], size: int) -> list[pa.RecordBatch]:
    rows = [{"doc_id": doc_id, "chunk_index": index} for index, doc_id in enumerate(doc_ids)]
    return pa.Table.from_pylist(rows, schema=CHUNK_SCHEMA).to_batches(size)


@given(DOC_IDS, st.integers(1, 7), st.integers(1, 7))
def test_every_row_comes_once_in_order_and_no_document_is_split(doc_ids, batch_size, least_rows):
    tables = list(whole_documents(as_batches(doc_ids, batch_size), least_rows))
    indexes = [index for table in tables for index in table["chunk_index"].to_pylist()]
    assert indexes == list(range(len(doc_ids)))
    documents = [set(table["doc_id"].to_pylist()) for table in tables]
    assert sum(len(group) for group in documents) == len(set().union(*documents))


@given(DOC_IDS, st.integers(1, 7))
def test_a_table_is_hardly_larger_than_asked_for(doc_ids, least_rows):
    longest = max((doc_ids.count(doc_id) for doc_id in doc_ids), default=0)
    for table in whole_documents(as_batches(doc_ids, 1), least_rows):
        assert table.num_rows < least_rows + longest + 1


def test_other_types_and_orders_of_columns_are_taken():
    columns = {name: pa.nulls(1) for name in reversed(CHUNK_SCHEMA.names)} | {
        "doc_id": pa.array(["a"], pa.large_string()),
        "chunk_index": pa.array([7], pa.int64()),
        "source_updated_at": pa.array([0], pa.timestamp("ns")),
        "embedding": pa.array([[1.5]], pa.list_(pa.float64(), 1)),
    }
    (table,) = whole_documents([pa.record_batch(columns)], 1)
    assert table.schema == CHUNK_SCHEMA
    assert table["embedding"].to_pylist() == [[1.5]]
    assert live_rows(table).num_rows == 0


@pytest.mark.parametrize("doc_ids", [["b", "a"], ["a", "b", "a"], ["a", None]])
@pytest.mark.parametrize("size", [1, 3])
def test_rows_in_disorder_are_refused(doc_ids, size):
    with pytest.raises(LorelineError):
        list(whole_documents(as_batches(doc_ids, size), 1))
