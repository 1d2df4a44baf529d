"""Who may review."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from loreline.cli.options import Json
from loreline.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from loreline.review.reviewers import Reviewers

reviewer = typer.Typer(help="Say who may review.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="As labels will carry it.")]


@reviewer.callback()
def root() -> None:
    """Say who may review."""


@reviewer.command()
def add(name: Name, as_json: Json = False) -> None:
    """Let somebody review, and print their token: once, for it is kept nowhere."""
    with _reviewers() as reviewers:
        token = reviewers.add(name)
    if as_json:
        print_json({"reviewer": name, "token": token})
    else:
        say(token)


@reviewer.command("list")
def list_(as_json: Json = False) -> None:
    """Show who reviews or did, and how many labels of theirs stand."""
    with _reviewers() as reviewers:
        found = reviewers.all()
    if as_json:
        print_json([vars(each) for each in found])
        return
    print_table(
        ["reviewer", "may review", "since", "labels"],
        [[e.reviewer, e.is_active, e.added_at, e.labels] for e in found],
    )


@reviewer.command()
def remove(name: Name) -> None:
    """Let somebody review no more: their token and logins end at once, their labels stay."""
    with _reviewers() as reviewers:
        reviewers.remove(name)


@contextmanager
def _reviewers() -> Iterator[Reviewers]:
    from loreline.postgres import check_schema, connect
    from loreline.review.reviewers import Reviewers
    from loreline.settings import Settings

    settings = Settings.load()
    check_schema(settings)
    with connect(settings, autocommit=True) as connection:
        yield Reviewers(connection, settings)
