"""Whom a search is for, which snapshot a past one reads, and how a hit is shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import duckdb
import pytest

from loreline.cli import people
from loreline.cli.hits import explanation, print_passage
from loreline.cli.search_as_of import snapshot_at
from loreline.errors import LorelineError
from loreline.serving.answers import Passage
from loreline.serving.search import Hit
from loreline.settings import Settings

SETTINGS = Settings()
ACCOUNTS = [
    ("slack", "U1", "Inês Carvalho", "ines@example.com", "ines", False),
    ("notion", "n-1", "Inês Carvalho", "ines@example.com", None, False),
    ("slack", "U2", "Sam", "sam.lee@example.com", "sam", False),
    ("slack", "U3", "Sam", "sam.roe@example.com", "samr", False),
    ("slack", "U4", "Deploy bot", None, "deploy", False),
    ("slack", "U5", "Deploy bot", None, "deploy2", False),
    ("slack", "U6", "Gone", "gone@example.com", "gone", True),
]


@pytest.fixture(scope="module")
def lake() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("attach ':memory:' as lake")
        connection.execute("create schema lake.knowledge")
        connection.execute(
            "create table lake.knowledge.people (source varchar, external_id varchar,"
            " principal varchar, name varchar, email varchar, handle varchar, is_deleted boolean)"
        )
        for source, external_id, *others in ACCOUNTS:
            row = [source, external_id, f"{source}:{external_id}", *others]
            connection.execute(
                "insert into lake.knowledge.people values (?, ?, ?, ?, ?, ?, ?)", row
            )
        yield connection


@pytest.mark.parametrize(
    "asked", ["ines@example.com", "INES@EXAMPLE.COM", "ines", "@ines", "Inês Carvalho", "slack:U1"]
)
def test_a_person_is_all_of_their_accounts(lake: duckdb.DuckDBPyConnection, asked: str) -> None:
    everything = ("public", "notion:n-1", "slack:U1", "domain:example.com")
    assert people.principals(lake, SETTINGS, asked) == everything
    assert people.find(lake, SETTINGS, asked).account_ids == ("n-1", "U1")


@pytest.mark.parametrize("asked", [None, "public"])
def test_without_a_name_it_is_the_public(
    lake: duckdb.DuckDBPyConnection, asked: str | None
) -> None:
    assert people.principals(lake, SETTINGS, asked) == ("public",)


@pytest.mark.parametrize("asked", ["Sam", "deploy bot"])
def test_a_name_of_two_people_is_nobodys(lake: duckdb.DuckDBPyConnection, asked: str) -> None:
    with pytest.raises(LorelineError, match=r"may be .* or .*: give an e-mail address"):
        people.principals(lake, SETTINGS, asked)


@pytest.mark.parametrize("asked", ["nobody", "gone", "gone@example.com", "", "'; drop table x"])
def test_who_is_not_known_is_not_guessed(lake: duckdb.DuckDBPyConnection, asked: str) -> None:
    with pytest.raises(LorelineError, match="nobody is called"):
        people.principals(lake, SETTINGS, asked)


def test_an_unknown_principal_stands_for_itself(lake: duckdb.DuckDBPyConnection) -> None:
    assert people.principals(lake, SETTINGS, "slack:U9") == ("public", "slack:U9")


@dataclass
class FakeSnapshot:
    snapshot_id: int
    timestamp_ms: int
    parent_snapshot_id: int | None


class FakeTable:
    """A table whose kept snapshots are (id, second, parent), the last one current."""

    def __init__(self, *kept: tuple[int, int, int | None]) -> None:
        self.kept = {n: FakeSnapshot(n, second * 1000, parent) for n, second, parent in kept}

    def current_snapshot(self) -> FakeSnapshot:
        return list(self.kept.values())[-1]

    def snapshot_by_id(self, snapshot_id: int) -> FakeSnapshot | None:
        return self.kept.get(snapshot_id)


def _at(second: float) -> datetime:
    return datetime.fromtimestamp(second, UTC)


@pytest.mark.parametrize(("second", "snapshot_id"), [(10, 1), (19.9, 1), (20, 2), (35, 3)])
def test_the_snapshot_that_was_current_is_read(second: float, snapshot_id: int) -> None:
    table = FakeTable((1, 10, None), (2, 20, 1), (3, 30, 2))
    assert snapshot_at(table, _at(second)) == (snapshot_id, _at(10))


def test_a_tagged_snapshot_behind_a_gap_answers_for_no_time() -> None:
    """Snapshots 2 and 3 have expired: what was true between 1 and 4 is not known any more."""
    table = FakeTable((1, 10, None), (4, 40, 3), (5, 50, 4))
    _, kept_since = snapshot_at(table, _at(20))
    assert kept_since == _at(40)
    assert snapshot_at(table, _at(45)) == (4, _at(40))


HIT = Hit(
    chunk_id="c",
    doc_id="slack:C1:1",
    document_version_id="v",
    title="[bold]Title[/bold]\n\x1b]0;owned\x07",
    url="https://example.com/\u202egpj.exe",
    text="First [link=http://x]line[/link]\n\n\n\x1b[2Jsecond " + "word " * 200,
    heading_path=["One", "Two"],
    source="slack",
    container="general",
    author_id="U1",
    source_updated_at=datetime(2026, 10, 16, tzinfo=UTC),
    chunk_index=0,
    start_char=1,
    end_char=1_000,
    score=0.5,
    dense_rank=1,
    lexical_rank=None,
)


PASSAGE = Passage(HIT, 1, 1_000, HIT.text, ("c",), ((0, 5), (12, 18)))


@pytest.mark.parametrize("width", ["40", "160"])
def test_a_hit_is_shown_and_does_nothing(
    width: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    print_passage(1, PASSAGE, "what?", ("public",))
    shown = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\u202e"} & set(shown)
    assert max(len(line) for line in shown.splitlines()) <= int(width)
    lines = [line.strip() for line in shown.splitlines()]
    assert lines[0].startswith("1 [bold]Title[/bold]")
    assert "slack · #general · 2026-10-16" in lines[1]
    assert "…" in shown


@pytest.mark.parametrize(
    ("principals", "readers", "reason"),
    [
        (("public",), ["public"], "visible because it is public"),
        (("public", "slack:U1"), ["slack:U1", "slack:U2"], "visible to slack:U1, one of 2 readers"),
        (("public",), [], "its permissions have just changed"),
    ],
)
def test_it_is_said_why_a_hit_is_visible(
    principals: tuple[str, ...], readers: list[str], reason: str
) -> None:
    said = explanation(HIT, principals, readers)
    assert said == f"score 0.500 · dense #1 · lexical – · {reason}"
    said = explanation(replace(HIT, rerank_score=0.25), principals, readers)
    assert said == f"score 0.500 · dense #1 · lexical – · re-ranked 0.250 · {reason}"


def test_words_are_marked_and_only_web_addresses_are_links(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    for url in ("https://example.com/a?b=1", "javascript:alert(1)", HIT.url):
        passage = replace(PASSAGE, hit=replace(HIT, url=url))
        print_passage(None, passage, "first", ("public",))
        shown = capsys.readouterr().out
        assert "\x1b[1;33mFirst\x1b[0m" in shown
        assert ("\x1b]8;" in shown) == url.startswith("https://example.com/a")
