"""Have models judge conversations, and let what they say land."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loreline.cli.calls import (
    CONCURRENCY,
    RETRIES,
    TIMEOUT,
    TOKEN_BUDGET,
    Budget,
    Concurrency,
    Retries,
    Timeout,
    TokenBudget,
    dollars,
    endpoint,
    limits,
    prices,
    print_spent,
    progress,
)
from loreline.cli.options import Json
from loreline.cli.output import print_json, print_table, say
from loreline.errors import LorelineError

if TYPE_CHECKING:
    import duckdb

    from loreline.calls.budget import Estimate, Outcome
    from loreline.judge.configurations import Judge
    from loreline.judge.journal import Attempts, Journal
    from loreline.judge.run import Judging, Question
    from loreline.judge.selection import Selection
    from loreline.settings import Settings

NOBODY = (
    "No judge is active, so nothing was asked. Set is_active in seeds/judges.csv and build it"
    " (`loreline build --select judges`), or name one with --judge."
)


@dataclass(frozen=True)
class Plan:
    """What a judge is asked.

    Attributes:
        judge: the judge.
        selection: what it is asked about.
        attempts: what was tried before, by the calls' ids.
        again: whether what was set aside is asked once more.
    """

    judge: Judge
    selection: Selection
    attempts: dict[str, Attempts]
    again: bool

    @property
    def answered(self) -> int:
        """Calls that were answered before."""
        return sum(tried.is_completed for tried in self.attempts.values())

    @property
    def left_aside(self) -> int:
        """Calls that were set aside before, and are not made again."""
        from loreline.judge.run import is_over

        return sum(
            is_over(tried, again=self.again) and not tried.is_completed
            for tried in self.attempts.values()
        )

    def questions(self) -> Iterator[Question]:
        """The calls that are to be made."""
        from loreline.judge.run import questions

        return questions(self.judge, self.selection, self.attempts, again=self.again)


def judge(
    names: Annotated[
        list[str] | None,
        typer.Option("--judge", metavar="NAME", help="Ask this judge, active or not."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be asked, and its cost.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Ask once more what was set aside.")
    ] = False,
    budget: Budget = None,
    token_budget: TokenBudget = TOKEN_BUDGET,
    concurrency: Concurrency = CONCURRENCY,
    retries: Retries = RETRIES,
    timeout: Timeout = TIMEOUT,
    as_json: Json = False,
) -> None:
    """Have models judge conversations and pairs of responses.

    Who judges what is the seed `judges`, where all are off until you switch them on. Answers are
    kept as they come, and none is paid for twice: after an interruption, run it again. At the end
    they land, as by `loreline ingest judge`; `loreline build` makes labels of them.
    """
    from loreline.calls.budget import check_budget
    from loreline.judge.run import Judging
    from loreline.settings import Settings

    settings = Settings.load()
    allowed = limits(budget, token_budget, concurrency, retries, timeout)
    known_prices = prices(settings)
    with _stores(settings, to_call=not dry_run) as (lake, journal):
        plans = _plans(lake, settings, journal, names or [], again=again)
        if not plans:
            _print_nobody(as_json=as_json)
            return
        due = [[each.estimate(known_prices) for each in plan.questions()] for plan in plans]
        if dry_run:
            _print_plan(plans, due, as_json=as_json)
        estimates = [
            (plan.judge.model, each)
            for plan, calls in zip(plans, due, strict=True)
            for each in calls
        ]
        check_budget(estimates, allowed, less="lower at_most in seeds/judges.csv")
        if dry_run:
            return
        called = endpoint(settings)
        try:
            with progress("judge", len(estimates)) as show:
                outcome = _ask(Judging(journal, known_prices, called, allowed, show), plans)
        finally:
            # Also what was answered before a failure or Ctrl-C, and before an earlier kill.
            landed = _land(settings)
    if as_json:
        versions = [plan.judge.version for plan in plans]
        print_json({"judges": versions} | vars(outcome) | landed)
    else:
        _print_outcome(outcome, landed)
    if outcome.calls["failed"] or outcome.calls["over_budget"]:
        raise typer.Exit(1)


@contextmanager
def _stores(
    settings: Settings, *, to_call: bool
) -> Iterator[tuple[duckdb.DuckDBPyConnection, Journal]]:
    """What there is to judge, and what was said; where calls are made, nobody else makes any."""
    from loreline.judge.journal import Journal
    from loreline.lake.duck import connect
    from loreline.postgres import check_schema
    from loreline.postgres import connect as connect_postgres

    settings.require_stores()
    check_schema(settings)
    with (
        connect_postgres(settings, autocommit=True) as connection,
        connect(settings.as_reader()) as lake,
    ):
        journal = Journal(connection, settings)
        if not to_call:
            yield lake, journal
            return
        with journal.alone():
            yield lake, journal


def _plans(
    lake: duckdb.DuckDBPyConnection,
    settings: Settings,
    journal: Journal,
    names: list[str],
    *,
    again: bool,
) -> list[Plan]:
    from loreline.judge.configurations import read_judges
    from loreline.judge.run import whole_subjects
    from loreline.judge.selection import Selection
    from loreline.review.categories import read_categories

    categories = read_categories(settings)
    if categories is None:
        raise LorelineError("there is nothing to judge yet", "run `loreline build`")
    plans = []
    for judge in read_judges(lake, settings, categories, names):
        attempts = journal.attempts(judge)
        whole = whole_subjects(judge, attempts, again=again)
        plans.append(Plan(judge, Selection(lake, settings, judge, whole), attempts, again))
    return plans


def _ask(judging: Judging, plans: list[Plan]) -> Outcome:
    attempts: dict[str, Attempts] = {}
    for plan in plans:
        attempts |= plan.attempts
        if plan.answered:
            # A version that was given up comes back with what it has said already.
            judging.adopt(plan.judge)
    judging.run(chain.from_iterable(plan.questions() for plan in plans), attempts)
    judging.outcome.calls += Counter(
        known=sum(plan.answered for plan in plans),
        left_aside=sum(plan.left_aside for plan in plans),
    )
    return judging.outcome


def _land(settings: Settings) -> dict[str, int]:
    """Land what is whole; how many rows landed."""
    from dlt_sources import load

    return {"landed": load(settings, "judge").rows}


def _print_nobody(*, as_json: bool) -> None:
    if as_json:
        print_json({"judges": [], "calls": {}, "note": NOBODY})
    else:
        say(NOBODY)


def _print_plan(plans: list[Plan], due: list[list[Estimate]], *, as_json: bool) -> None:
    rows = [
        {
            "judge": plan.judge.version,
            "model": plan.judge.model,
            "calls": len(calls),
            "answered": plan.answered,
            "prompt_tokens": sum(call.prompt_tokens for call in calls),
            "completion_tokens": sum(call.completion_tokens for call in calls),
            "cost": dollars([call.cost for call in calls]),
        }
        for plan, calls in zip(plans, due, strict=True)
    ]
    if as_json:
        print_json({"judges": [row | {"cost": row["cost"] or None} for row in rows]})
        return
    columns = ["judge", "model", "to call", "answered before", "tokens read ≈", "written ≈"]
    print_table([*columns, "dollars ≈"], [list(row.values()) for row in rows])


def _print_outcome(outcome: Outcome, landed: dict[str, Any]) -> None:
    names = {
        "completed": "answered now",
        "known": "answered before",
        "set_aside": "set aside: no valid answer",
        "left_aside": "set aside before",
        "failed": "failed",
        "over_budget": "left for a larger budget",
    }
    rows = [[told, outcome.calls[name]] for name, told in names.items() if outcome.calls[name]]
    print_table(["calls", "number"], rows or [["nothing was left to ask", 0]])
    print_spent(outcome)
    if landed["landed"]:
        say(f"{landed['landed']:,} judgements landed; `loreline build` makes labels of them.")
    if outcome.calls["set_aside"] or outcome.calls["left_aside"]:
        say("What was set aside is in operations.judge_calls, and asked again with --again.")
    if outcome.calls["failed"] or outcome.calls["over_budget"]:
        say("Run it again to make the calls that are missing.")
