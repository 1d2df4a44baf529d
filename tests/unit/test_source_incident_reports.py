"""Incident reports: front matter as texts, whatever YAML would make of them."""

from datetime import UTC, datetime

import pytest

from dlt_sources.incident_reports import reports
from dlt_sources.incident_reports.front_matter import BadReport, read_report
from dlt_sources.quarantine import Reject

NOW = datetime(2026, 10, 1, tzinfo=UTC)


def test_values_are_what_was_written() -> None:
    fields, body = read_report(
        b"\xef\xbb\xbf---\r\nid: INC-41\r\nstarted_at: 2026-09-17T11:40:00Z\r\ncountry: no\r\n"
        b"cost: 1e3\r\nresolved_at: ~\r\nservices: [till, gatehouse]\r\n"
        b"owner: {name: Ana}\r\n---\r\n\r\n# Down\r\n"
    )
    assert fields == {
        "id": "INC-41",
        "started_at": "2026-09-17T11:40:00Z",
        "country": "no",
        "cost": "1e3",
        "services": ["till", "gatehouse"],
        "owner": {"name": "Ana"},
    }
    assert body == "\n# Down\n"


def test_front_matter_may_be_empty_or_absent() -> None:
    assert read_report(b"---\n---\ntext") == ({}, "text")
    assert read_report(b"# A title\n\n---\na: b\n---\n") == ({}, "# A title\n\n---\na: b\n---\n")
    assert read_report(b"") == ({}, "")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"---\nid: [a\n---\n", "broken_yaml"),
        (b"---\nid: a\n", "broken_yaml"),
        (b"---\nid: a\nid: b\n---\n", "broken_yaml"),
        (b"---\na: &a [x]\nb: *a\n---\n", "broken_yaml"),
        (b"---\n? [a]\n: b\n---\n", "broken_yaml"),
        (b"---\nx: " + b"[" * 5000 + b"\n---\n", "broken_yaml"),
        (b"---\n- a\n- b\n---\n", "wrong_type"),
        (b"---\nid: \xff\n---\n", "invalid_utf8"),
        (b"---\nid: a\0\n---\n", "nul_byte"),
    ],
)
def test_what_is_no_report_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(BadReport) as refused:
        read_report(raw)
    assert refused.value.reason == reason


def test_yaml_makes_no_objects() -> None:
    fields, _ = read_report(b'---\nid: !!python/object/apply:os.system ["true"]\n---\n')
    assert fields == {"id": ["true"]}


def test_the_id_is_the_files_name_where_there_is_none(tmp_path) -> None:
    written = {
        "INC-1.md": b"text",
        "b.md": b"---\nid: INC-2\nupdated_at: 2026-09-20T10:00:00Z\ndeleted: true\n---\n",
        "c.md": b"---\nid: INC-2\n---\n",
    }
    for name, content in written.items():
        (tmp_path / name).write_bytes(content)
    one, two, twice = reports([(tmp_path / name, name) for name in written], NOW)
    assert (one.external_id, one.is_deleted) == ("INC-1", False)
    assert (two.external_id, two.is_deleted) == ("INC-2", True)
    assert two.source_updated_at == datetime(2026, 9, 20, 10, tzinfo=UTC)
    assert isinstance(twice, Reject)
    assert (twice.reason, twice.external_id) == ("duplicate_id", "INC-2")
    assert "b.md" in twice.detail
