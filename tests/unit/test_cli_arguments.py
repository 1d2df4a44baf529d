"""How `ingest`, `build`, `sql` and the times of `search` read what they are given."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from loreline.cli.build import dbt_arguments, with_target
from loreline.cli.ingest import Day, Load, choose
from loreline.cli.instants import instant
from loreline.cli.prompt import is_complete
from loreline.cli.sample import first_question
from loreline.errors import LorelineError
from loreline.settings import PROJECT_ROOT, Settings

SAMPLE = PROJECT_ROOT / "sample_workspace"


def test_one_source_from_a_place() -> None:
    assert choose(["notion"], "export", None, {}) == [Load("notion", "export")]


def test_the_sample_is_all_sources_that_the_day_holds() -> None:
    everything = choose([], None, Day.day_one, {})
    assert {load.source for load in everything} == {"evaluation", "gateway", "notion", "slack"}
    assert all(Path(load.location).is_dir() for load in everything)
    assert choose([], None, Day.day_three, {}) == [
        Load("notion", str(SAMPLE / "day_three" / "notion"))
    ]
    assert choose(["slack"], None, Day.day_two, {}) == [
        Load("slack", str(SAMPLE / "day_two" / "slack"))
    ]


def test_places_come_from_the_environment() -> None:
    environment = {"LORELINE_SLACK_LOCATION": "slack.zip", "LORELINE_NOTION_LOCATION": ""}
    stored = [Load("judge", None), Load("review", None)]
    everything = [Load("slack", "slack.zip"), *stored]
    assert choose([], None, None, environment) == everything
    assert choose(["slack"], None, None, environment) == [Load("slack", "slack.zip")]


@pytest.mark.parametrize(
    ("sources", "location", "sample", "said"),
    [
        (["linear"], None, None, "no source is called linear"),
        ([], "folder", None, "--from is for one source"),
        (["notion", "slack"], "folder", None, "--from is for one source"),
        (["notion"], "folder", Day.day_one, "--from is for one source"),
        ([], None, None, "LORELINE_NOTION_LOCATION"),
        (["slack"], None, None, "LORELINE_SLACK_LOCATION not set"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    sources: list[str], location: str | None, sample: Day | None, said: str
) -> None:
    with pytest.raises(LorelineError, match=said):
        choose(sources, location, sample, {})


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-10-16", datetime(2026, 10, 16, tzinfo=UTC)),
        (" 2026-10-16T18:00 ", datetime(2026, 10, 16, 18, tzinfo=UTC)),
        ("2026-10-16T18:00:00Z", datetime(2026, 10, 16, 18, tzinfo=UTC)),
        ("2026-10-16T18:00:00+02:00", datetime(2026, 10, 16, 16, tzinfo=UTC)),
    ],
)
def test_times_are_utc_unless_they_say_otherwise(text: str, moment: datetime) -> None:
    assert instant(text, "--since") == moment
    assert instant(text, "--since").tzinfo is UTC


def test_what_is_no_time_is_refused_by_the_name_of_its_option() -> None:
    with pytest.raises(LorelineError, match="--as-of 'last week' is no time") as caught:
        instant("last week", "--as-of")
    assert caught.value.exit_code == 2


def test_dbt_gets_our_project_and_what_it_was_given() -> None:
    assert dbt_arguments(["--threads", "2"])[:7] == [
        "build",
        "--threads",
        "2",
        "--project-dir",
        str(PROJECT_ROOT),
        "--profiles-dir",
        str(PROJECT_ROOT),
    ]
    own = dbt_arguments(["--project-dir=elsewhere", "--profiles-dir", "there"])
    assert own.count("--project-dir") + own.count("--profiles-dir") == 1


@pytest.mark.parametrize(
    ("arguments", "leaves_out"),
    [
        ([], True),
        (["--full-refresh"], True),
        (["--select", "knowledge+"], True),
        (["-s", "source:notion+", "documents"], True),
        (["--select=+documents"], True),
        (["--select", "backfill"], False),
        (["--select=backfill other_model"], False),
        (["--select", "backfill", "--threads", "2"], False),
        (["-s", "tag:manual"], False),
        (["--exclude", "tag:slow"], True),
        (["datasets"], False),
        (["datasets", "--full-refresh"], False),
        (["--selector=nightly"], False),
    ],
)
def test_manual_models_wait_until_they_are_named(arguments: list[str], leaves_out: bool) -> None:
    complete = dbt_arguments(arguments)
    assert (("--exclude", "tag:manual+") in pairwise(complete)) is leaves_out


def test_the_datasets_are_a_part_of_the_project() -> None:
    complete = dbt_arguments(["datasets", "--full-refresh"])
    assert complete[:4] == ["build", "--select", "tag:datasets", "--full-refresh"]


@pytest.mark.parametrize("arguments", [["--target", "prod"], ["--target=prod"], ["-t", "prod"]])
def test_the_target_of_dbt_is_that_of_the_settings(arguments: list[str]) -> None:
    assert with_target(Settings(), arguments).target == "prod"
    assert with_target(Settings(target="dev"), ["--threads", "1"]).target == "dev"


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(LorelineError, match="there is no target production"):
        with_target(Settings(), ["--target", "production"])


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("select 1;", True),
        ("select 1 ;  ", True),
        ("select 1", False),
        ("select ';'", False),
        ("select ';';", True),
        ("select 'it''s;", False),
        ('select ";"', False),
        ("select 1; -- and then", True),
        ("select 1 -- not yet;", False),
        ("select /* ; ", False),
        ("select /* ; */ 1;", True),
        (".tables", True),
    ],
)
def test_a_statement_ends_with_a_semicolon_of_its_own(text: str, complete: bool) -> None:
    assert is_complete(text) is complete


def test_the_tour_asks_what_anybody_may_ask() -> None:
    document = "- {question: 'secret?', as: 'slack:U1'}\n- {question: 'open?', as: null}\n"
    assert first_question(document) == "open?"
    assert first_question((SAMPLE / "questions.yaml").read_text())
