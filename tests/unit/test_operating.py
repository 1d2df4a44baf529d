"""What needs attention, how spans and progress are told, and the files that a retry reads."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlt_sources import SOURCES
from dlt_sources.json_files import Record, read_file
from dlt_sources.retry import file_of, resources_of, why_not
from loreline.cli import progress, status
from loreline.cli.times import minute, span
from loreline.operations.builds import Build
from loreline.operations.freshness import THRESHOLDS
from loreline.operations.overview import Attention, Collection, Overview, Source, attention
from loreline.operations.quarantine import Kept

NOW = datetime(2026, 10, 1, 12, tzinfo=UTC)
FINE = Source("notion", "fresh", 60.0, was_loaded=True, rows=3)


def build(**fields) -> Build:
    whole = {
        "invocation_id": "i",
        "command": "build",
        "selection": "",
        "started_at": NOW,
        "ended_at": NOW + timedelta(seconds=3),
        "failures": [],
        "tables": 2,
    }
    return Build(**whole | fields)


def failure(node: str) -> dict[str, str]:
    return {"node": node, "status": "error", "message": "no"}


def kept(**fields) -> Kept:
    return Kept(
        **{
            "fingerprint": "f",
            "source": "notion",
            "resource": "pages",
            "external_id": None,
            "reason": "wrong_type",
            "detail": "",
            "payload": "{}",
            "payload_uri": None,
            "origin": "",
            "landed_at": NOW,
            "observed_at": None,
            "source_updated_at": None,
        }
        | fields
    )


def test_where_all_is_well_nothing_needs_attention() -> None:
    served = [Collection("c", True, 3, 3, 2, 2)]
    assert attention(Overview([FINE], {"notion": 3}, served, [build()])) == []


@pytest.mark.parametrize(
    ("found", "what", "command"),
    [
        (Overview(), "nothing is landed yet", "loreline ingest --sample day_one"),
        (Overview([FINE]), "nothing is built yet", "loreline build"),
        (
            Overview([Source("slack", "late", 9.0, True, rows=1)], {}),
            "slack is late",
            "loreline ingest slack",
        ),
        (
            Overview([Source("slack", "late", 9.0, True, "no such folder", rows=1)], {}),
            "the last load of slack failed: no such folder",
            "loreline ingest slack",
        ),
        (
            Overview([FINE, Source("gateway", set_aside=1)], {}),
            "1 input set aside (gateway)",
            "loreline quarantine list",
        ),
        (
            Overview([FINE], {}, builds=[build(failures=[failure("model.loreline.chunks")])]),
            "1 failure in the last build: chunks",
            "loreline build",
        ),
        (
            Overview([FINE], {}, builds=[build(selection="a b+", ended_at=None, failures=None)]),
            "the last build has no end",
            "loreline build --select a b+",
        ),
        (
            Overview([FINE], {}, unread=["raw_a.x", "raw_a.y", "raw_a.z", "raw_b.x"]),
            "landed, but not built: raw_a.x, raw_a.y, raw_a.z and 1 more",
            "loreline build",
        ),
        (
            Overview([FINE], {}, collections=[Collection("c", True, 1_000, 999, 9, 9)]),
            "c serves 999 chunks, not 1,000",
            "loreline contents",
        ),
        (
            Overview([FINE], {}, collections=[Collection("c", True, 9, 9, 1_000, 999)]),
            "1 document of 1,000 not built in c",
            "loreline coverage --documents",
        ),
        (
            Overview([FINE], {}, fragmented=2),
            "2 tables in many small files",
            "loreline maintain",
        ),
    ],
)
def test_what_needs_attention_comes_with_a_command(
    found: Overview, what: str, command: str
) -> None:
    (only,) = attention(found)
    assert only.what.startswith(what)
    assert only.command == command


def test_hostile_text_is_shown_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    status._print_attention([Attention("failed: \x1b[2J" + "x" * 500, "loreline ingest a")])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\\x1b[2J" in shown
    assert max(map(len, shown.splitlines())) < 250


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (7_199, "1 h"),
        (86_400, "1 day"),
        (3e5, "3 days"),
    ],
)
def test_spans_are_said_in_their_largest_unit(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_times_are_shown_in_utc() -> None:
    assert minute(NOW.astimezone()) == "2026-10-01 12:00"
    assert minute(None) is None


def test_a_log_gets_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    told = progress._Log("reading", lambda: now)
    for now in (1.0, 9.0, 10.0, 11.0, 20.0):
        told(f"at\x1b {now:.0f}")
    assert capsys.readouterr().err == "reading: at\\x1b 10\nreading: at\\x1b 20\n"


def test_every_source_has_thresholds_or_says_that_it_has_none() -> None:
    with THRESHOLDS.open(newline="") as stream:
        assert {row["source"] for row in csv.DictReader(stream)} >= set(SOURCES)


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_the_tables_of_a_source_are_found_by_name(source: str) -> None:
    found = resources_of(source)
    assert found
    assert all(name == resource.name for name, resource in found.items())


@pytest.mark.parametrize(
    ("origin", "name", "content"),
    [
        ("a/b.json[3]", "a/b.json", b"[1]"),
        ("a.jsonl:17", "a.jsonl", b"1"),
        ("a.jsonl.gz:17", "a.jsonl", b"1"),
        ("a.jsonl:17[2]", "a.jsonl", b"[1]"),
        ("events.log:3", "events.log.jsonl", b"1"),
        ("answers[0]", "answers.json", b"[1]"),
        ("till/2026-10-01.json", "till/2026-10-01.json", b"1"),
        ("", "record.json", b"1"),
        ("export.json", "record.json", b"1"),
        ("x" * 300 + ".json", "x" * 195 + ".json", b"1"),
        ("/etc/../x.json", "etc/x.json", b"1"),
        ("..\\..\\x.json[1]", "x.json", b"[1]"),
    ],
)
def test_an_input_gets_a_file_like_its_own(origin: str, name: str, content: bytes) -> None:
    assert file_of(origin, b"1") == (name, content)


@given(st.text())
def test_no_origin_leads_out_of_the_folder(origin: str) -> None:
    name, _ = file_of(origin, b"")
    assert name
    assert not name.startswith("/")
    assert ".." not in name.split("/")


@pytest.mark.parametrize("origin", ["a.json[3]", "a.jsonl:2", "a.jsonl:2[1]", "a.json"])
def test_the_file_of_a_record_is_read_as_that_record(origin: str, tmp_path) -> None:
    name, content = file_of(origin, b'{"id":1}')
    path = tmp_path / name
    path.write_bytes(content)
    (document,) = read_file(path, name)
    records = list(document.records)
    assert all(isinstance(record, Record) for record in records)
    assert [record.value for record in records] == [{"id": 1}]


def test_what_cannot_be_read_alone_is_said_so() -> None:
    assert why_not(kept()) == ""
    assert "its blocks" in why_not(kept(reason="missing_children"))
    assert "log file" in why_not(kept(source="log_files", reason="invalid_utf8"))
    # A row that was refused for what it says is whole.
    assert why_not(kept(source="log_files", reason="contract: not_null")) == ""
