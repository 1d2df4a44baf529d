"""Input that was landed to its end is not read again, until a byte of it differs."""

import json
from collections import Counter
from pathlib import Path

import pytest

import dlt_sources
from dlt_sources import pipeline
from loreline.settings import Settings


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts how often a source is asked for its content."""
    counts: Counter[str] = Counter()
    gateway = pipeline.SOURCES["gateway"]

    def counted(*arguments, **options):
        counts["gateway"] += 1
        return gateway(*arguments, **options)

    monkeypatch.setitem(pipeline.SOURCES, "gateway", counted)
    return counts


def write_events(folder: Path, *texts: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "export.json").write_text(json.dumps({"exported_at": "2026-10-01T00:00:00Z"}))
    event = {"source": "gateway", "type": "llm.chat.completed", "time": "2026-09-30T10:00:00Z"}
    lines = [json.dumps({**event, "id": text, "data": {"turn_id": text}}) for text in texts]
    (folder / "events.jsonl").write_text("\n".join([*lines, "{broken"]))


def test_the_same_input_is_read_once(
    settings: Settings, tmp_path: Path, reads: Counter[str]
) -> None:
    write_events(tmp_path / "in", "a", "b")
    first = dlt_sources.load(settings, "gateway", tmp_path / "in")
    second = dlt_sources.load(settings, "gateway", tmp_path / "in")
    assert (first.rows, second.rows, second.unchanged) == (2, 0, 2)
    assert second.quarantined == first.quarantined == Counter(broken_json=1)
    assert reads["gateway"] == 1


def test_another_byte_is_another_input(
    settings: Settings, tmp_path: Path, reads: Counter[str]
) -> None:
    write_events(tmp_path / "in", "a")
    dlt_sources.load(settings, "gateway", tmp_path / "in")
    write_events(tmp_path / "in", "a", "b")
    assert dlt_sources.load(settings, "gateway", tmp_path / "in").rows == 1
    assert reads["gateway"] == 2


def test_again_reads_what_was_landed(
    settings: Settings, tmp_path: Path, reads: Counter[str]
) -> None:
    write_events(tmp_path / "in", "a")
    dlt_sources.load(settings, "gateway", tmp_path / "in")
    assert dlt_sources.load(settings, "gateway", tmp_path / "in", again=True).unchanged == 1
    assert reads["gateway"] == 2
