"""Keys and tokens are masked before anything of them lands."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from dlt_sources import load
from dlt_sources.landing import Landing
from dlt_sources.masking import Masking
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation
from loreline.errors import LorelineError
from loreline.lake import duck
from loreline.postgres import connect, in_schema
from loreline.settings import Settings

NOW = datetime(2026, 11, 1, tzinfo=UTC)
# Put together here, so that nobody takes this file for one that leaks.
KEY = "sk-" + "a1B2c3D4e5F6g7H8i9J0k1"
PASSWORD = "hunter" + "2hunter2"


def note(text: str, **fields: object) -> Observation:
    return Observation("n1", {"id": "n1", "text": text, **fields}, NOW, raw=b"as received")


@pytest.fixture
def masking(settings: Settings) -> Masking:
    on = dataclasses.replace(settings, mask_secrets="true")
    with Landing(on, "notes") as landing:
        return landing._masking


@pytest.fixture
def masking_settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("LORELINE_MASK_SECRETS", "true")
    return Settings.load()


def test_texts_at_any_depth_are_masked_and_counted(masking: Masking) -> None:
    deep = {"blocks": [{"text": f"use {KEY} and {KEY}", "n": 1, "none": None}]}
    items = [note("mail ana@example.org", **deep), note(f"password = '{PASSWORD}'")]
    [first, second] = masking.masked(items)
    assert first.payload["blocks"] == [
        {"text": "use <API_KEY> and <API_KEY>", "n": 1, "none": None}
    ]
    assert first.payload["text"] == "mail ana@example.org"
    assert PASSWORD not in second.payload["text"]
    assert first.raw is None
    assert masking._counts["openai_key"] == 2


def test_rows_in_bulk_and_rejects_too(masking: Masking) -> None:
    rows = pa.table(
        {
            "external_id": ["1", "2"],
            "payload": [json.dumps({"b": KEY, "a": 1}), json.dumps({"b": "nothing"})],
            "observed_at": [NOW, NOW],
        }
    )
    [table, reject] = masking.masked([rows, Reject("broken_json", "no", f'{{"{KEY}'.encode(), "x")])
    assert table["payload"].to_pylist() == ['{"a":1,"b":"<API_KEY>"}', '{"b":"nothing"}']
    assert reject.raw == b'{"<API_KEY>'


def test_what_came_before_a_failure_comes(masking: Masking) -> None:
    def broken() -> Iterator[Observation]:
        yield note(KEY)
        raise LorelineError("it broke")

    masked = iter(masking.masked(broken()))
    assert next(masked).payload["text"] == "<API_KEY>"
    with pytest.raises(LorelineError, match="it broke"):
        next(masked)


def test_nothing_of_a_secret_lands(masking_settings: Settings, tmp_path: Path) -> None:
    settings = masking_settings
    file = tmp_path / "shop.log"
    file.write_text(f"2026-11-01 10:00:00 INFO key {KEY}\n")
    assert load(settings, "log_files", tmp_path).masked == {"openai_key": 1}
    with file.open("a") as stream:
        stream.write(f"2026-11-01 10:00:01 INFO again {KEY}\n")
    # It goes on where it was, although what landed is not what is in the file.
    load(settings, "log_files", tmp_path)
    assert load(settings, "log_files", tmp_path).rows == 0

    events = tmp_path / "events" / "events.jsonl"
    events.parent.mkdir()
    events.write_text(
        f'{{"id": "1", "source": "g", "type": "t", "data": {{"x": "{KEY}"}}}}\n{KEY}\n'
    )
    load(settings, "gateway", events)
    with duck.connect(settings) as lake:
        for table in ("raw_log_files.lines", "raw_gateway.events"):
            name = f"lake.{settings.prefix}{table}"
            texts = [row[0] for row in lake.execute(f"select payload from {name}").fetchall()]
            assert texts
            assert not [text for text in texts if KEY in text]
            assert [text for text in texts if "<API_KEY>" in text]
        lines = f"lake.{settings.prefix}raw_log_files.lines"
        written = lake.execute(
            f"select count(*) from {lines} where payload like '%again%'"
        ).fetchone()
    assert written == (1,)
    with connect(settings) as connection:
        kept = connection.execute(
            in_schema(settings, "operations", "select payload from {}.quarantine")
        ).fetchall()
    assert kept
    assert KEY not in str(kept)


def test_it_is_off_unless_it_is_asked_for(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "one.md").write_text(KEY)
    assert not load(settings, "incident_reports", tmp_path).masked
