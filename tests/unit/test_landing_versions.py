"""What makes a version: hashes see what matters, and nothing else."""

import hashlib
import random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlt_sources.versions import (
    ABSENT_TIME,
    Resource,
    canonical_json,
    json_hash,
    microseconds,
    row_id,
)

SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=20,
)
OBJECTS = st.dictionaries(st.text(max_size=8), VALUES, max_size=6)


def shuffled(value, shuffle):
    if isinstance(value, dict):
        keys = list(value)
        shuffle(keys)
        return {key: shuffled(value[key], shuffle) for key in keys}
    if isinstance(value, list):
        return [shuffled(item, shuffle) for item in value]
    return value


@given(OBJECTS, st.integers())
def test_the_order_of_keys_does_not_matter(value, seed):
    other = shuffled(value, random.Random(seed).shuffle)
    assert json_hash(other) == json_hash(value)


@given(VALUES, VALUES)
def test_only_equal_values_have_equal_hashes(one, other):
    # True == 1 in Python and not in JSON, so the texts are compared.
    assert (json_hash(one) == json_hash(other)) == (canonical_json(one) == canonical_json(other))
    assert (canonical_json(one) == canonical_json(other)) == (
        orjson.dumps(one, option=orjson.OPT_SORT_KEYS)
        == orjson.dumps(other, option=orjson.OPT_SORT_KEYS)
    )


def test_canonical_json_is_sorted_compact_utf8():
    value = {"b": [1, 2.5, None], "ä": {"z": "ü", "y": True}}
    text = canonical_json(value)
    assert text == '{"b":[1,2.5,null],"ä":{"y":true,"z":"ü"}}'.encode()
    assert json_hash(value) == hashlib.sha256(text).hexdigest()


@given(OBJECTS, VALUES, VALUES)
def test_volatile_fields_are_in_no_hash(payload, one, other):
    resource = Resource("things", volatile=("request_id", "inner.**.seen"))
    before = {**payload, "request_id": one, "inner": [{"x": {"seen": one, "y": 1}}]}
    after = {**payload, "request_id": other, "inner": [{"x": {"seen": other, "y": 1}}]}
    without = {**payload, "inner": [{"x": {"y": 1}}]}
    without.pop("request_id", None)
    assert resource.hashes(before) == resource.hashes(after) == resource.hashes(without)


@given(OBJECTS, st.text(max_size=5), st.text(max_size=5))
def test_metadata_is_in_its_own_hash_alone(payload, one, other):
    resource = Resource("things", metadata=("page.url",))
    content_1, metadata_1 = resource.hashes({**payload, "page": {"url": one, "title": "T"}})
    content_2, metadata_2 = resource.hashes({**payload, "page": {"url": other, "title": "T"}})
    assert content_1 == content_2
    assert (metadata_1 == metadata_2) == (one == other)


@given(OBJECTS)
def test_hashing_leaves_the_payload_alone(payload):
    resource = Resource("things", volatile=("a.b", "**.c"[3:]), metadata=("d",))
    before = orjson.dumps(payload)
    resource.hashes(payload)
    assert orjson.dumps(payload) == before


def test_a_path_names_one_place_and_two_stars_any():
    exact = Resource("things", volatile=("a.seen",))
    assert exact.hashes({"a": {"seen": 1}}) == exact.hashes({"a": {"seen": 2}})
    assert exact.hashes({"b": {"seen": 1}}) != exact.hashes({"b": {"seen": 2}})
    anywhere = Resource("things", volatile=("**.seen",))
    deep_1 = {"b": [{"c": {"seen": 1}}]}
    deep_2 = {"b": [{"c": {"seen": 2}}]}
    assert anywhere.hashes(deep_1) == anywhere.hashes(deep_2)


SIGNED = [
    "https://s3.example/f.png?X-Amz-Algorithm=AWS4&X-Amz-Signature={}&x-id=GetObject",
    "https://files.slack.com/files-pri/T1-F1/f.png?t=xoxe-{}",
    "https://storage.example/f?GoogleAccessId=a&Expires={}&Signature=b",
    "https://blob.example/f?sv=2024&sig={}",
]


@pytest.mark.parametrize("url", SIGNED)
def test_a_new_signature_is_no_change_and_another_file_is(url):
    old, new = url.format("111"), url.format("222")
    assert json_hash({"file": {"url": old}}) == json_hash({"file": {"url": new}})
    assert json_hash({"text": f"see {old} and"}) == json_hash({"text": f"see {new} and"})
    assert json_hash({"text": f"see {old} or"}) != json_hash({"text": f"see {new} and"})
    assert json_hash({"url": old.replace("/f", "/g")}) != json_hash({"url": new})


def test_an_ordinary_query_is_content():
    assert json_hash({"url": "https://x.example/?q=1"}) != json_hash(
        {"url": "https://x.example/?q=2"}
    )


def test_the_expiry_of_a_signed_url_is_no_change():
    file = {"url": "https://s3.example/f.png?X-Amz-Signature=1", "expiry_time": "2026-01-01"}
    later = {"url": "https://s3.example/f.png?X-Amz-Signature=2", "expiry_time": "2026-01-02"}
    assert json_hash({"file": file}) == json_hash({"file": later})
    assert json_hash({"expiry_time": "2026-01-01"}) != json_hash({"expiry_time": "2026-01-02"})


@given(st.lists(st.text(max_size=5), min_size=6, max_size=6), st.integers(0, 5))
def test_a_row_id_names_everything_that_a_version_is(parts, changed):
    def identity(values):
        table, external_id, content, metadata, deleted, time = values
        seen_at, changed_at = len(time), len(time) % 2
        return row_id(table, external_id, content, metadata, bool(deleted), seen_at, changed_at)

    assert identity(parts) == identity(list(parts))
    other = [*parts]
    other[changed] += "x"
    if changed != 4 or not parts[4]:
        assert identity(other) != identity(parts)


def test_a_repeated_version_has_an_id_of_its_own():
    version = ("t", "x", "c", "m", False, 1, 2)
    ids = {row_id(*version, repetition) for repetition in range(3)}
    assert len(ids) == 3
    assert row_id(*version) in ids


def test_times_are_microseconds_of_utc(tmp_path):
    from datetime import UTC, datetime, timedelta, timezone

    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert microseconds(moment) == 1767323045678901
    assert microseconds(moment.replace(tzinfo=None)) == 1767323045678901
    assert microseconds(moment.astimezone(timezone(timedelta(hours=5)))) == 1767323045678901
    assert microseconds(None) == ABSENT_TIME < microseconds(datetime(1, 1, 1, tzinfo=UTC))
