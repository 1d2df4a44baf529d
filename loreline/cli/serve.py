"""Answer over HTTP: the review page."""

from __future__ import annotations

import socket
from typing import Annotated

import typer

from loreline.cli.output import say, warn
from loreline.errors import LorelineError


def serve(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; by default for this machine.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="0 takes a free one.")
    ] = 8400,
) -> None:
    """Serve the review page, until Ctrl-C.

    Reviewers log in with a token of `loreline reviewer add`. It speaks HTTP: before anybody else
    than this machine is to reach it, put it behind something that speaks HTTPS.
    """
    import uvicorn

    from loreline.postgres import check_schema
    from loreline.review.categories import read_categories
    from loreline.settings import LOOPBACK, Settings
    from loreline.web.app import create_app

    settings = Settings.load()
    settings.require_stores()
    check_schema(settings)
    categories = read_categories(settings)
    if categories is None:
        warn(
            "loreline: no categories to choose from:"
            " `loreline build --select label_categories`, then start again"
        )
    app = create_app(settings, categories or [])
    listener = _listen(host, port)
    if host not in LOOPBACK:
        warn(f"loreline: {host} can be reached by others, and this is HTTP without encryption")
    shown = f"[{host}]" if ":" in host else host
    say(f"http://{shown}:{listener.getsockname()[1]}/review")
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
    uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise LorelineError(
            f"cannot listen on {host} port {port} ({error.strerror or error})",
            "choose another --port or --host",
        ) from error
