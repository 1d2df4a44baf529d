"""Files of a dataset: one for each split, the same bytes each time, every row in its place."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loreline.datasets import exports
from loreline.datasets.exports import Source
from loreline.errors import LorelineError
from loreline.lake import duck
from loreline.lake.commits import Writer, locked

WRITER = Writer("invocation", "dataset", "1.0+abc")
MESSAGES = '[{"role": "user", "content": "a"}]'


@pytest.fixture
def written(settings, tmp_path):
    """Write rows as files; gives what was written, and the folder."""
    calls = iter(range(100))

    def call(rows, where=""):
        name, folder = f"{settings.prefix}datasets.t{next(calls)}", tmp_path / str(next(calls))
        with locked(settings, name) as table:
            snapshot_id = table.append(rows, WRITER).snapshot_id
        with duck.connect(settings) as connection:
            return exports.write(Source(connection, name, snapshot_id, where), folder), folder

    return call


def table(count=6, **columns):
    """Rows in reverse order, with columns replaced or added."""
    given = {
        "example_id": [f"e{n:06d}" for n in reversed(range(count))],
        "split": ["train" if n % 2 else "test" for n in range(count)],
    }
    return pa.table(given | columns)


def test_many_rows_are_the_same_bytes_however_they_were_stored(written):
    count = exports.ROWS_PER_GROUP * 2 + 1_001
    rows = table(count, split=["train"] * count, text=[f"text {n}" for n in reversed(range(count))])
    one, folder = written(rows)
    other, _ = written(rows.take(pa.array(sorted(range(count), key=lambda n: n * 7919 % count))))
    assert one == other
    assert one.row_count == count
    file = pq.ParquetFile(folder / "parquet" / "train.parquet")
    groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert groups == [exports.ROWS_PER_GROUP, exports.ROWS_PER_GROUP, 1_001]
    lines = [json.loads(line) for line in (folder / "jsonl" / "train.jsonl").open()]
    assert lines == file.read().to_pylist()
    changed, _ = written(rows.set_column(2, "text", [["other"] * count]))
    assert changed.content_sha256 != one.content_sha256


def test_values_of_all_kinds_are_kept(written):
    kinds = {
        "at": [datetime(2026, 10, 1, 9, 30, 0, 5)] * 6,
        "price": [Decimal("1.50")] * 6,
        "tags": [["b", None, "a"], [], None] * 2,
        "nested": [{"x": 1, "y": None}, {"x": 1, "y": None}, {"x": 1, "y": "z"}] * 2,
        "flag": [True, False, None] * 2,
        "text": ["\u0000 \u202e 🙂 \r\n\u2028"] * 6,
    }
    _, folder = written(table(**kinds))
    back = pq.read_table(folder / "parquet" / "test.parquet").to_pylist()[0]
    assert back["at"] == kinds["at"][0] and back["price"] == Decimal("1.50")
    lines = (folder / "jsonl" / "test.jsonl").read_bytes().split(b"\n")[:-1]
    assert len(lines) == 3
    line = json.loads(lines[0])
    assert (line["at"], line["price"]) == ("2026-10-01T09:30:00.000005", "1.50")
    assert line["text"] == kinds["text"][0] and line["nested"]["x"] == 1


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"split": ["train"] * 5 + [None]}, "1 rows have no example_id or no split"),
        ({"example_id": ["a", "b", "c", "d", "e", None]}, "1 rows have no example_id"),
        ({"example_id": ["a", "b", "c", "d", "e", "e"]}, "1 rows repeat the example_id"),
        ({"split": ["train"] * 5 + [""]}, "'' cannot be the name"),
        ({"split": ["train"] * 5 + ["../up"]}, "'../up' cannot be the name"),
        ({"partition": ["forget"] * 5 + [None]}, "None cannot be the name"),
        ({"messages": [MESSAGES] * 5 + ["text"]}, "messages of example e000000 is no list"),
    ],
)
def test_a_row_that_fits_nowhere_is_refused(written, columns, why):
    with pytest.raises(LorelineError, match=why):
        written(table(**columns))


def test_what_is_no_dataset_is_refused(written):
    with pytest.raises(LorelineError, match="has no column split"):
        written(pa.table({"example_id": ["a"]}))


def test_a_text_that_looks_like_messages_stays_text(written):
    _, folder = written(table(prompt=["What?", "Why?", MESSAGES, "[]", None, "How?"]))
    texts = pq.read_table(folder / "parquet")["prompt"]
    assert texts.type == pa.string()
    assert MESSAGES in texts.to_pylist()


def test_sides_never_meet(written):
    _, folder = written(table(partition=["forget", "retain", "forget"] * 2, split=["all"] * 6))
    for side, count in (("forget", 4), ("retain", 2)):
        lines = (folder / "jsonl" / f"{side}-all.jsonl").read_text().splitlines()
        assert [json.loads(line)["partition"] for line in lines] == [side] * count


def test_a_condition_that_ends_in_a_comment_chooses_no_more(written):
    found, _ = written(table(), where="split = 'test' -- and nothing else")
    assert {file.split for file in found.files} == {"test"}
    assert found.row_count == 3
