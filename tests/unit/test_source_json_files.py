"""Broken JSON: what is wrong is set aside with its bytes, everything else is read."""

import gzip
import io
import mmap
import random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlt_sources import json_files
from dlt_sources.json_files import BadRecord, Record, parse, read_document, read_file, read_lines
from dlt_sources.quarantine import Reject
from loreline.errors import LorelineError

BAD = [
    (b'{"id": "x", }', "broken_json"),
    (b'{"id": "x"', "broken_json"),
    (b"not json", "broken_json"),
    (b'{"id": NaN}', "broken_json"),
    (b'{"id": 1e999}', "broken_json"),
    (b'{"id": "\xff"}', "invalid_utf8"),
    (b'{"id": "\\ud83d"}', "invalid_utf8"),
    (b'{"id": "a\x00b"}', "nul_byte"),
    (b'{"id": "a\\u0000b"}', "nul_byte"),
    (b'{"a": [{"b\\u0000": 1}]}', "nul_byte"),
    (b'{"id": "x", "id": 5}', "duplicate_key"),
    (b'{"in": {"id": "x", "id": "y"}}', "duplicate_key"),
    (b'{"i\\u003ad": 1, "i\\u003ad": "1", "b":2}', "duplicate_key"),
    (b'{"id": true, "id": 1}', "duplicate_key"),
]
GOOD = [
    (b'{"id": "x", "id": "x"}', {"id": "x"}),
    (b'{"path": "C:\\\\u0000"}', {"path": "C:\\u0000"}),
    (b' {"a" : "\\u003a\\u00fc" } ', {"a": ":ü"}),
    (b'{"emoji": "\\ud83d\\ude00"}', {"emoji": "😀"}),
    (b"[]", []),
]


@pytest.mark.parametrize(("raw", "reason"), BAD)
def test_a_bad_text_has_a_reason(raw, reason):
    with pytest.raises(BadRecord) as caught:
        parse(raw)
    assert caught.value.reason == reason
    assert caught.value.detail


@pytest.mark.parametrize(("raw", "value"), GOOD)
def test_an_unusual_text_is_read(raw, value):
    assert parse(raw) == value


