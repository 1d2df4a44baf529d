"""Ask again from a node of the forest, and let the answers land like any other traffic."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
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
    from loreline.calls.budget import Estimate, Prices
    from loreline.replay.contexts import Contexts
    from loreline.replay.journal import Journal
    from loreline.replay.plan import Trajectory
    from loreline.replay.rebuild import Rebuild
    from loreline.replay.run import ReplayOutcome
    from loreline.replay.sets import ReplaySet
    from loreline.settings import Settings


ANSWERED = "answered before"


@dataclass
class PlannedCall:
    """A call of a replay.

    Attributes:
        reason: why it is made, or that it is not because it was answered.
        estimate: what it may take.
    """

    call_id: str
    branch_node_id: str
    model: str
    config: dict[str, Any]
    reason: str
    estimate: Estimate

    def record(self) -> dict[str, Any]:
        """As JSON says it."""
        described = vars(self) | vars(self.estimate)
        del described["estimate"]
        return described


def replay(
    node: Annotated[
        list[str] | None, typer.Option("--node", metavar="ID", help="A node, or how its id begins.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="Ask it; else the one that was asked.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Instead of the recorded one.")] = None,
    top_p: Annotated[float | None, typer.Option("--top-p", help="Likewise.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", help="Likewise.")] = None,
    tools: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON list of tools to offer instead.")
    ] = None,
    system: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Text in the place of the system's.")
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Answers there should be of each.")] = 1,
    subtree: Annotated[
        bool, typer.Option("--subtree", help="Also the later turns below the node, in turn.")
    ] = False,
    set_file: Annotated[
        Path | None, typer.Option("--set", metavar="FILE", help="A set of replays, as YAML.")
    ] = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Only say what would be rebuilt or called, and why."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be called, and its cost.")
    ] = False,
    budget: Budget = None,
    token_budget: TokenBudget = TOKEN_BUDGET,
    concurrency: Concurrency = CONCURRENCY,
    retries: Retries = RETRIES,
    timeout: Timeout = TIMEOUT,
    as_json: Json = False,
) -> None:
    """Ask again what was asked at a node, of any model.

    Answers are kept as they come, and none is paid for twice: after an interruption, run it again.
    `-n 3` means that there should be three answers, so where two are there it asks once. They land
    as events of the gateway; `loreline build` puts them into the forest.
    """
    from loreline.calls.budget import check_budget
    from loreline.replay.run import Replay
    from loreline.replay.sets import ReplaySet, read_set, read_text, read_tools
    from loreline.settings import Settings

    settings = Settings.load()
    if plan:
        rebuilds = _rebuilds(settings)
        if not node and not set_file:
            _print_plan([], rebuilds, as_json=as_json)
            return
    if bool(node) == bool(set_file):
        raise LorelineError("nothing says what to replay", "give --node ID, or --set FILE")
    given = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
    parameters = {name: value for name, value in given.items() if value is not None}
    if set_file:
        if model or parameters or tools or system or subtree or n > 1:
            raise LorelineError("--set says itself how to ask", "put it into the file")
        chosen = read_set(set_file)
    else:
        chosen = ReplaySet(
            nodes=node or [],
            models=model or [],
            parameters=[parameters],
            repetitions=n,
            subtree=subtree,
            system=read_text(system) if system else None,
            tools=read_tools(tools) if tools else None,
        )
    allowed = limits(budget, token_budget, concurrency, retries, timeout)
    known_prices = prices(settings)
    with _stores(settings, to_call=not plan and not dry_run) as (contexts, journal):
        trajectories = _trajectories(contexts, chosen)
        planned = _planned(journal, trajectories, known_prices)
        if plan or dry_run:
            _print_plan(planned, rebuilds if plan else None, as_json=as_json)
        due = [(call.model, call.estimate) for call in planned if call.reason != ANSWERED]
        check_budget(due, allowed, less="replay less")
        if plan or dry_run:
            return
        called = endpoint(settings)
        try:
            with progress("replay", len(planned)) as show:
                replays = Replay(contexts, journal, known_prices, called, allowed, show)
                outcome = replays.run(trajectories)
        finally:
            # Also what was answered before a failure or Ctrl-C, and before an earlier kill.
            landed = _land(settings, journal)
    if as_json:
        print_json(vars(outcome) | landed)
    else:
        _print_outcome(outcome, landed)
    if outcome.calls["failed"] or outcome.calls["over_budget"]:
        raise typer.Exit(1)


def _rebuilds(settings: Settings) -> list[Rebuild]:
    from loreline.cli.build import child_map
    from loreline.lake.duck import connect
    from loreline.postgres import check_schema
    from loreline.postgres import connect as connect_postgres
    from loreline.replay.rebuild import rebuilds

    settings.require_stores()
    check_schema(settings)
    graph = child_map(settings)
    with connect(settings.as_reader()) as lake, connect_postgres(settings) as connection:
        return rebuilds(lake, connection, settings, graph)


@contextmanager
def _stores(settings: Settings, *, to_call: bool) -> Iterator[tuple[Contexts, Journal]]:
    """What was asked, and what was answered; where calls are made, nobody else makes any."""
    from loreline.postgres import check_schema, connect
    from loreline.replay.contexts import Contexts
    from loreline.replay.journal import Journal

    settings.require_stores()
    check_schema(settings)
    with connect(settings, autocommit=True) as connection:
        journal, contexts = Journal(connection, settings), Contexts(connection, settings)
        if not to_call:
            yield contexts, journal
            return
        with journal.alone():
            yield contexts, journal


def _trajectories(contexts: Contexts, chosen: ReplaySet) -> list[Trajectory]:
    from loreline.replay.plan import trajectories

    return list(
        trajectories(
            contexts,
            chosen.find(contexts),
            chosen.changes(),
            chosen.repetitions,
            subtree=chosen.subtree,
        )
    )


def _planned(
    journal: Journal, trajectories: Sequence[Trajectory], known_prices: Prices
) -> list[PlannedCall]:
    from loreline.replay.plan import estimated

    states = journal.statuses([trajectory.replay_run_id for trajectory in trajectories])
    calls = {}
    for trajectory in trajectories:
        for step in trajectory.first.all():
            call_id = trajectory.call_id(step)
            calls[call_id] = PlannedCall(
                call_id,
                step.node.branch_node_id,
                trajectory.model(step),
                trajectory.change.config,
                _reason(states.get(call_id), is_first=step is trajectory.first),
                estimated(known_prices, trajectory, step),
            )
    return list(calls.values())


def _reason(status: str | None, *, is_first: bool) -> str:
    if status == "completed":
        return ANSWERED
    if status == "failed":
        return "it failed before"
    return "replayed" if is_first else "a later turn below the node"


def _land(settings: Settings, journal: Journal) -> Counter[str]:
    """Land the events that nobody else records; how many landed, and how many were set aside."""
    from dlt_sources import load

    folder = settings.home / "replays"
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    file = folder / f"{now:%Y%m%dT%H%M%S%f}.jsonl"
    numbers = []
    try:
        with file.open("w") as lines:
            for number, event in journal.to_land():
                lines.write(event + "\n")
                numbers.append(number)
        if not numbers:
            return Counter(landed=0, set_aside=0)
        summary = load(settings, "gateway", file, observed_at=now)
    finally:
        file.unlink()
    journal.landed(numbers)
    return Counter(landed=summary.rows, set_aside=summary.quarantined.total())


def _print_plan(
    planned: Sequence[PlannedCall], rebuilds: Sequence[Rebuild] | None, *, as_json: bool
) -> None:
    """Say what would be called, and what rebuilt where that was asked."""
    if as_json:
        calls = [call.record() for call in planned]
        built = {} if rebuilds is None else {"rebuilt": [vars(each) for each in rebuilds]}
        print_json({**built, "called": calls})
        return
    if rebuilds is not None:
        _print_rebuilds(rebuilds)
    if planned:
        _print_calls(planned)


def _print_rebuilds(rebuilds: Sequence[Rebuild]) -> None:
    if not rebuilds:
        say("Nothing is to be rebuilt: no seed has changed, and every event is built.")
        return
    say("The next build makes anew what the changes reach:")
    for each in rebuilds:
        say(f"- {each.reason}: from {each.start} on ({', '.join(each.models)})")


def _print_calls(planned: Sequence[PlannedCall]) -> None:
    groups: dict[tuple[str, str, str], list[PlannedCall]] = {}
    for call in planned:
        asked = json.dumps({k: v for k, v in call.config.items() if k != "model"})
        groups.setdefault((call.model, asked, call.reason), []).append(call)
    rows = []
    for (model, asked, reason), calls in groups.items():
        is_due = reason != ANSWERED
        rows.append(
            [
                len(calls) if is_due else 0,
                model,
                "as it was" if asked == "{}" else asked,
                reason,
                sum(call.estimate.prompt_tokens for call in calls) * is_due,
                sum(call.estimate.completion_tokens for call in calls) * is_due,
                dollars([call.estimate.cost for call in calls]) if is_due else "",
            ]
        )
    columns = ["to call", "model", "asked", "because", "tokens read ≈", "written ≈", "dollars ≈"]
    print_table(columns, rows)


def _print_outcome(outcome: ReplayOutcome, landed: Counter[str]) -> None:
    names = {
        "completed": "answered now",
        "known": "answered before",
        "failed": "failed",
        "over_budget": "left for a larger budget",
    }
    rows = [[told, outcome.calls[name]] for name, told in names.items() if outcome.calls[name]]
    rows += [[f"not asked: {reason}", count] for reason, count in outcome.stopped.items()]
    print_table(["calls", "number"], rows)
    print_spent(outcome)
    if landed["landed"]:
        say(f"{landed['landed']:,} events landed; `loreline build` puts them into the forest.")
    if landed["set_aside"]:
        say(f"{landed['set_aside']:,} were set aside: see `operations.quarantine`.")
    if outcome.calls["failed"] or outcome.calls["over_budget"]:
        say("Run it again to make the calls that are missing.")
