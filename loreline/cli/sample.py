"""From nothing to an answer, with the sample workspace: what `make run` calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from loreline.cli import build, ingest, search, stack
from loreline.cli.hits import print_passage
from loreline.cli.output import print_table, say
from loreline.errors import LorelineError

if TYPE_CHECKING:
    import duckdb

    from loreline.settings import Settings

NEXT = """
What to try next, after `source .venv/bin/activate`:

  # A private channel, asked about by a member, and by everybody else
  loreline search "How much do we offer for Saltmarsh?" --as ines
  loreline search "How much do we offer for Saltmarsh?"

  # Three days later: pages edited, deleted and restored, a permission revoked
  loreline search "How quickly does a flag take effect?" -k 1
  loreline ingest --sample day_two && loreline build
  loreline search "How quickly does a flag take effect?" -k 1

  # Which snapshots a table has, and who made them
  loreline history documents

  # Whether all is served that should be, and nothing else
  loreline contents

  # What went on from what in a conversation, and what else was tried
  loreline tree ses_f385c4c9f8451a89

  # Every table, in SQL
  loreline sql
"""


def run_sample() -> None:
    """From nothing to an answer, with a made-up company.

    Starts the stores, lands and builds the sample workspace, and asks it a question. Again, it does
    only what is still to be done.
    """
    from loreline.settings import Settings

    settings = Settings.load()
    if settings.target != "local":
        raise LorelineError(
            f"the sample workspace is for target local, not {settings.target}",
            "unset LORELINE_TARGET",
        )
    stack.up()
    settings = Settings.load()
    land(settings)
    say()
    summary = build.run(settings, [], show=build.Show.results)
    build.print_summary(summary, with_tables=False)
    if summary.exit_code:
        raise typer.Exit(summary.exit_code)
    say()
    _tour(settings)


def land(settings: Settings) -> None:
    """Land the first day of those sources of which nothing is landed yet."""
    known = _landed(settings)
    loads = [
        load for load in ingest.choose([], None, ingest.Day.day_one, {}) if load.source not in known
    ]
    say()
    if not loads:
        say("The sample workspace is landed already.")
        return
    outcomes = ingest.run(settings, loads)
    ingest.print_outcomes(outcomes)
    for outcome in outcomes:
        if outcome.error:
            raise outcome.error


def _landed(settings: Settings) -> set[str]:
    from psycopg import sql

    from loreline.postgres import connect

    table = sql.Identifier(f"{settings.prefix}operations", "source_freshness")
    with connect(settings) as connection:
        query = sql.SQL("select source from {} where rows > 0").format(table)
        return {row[0] for row in connection.execute(query)}


def _tour(settings: Settings) -> None:
    from loreline.lake.duck import connect
    from loreline.settings import PROJECT_ROOT

    with connect(settings.as_reader()) as lake:
        print_table(["where", "tables and their rows"], inventory(lake, settings))
        question = first_question(
            (PROJECT_ROOT / "sample_workspace" / "questions.yaml").read_text()
        )
        answer = search.ask_present(lake, settings, search.Question(question, ("public",), 2, {}))
    say()
    say(f'loreline search "{question}" -k 2')
    say()
    for place, passage in enumerate(answer.passages, start=1):
        print_passage(place, passage, question, answer.question.principals)
    say(NEXT.strip())


def inventory(lake: duckdb.DuckDBPyConnection, settings: Settings) -> list[tuple[str, str]]:
    """Each namespace of this target, and its tables with their numbers of rows."""
    from loreline.cli.contents import compare
    from loreline.cli.sql import TABLES

    where: dict[str, list[str]] = {}
    for (name,) in lake.execute(TABLES).fetchall():
        namespace, _, table = name.rpartition(".")
        if namespace.startswith(f"lake.{settings.prefix}"):
            rows = lake.table(name).count("*").fetchall()[0][0]
            where.setdefault(namespace, []).append(f"{table} {rows:,}")
    for served in compare(settings):
        schema, _, table = served.name.rpartition(".")
        tables = where.setdefault(f"pg.{settings.prefix}{schema or 'serving'}", [])
        tables.append(f"{table} {served.actual:,}")
    return [(namespace, ", ".join(tables)) for namespace, tables in where.items()]


def first_question(document: str) -> str:
    """The first question of `questions.yaml` that anybody may ask."""
    import yaml

    return next(entry["question"] for entry in yaml.safe_load(document) if not entry["as"])
