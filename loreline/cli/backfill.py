"""Embed ahead of the build: planned, in slices, resumable."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from loreline.cli.instants import instant
from loreline.cli.options import Json
from loreline.cli.output import is_interactive, print_json, say
from loreline.errors import LorelineError

if TYPE_CHECKING:
    from loreline.backfill import Part, Plan
    from loreline.cli.build import BuildSummary
    from loreline.settings import Settings

# What says which texts there are: brought up to date before they are counted.
PREPARED = ("+chunks", "+embedding_configurations", "model_prices")
WITHOUT_TESTS = ("--exclude-resource-type", "test", "--exclude-resource-type", "unit_test")

backfill = typer.Typer(help="Fill in, ahead of the build.", no_args_is_help=True)


@backfill.callback()
def root() -> None:
    """Fill in, ahead of the build."""


@backfill.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def embeddings(
    context: typer.Context,
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="A row of seeds/embedding_models.csv.")
    ],
    strategy: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only chunks of this row of chunking_strategies.csv."),
    ] = None,
    source: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Only documents from here.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only documents that changed since.")
    ] = None,
    document: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Only this document; several times.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="At most so many texts.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what it would take, and embed nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Embed what a configuration lacks, those of the newest documents first.

    Of one that is served or a candidate. What was embedded stays when it is stopped: the same
    command goes on, and the next build finds it done. Documents and chunks are brought up to date
    first, also for a plan. All other options are those of dbt.
    """
    from loreline.backfill import Part
    from loreline.settings import Settings

    if not (plan or yes or is_interactive()):
        raise LorelineError("nobody is there to be asked", "add --yes, or --plan", exit_code=2)
    settings = Settings.load()
    part = Part(
        model,
        strategy,
        source,
        instant(since, "--since").replace(tzinfo=None).isoformat() if since else None,
        document or None,
        limit,
    )
    _run(settings, context.args, *PREPARED, what="chunks")
    planned = planned_now(settings, part)
    if as_json and plan:
        print_json({**asdict(planned), "seconds": planned.seconds})
        return
    if not as_json:
        say(described(planned))
    if plan:
        return
    embedded = 0
    if planned.texts:
        if not yes:
            typer.confirm("Embed them now?", default=True, abort=True, err=True)
        variables = ["--vars", json.dumps({"backfill": part.variables()})]
        # Variables make dbt parse the project anew: in a place of their own, for this run alone.
        parsed = ["--target-path", str(settings.home / "backfill")]
        arguments = [*variables, *parsed, *context.args]
        summary = _run(settings, arguments, "text_embeddings", what="embeddings")
        embedded = summary.rows("text_embeddings")
    refused = _refused(settings, planned)
    if as_json:
        print_json({"planned": planned.texts, "embedded": embedded, "refused_by_now": refused})
        return
    if planned.texts:
        say(f"{embedded:,} texts embedded.")
    if refused:
        say(f"{refused:,} texts were refused by now: loreline coverage --documents says why.")


def planned_now(settings: Settings, part: Part) -> Plan:
    """What a backfill would do, as the lake is now."""
    from loreline.backfill import plan
    from loreline.lake.duck import connect

    with connect(settings.as_reader()) as lake:
        return plan(lake, settings, part)


def described(planned: Plan) -> str:
    """A plan in a sentence."""
    if not planned.texts:
        return f"Nothing is missing: {planned.embedding_model} has embedded all that was asked for."
    text = f"{planned.texts:,} texts of {planned.tokens:,} tokens to embed"
    if planned.seconds is not None and planned.tokens_per_second is not None:
        time = timedelta(seconds=max(1, round(planned.seconds)))
        text += f", about {time} at {planned.tokens_per_second:,.0f} tokens a second here"
    if planned.cost is not None:
        text += f", for {planned.cost:.6f} dollars"
    return text + "."


def _run(settings: Settings, extra: list[str], *models: str, what: str) -> BuildSummary:
    from loreline.cli.build import Show, run

    arguments = ["--select", *models, *WITHOUT_TESTS, *extra]
    summary = run(settings, arguments, show=Show.problems)
    if summary.exit_code:
        raise LorelineError(
            f"dbt could not bring the {what} up to date",
            "see above; what was embedded is kept, and the same command goes on from there",
            exit_code=summary.exit_code,
        )
    return summary


def _refused(settings: Settings, planned: Plan) -> int:
    from loreline.postgres import connect, in_schema

    statement = in_schema(
        settings,
        "operations",
        "select count(*) from {}.quarantine where source = 'embedding' and origin = %s",
    )
    with connect(settings) as connection:
        row = connection.execute(statement, [planned.config_hash]).fetchone()
    return row[0] if row else 0