def test_a_field_may_have_ten_mebibytes_and_no_more():
    most = "ü" * (json_files.MAX_FIELD_BYTES // 2)
    assert parse(orjson.dumps({"a": most})) == {"a": most}
    with pytest.raises(BadRecord) as caught:
        parse(orjson.dumps({"a": most + "x"}))
    assert caught.value.reason == "field_too_large"
    assert parse(orjson.dumps({"a": most, "b": most}))["b"] == most


@pytest.mark.parametrize("depth", [130, 2_000, 200_000])
def test_endless_nesting_is_set_aside(depth):
    raw = b'{"a":' * depth * 2 + b"1" + b"}" * depth * 2
    with pytest.raises(BadRecord) as caught:
        parse(raw)
    assert caught.value.reason in ("nested_too_deep", "broken_json")


def records(raw, origin="f.json"):
    return list(read_document(raw, origin).records)


def values(items):
    return [item.value for item in items if isinstance(item, Record)]


def rejects(items):
    return [item for item in items if isinstance(item, Reject)]


@pytest.mark.parametrize(("bad", "reason"), BAD[4:])
@pytest.mark.parametrize("around", [b"[%s]", b'{"object": "list", "results": [%s], "n": 1}'])
def test_a_bad_element_leaves_its_neighbours_alone(bad, reason, around):
    raw = around % b", ".join([b'{"id": 1}', bad, b'{"id": "]}"}', b"2"])
    found = records(raw)
    assert values(found) == [{"id": 1}, {"id": "]}"}, 2]
    assert [(r.reason, r.raw, r.origin) for r in rejects(found)] == [(reason, bad, "f.json[1]")]


def test_the_header_of_a_list_answer_survives_a_bad_element():
    raw = b'{"object": "list", "results": [{"a": 1}, {"a": NaN}], "next_cursor": "c"}'
    document = read_document(raw, "f")
    assert document.is_list
    assert document.header == {"object": "list", "next_cursor": "c"}
    whole = read_document(b'{"object": "list", "results": [], "has_more": false}', "f")
    assert whole.is_list and whole.header["has_more"] is False


def test_a_broken_header_says_that_there_may_be_more():
    assert read_document(b'{"results": [{"a": 1}], "x": }', "f").header == {"has_more": True}


def test_a_file_that_breaks_off_gives_what_came_before():
    found = records(b'[{"a": 1}, {"a": 2}, {"a": "unfin')
    assert values(found) == [{"a": 1}, {"a": 2}]
    assert rejects(found)[0].raw == b'{"a": "unfin'


def test_one_object_is_one_record():
    assert values(records(b'\xef\xbb\xbf{"id": "x", "results": 3}')) == [{"id": "x", "results": 3}]
    assert rejects(records(b'{"id": '))[0].raw == b'{"id":'


ELEMENTS = st.lists(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
    .map(lambda value: orjson.dumps(value) if _is_writable(value) else b"0")
    .filter(lambda text: b"\\u0000" not in text),
    max_size=6,
)


def _is_writable(value):
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


@given(ELEMENTS, st.integers(0, 6))
def test_elements_read_one_by_one_are_those_read_together(elements, at):
    whole = b"[" + b" ,\n".join(elements) + b"]"
    broken = [*elements]
    broken.insert(at, b'{"x": NaN}')
    together = values(records(whole))
    one_by_one = records(b"[" + b" ,\n".join(broken) + b"]")
    assert values(one_by_one) == together == [orjson.loads(e) for e in elements]
    assert len(rejects(one_by_one)) == 1


@given(st.binary(max_size=200), st.integers())
def test_no_bytes_are_lost_and_nothing_raises(noise, seed):
    good = [orjson.dumps({"id": n}) for n in range(5)]
    place = random.Random(seed).randrange(6)
    raw = b"[" + b",".join(good[:place]) + noise + b",".join(good[place:]) + b"]"
    for item in records(raw):
        assert isinstance(item, Record | Reject)
        if isinstance(item, Reject):
            assert item.raw in raw


def test_a_large_file_is_read_element_by_element(tmp_path):
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.write(b'{"object": "list", "results": [')
        for n in range(12):
            file.write(orjson.dumps({"id": n, "text": "x" * 1024 * 1024}) + b",")
        file.write(b'{"id": 12}], "has_more": false}')
    for document in read_file(path, "large.json"):
        assert document.header == {"object": "list", "has_more": False}
        assert [record.value["id"] for record in document.records] == list(range(13))


def test_a_record_beyond_all_limits_is_set_aside_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(json_files, "MAX_RECORD_BYTES", 100)
    long = orjson.dumps({"a": "y" * 250})
    lines = list(read_lines(io.BytesIO(b'{"a":1}\n' + long + b'\n{"a":2}\n'), "f"))
    assert [line for line in lines if not isinstance(line, Reject)] == [
        (b'{"a":1}', "f:1"),
        (b'{"a":2}', "f:3"),
    ]
    assert b"".join(r.raw for r in rejects(lines)).strip() == long
    monkeypatch.setattr(json_files, "MAX_FIELD_BYTES", 100)
    found = records(b"[" + long + b',{"a":1}]')
    assert b"".join(r.raw for r in rejects(found)) == long
    assert values(found) == [{"a": 1}]


def test_lines_keep_their_numbers(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a":1}\n\n{"a"\r\n{"a":2}')
    documents = list(read_file(path, "a.jsonl"))
    found = [item for document in documents for item in document.records]
    assert values(found) == [{"a": 1}, {"a": 2}]
    assert [(r.raw, r.origin) for r in rejects(found)] == [(b'{"a"', "a.jsonl:3")]


def test_a_truncated_gzip_gives_its_lines_and_keeps_its_bytes(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    content = b"".join(b'{"a":%d}\n' % n for n in range(20_000))
    packed = gzip.compress(content)
    path.write_bytes(packed[: len(packed) // 2])
    found = list(read_file(path, "a.jsonl.gz"))
    assert found[-1].reason == "broken_archive"
    assert found[-1].raw == packed[: len(packed) // 2]
    assert len(found) > 1_000


def test_an_empty_file_is_told(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"")
    assert [item.reason for item in read_file(path, "a.json")] == ["broken_json"]


def test_a_mapped_file_is_read_like_bytes(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'[{"a": 1}, {"a": NaN}, {"a": 2}]')
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as m:
        assert values(records(m)) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    "text", ['{"exported_at": "soon"}', "{}", "[]", "", '{"exported_at": 5}', "{"]
)
def test_an_export_file_without_a_time_is_an_error(text):
    with pytest.raises(LorelineError, match="does not say when"):
        json_files.exported_at(text.encode(), "export.json")
