"""The commands, in the order in which `loreline --help` lists them."""

from __future__ import annotations

from typing import Annotated

import typer

from loreline.cli import stack
from loreline.cli.backfill import backfill
from loreline.cli.build import build
from loreline.cli.contents import contents
from loreline.cli.contracts import contracts
from loreline.cli.conversations import diff, node, sessions, tree
from loreline.cli.coverage import coverage
from loreline.cli.datasets import dataset, datasets, freeze
from loreline.cli.freshness import freshness
from loreline.cli.health import health
from loreline.cli.history import history
from loreline.cli.inbox import inbox
from loreline.cli.ingest import ingest
from loreline.cli.judge import judge
from loreline.cli.maintain import maintain
from loreline.cli.quarantine import quarantine
from loreline.cli.replay import replay
from loreline.cli.review import review
from loreline.cli.reviewer import reviewer
from loreline.cli.sample import run_sample
from loreline.cli.search import search
from loreline.cli.serve import serve
from loreline.cli.session import session
from loreline.cli.sql import sql
from loreline.cli.status import status
from loreline.cli.watch import watch

STACK = "Stack"
LOAD = "Load and build"
ASK = "Ask"
TALK = "Conversations"
JUDGE = "Review"
LEARN = "Datasets"
CARE = "Look after"

app = typer.Typer(
    name="loreline",
    help="A lakehouse for an AI team's knowledge and conversations, built by dbt.",
    epilog="Every command has --help. --debug shows the stack trace of an error.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        import loreline

        print(f"loreline {loreline.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Nothing but options that stand before a command."""


for command in (stack.up, stack.down, status, stack.env):
    app.command(rich_help_panel=STACK)(command)
app.command(rich_help_panel=LOAD)(ingest)
app.command(
    rich_help_panel=LOAD,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(build)
app.add_typer(backfill, name="backfill", rich_help_panel=LOAD)
app.add_typer(contracts, name="contracts", rich_help_panel=LOAD)
app.command(rich_help_panel=LOAD)(watch)
app.command("run-sample", rich_help_panel=LOAD)(run_sample)
app.add_typer(inbox, name="inbox", rich_help_panel=LOAD)
for command in (search, sql, history, contents, coverage):
    app.command(rich_help_panel=ASK)(command)
app.add_typer(session, name="session", rich_help_panel=TALK)
for command in (sessions, tree, node, diff, replay):
    app.command(rich_help_panel=TALK)(command)
app.command(rich_help_panel=JUDGE)(serve)
app.add_typer(reviewer, name="reviewer", rich_help_panel=JUDGE)
app.add_typer(review, name="review", rich_help_panel=JUDGE)
app.command(rich_help_panel=JUDGE)(judge)
for command in (freeze, datasets):
    app.command(rich_help_panel=LEARN)(command)
app.add_typer(dataset, name="dataset", rich_help_panel=LEARN)
app.add_typer(quarantine, name="quarantine", rich_help_panel=CARE)
for command in (freshness, health, maintain, stack.doctor, stack.upgrade):
    app.command(rich_help_panel=CARE)(command)
