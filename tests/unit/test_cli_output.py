"""Tables that fit the terminal, and JSON that other programs read."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest

from dlt_sources import LoadSummary
from loreline.cli.ingest import Load, Outcome, print_outcomes
from loreline.cli.output import print_json, print_json_rows, print_table, say

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")


def test_numbers_stand_right_and_texts_left(capsys: Captured) -> None:
    print_table(["name", "rows"], [["a", 5], ["long name", 1200]])
    assert capsys.readouterr().out.splitlines() == [
        "name       rows",
        "───────────────",
        "a             5",
        "long name  1200",
    ]


@pytest.mark.usefixtures("narrow")
def test_text_that_is_too_wide_is_folded_and_complete(capsys: Captured) -> None:
    print_table(["id", "text"], [[1, "word " * 20]])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 40
    assert " ".join(lines).count("word") == 20


@pytest.mark.usefixtures("narrow")
def test_what_does_not_fit_becomes_records(capsys: Captured) -> None:
    columns = ["first", "second", "third"]
    print_table(columns, [["a" * 30, "b" * 30, "c"], ["d", None, "f"]])
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "— row 1 —",
        f"first   {'a' * 30}",
        f"second  {'b' * 30}",
        "third   c",
        "— row 2 —",
        "first   d",
        "second",
        "third   f",
    ]


@pytest.mark.usefixtures("narrow")
def test_optional_columns_give_way(capsys: Captured) -> None:
    row = ["x" * 15, "y" * 15, "z" * 15]
    print_table(["a", "b", "c"], [row], optional=["c", "b"])
    shown = capsys.readouterr().out
    assert "y" * 15 in shown
    assert "z" not in shown


def test_a_table_without_rows_has_its_columns(capsys: Captured) -> None:
    print_table(["a", "b"], [])
    assert capsys.readouterr().out.splitlines()[0].split() == ["a", "b"]


def test_markup_and_escapes_are_shown_as_they_are(capsys: Captured) -> None:
    print_table(["[bold]x"], [["[red]y[/red] \x1b[2J :smile:"]], title="[link=http://x]t")
    say("[bold]z[/bold]")
    shown = capsys.readouterr().out
    for text in ("[bold]x", "[red]y[/red] \\x1b[2J :smile:", "[link=http://x]t", "[bold]z[/bold]"):
        assert text in shown


def test_json_rows_have_plain_values(capsys: Captured) -> None:
    moment = datetime(2026, 10, 16, 18, 0, 0, 500)
    values = {
        "naive": moment,
        "aware": moment.replace(tzinfo=UTC),
        "day": date(2026, 10, 16),
        "at": time(9, 30),
        "decimal": Decimal("1.25"),
        "whole": Decimal("100"),
        "huge": 2**100,
        "nan": float("nan"),
        "list": [1, None, [2.5]],
        "struct": {"a": Decimal("2"), "b": moment},
        "bytes": b"\x00\xff",
        "interval": timedelta(minutes=2),
        "uuid": UUID(int=1),
        "truth": True,
        "nothing": None,
    }
    print_json_rows(list(values), [list(values.values())])
    assert json.loads(capsys.readouterr().out) == [
        {
            "naive": "2026-10-16T18:00:00.000500",
            "aware": "2026-10-16T18:00:00.000500+00:00",
            "day": "2026-10-16",
            "at": "09:30:00",
            "decimal": 1.25,
            "whole": 100,
            "huge": 2**100,
            "nan": None,
            "list": [1, None, [2.5]],
            "struct": {"a": 2, "b": "2026-10-16T18:00:00.000500"},
            "bytes": "00ff",
            "interval": 120.0,
            "uuid": "00000000-0000-0000-0000-000000000001",
            "truth": True,
            "nothing": None,
        }
    ]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_any_number_of_json_rows_is_a_list(count: int, capsys: Captured) -> None:
    print_json_rows(["n"], ([n] for n in range(count)))
    assert json.loads(capsys.readouterr().out) == [{"n": n} for n in range(count)]


def test_columns_of_one_name_do_not_hide_each_other(capsys: Captured) -> None:
    print_json_rows(["a", "b", "a", "a"], [[1, 2, 3, 4]])
    assert json.loads(capsys.readouterr().out) == [{"a": 1, "b": 2, "a_1": 3, "a_2": 4}]


def test_json_is_safe_to_look_at(capsys: Captured) -> None:
    print_json({"title": "\x9b2J\u202e", "path": Path("/x")})
    shown = capsys.readouterr().out
    assert shown.isascii()
    assert json.loads(shown) == {"title": "\x9b2J\u202e", "path": "/x"}


def test_what_a_load_left_out_is_said_with_its_reason(capsys: Captured) -> None:
    summary = LoadSummary("notion", landed=Counter(pages=2), passed_over=Counter(attachments=1200))
    summary.passed_over["vanished files"] = 2
    summary.quarantined["missing_id"] = 3
    print_outcomes([Outcome(Load("notion", "export.zip"), summary)])
    printed = capsys.readouterr().out
    assert "notion: 1,200 attachments passed over, which hold no text" in printed
    assert "notion: 2 vanished files passed over, which were renamed or removed" in printed
    assert "missing_id" in printed
