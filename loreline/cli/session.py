"""Sessions on purpose: an id to send, before the first request."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Annotated

import typer

from loreline.cli.options import Json
from loreline.cli.output import print_json, say
from loreline.errors import LorelineError

if TYPE_CHECKING:
    from loreline.settings import Settings

session = typer.Typer(help="Begin a session on purpose.", no_args_is_help=True)


@session.callback()
def root() -> None:
    """Begin a session on purpose."""


@session.command()
def new(
    theme: Annotated[str, typer.Option("--theme", help="A row of seeds/seed_themes.csv.")],
    as_json: Json = False,
) -> None:
    """Issue a session id, and print the headers to send with each of its requests."""
    from loreline.settings import Settings

    known = _themes(Settings.load())
    if theme not in known:
        raise LorelineError(
            f"there is no active theme {theme}",
            f"add it to seeds/seed_themes.csv and build it; there are {', '.join(known)}",
        )
    headers = {"x-session-id": f"ses_{uuid.uuid4().hex}", "x-theme-id": theme}
    if as_json:
        print_json(headers)
        return
    for name, value in headers.items():
        say(f"{name}: {value}")


def _themes(settings: Settings) -> list[str]:
    from loreline.lake.duck import connect, rows_if_built

    table = f"lake.{settings.prefix}seeds.seed_themes"
    with connect(settings.as_reader()) as lake:
        rows = rows_if_built(lake, f"select theme_id from {table} where is_active order by 1")  # noqa: S608 - the name is our own
    if rows is None:
        raise LorelineError("no theme was built yet", "run `loreline build`")
    return [theme_id for (theme_id,) in rows]
