"""Answer over HTTP: the review page, and the webhooks."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Annotated

import typer

from loreline.cli.output import say, warn
from loreline.errors import LorelineError

# For requests and work under way, when it is to end.
SECONDS_TO_END = 30


def serve(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; by default for this machine.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="0 takes a free one.")
    ] = 8400,
    no_worker: Annotated[
        bool,
        typer.Option("--no-worker", help="Store deliveries; `loreline inbox work` runs elsewhere."),
    ] = False,
    no_build: Annotated[
        bool, typer.Option("--no-build", help="Land what is delivered; something else builds.")
    ] = False,
) -> None:
    """Serve the review page and the webhooks, until Ctrl-C, and work on what is delivered.

    Reviewers log in with a token of `loreline reviewer add`; docs/webhooks.md says who delivers
    where. It speaks HTTP: before anybody else than this machine is to reach it, put it behind
    something that speaks HTTPS.
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
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SECONDS_TO_END,
    )
    # uvicorn passes the signal on when it has ended: it must not end us before the worker.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with nullcontext() if no_worker else working(["--no-build"] if no_build else []):
        uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def working(options: Sequence[str]) -> Iterator[None]:
    """Have `loreline inbox work` run meanwhile, in a process of its own: builds take a core.

    One that ends is started again, later each time; at the end it finishes what it has begun.
    """
    ended = threading.Event()
    running: list[subprocess.Popen[bytes]] = []

    def keep_running() -> None:
        pause = 1.0
        while not ended.is_set():
            command = "import sys; from loreline.cli import main; sys.exit(main())"
            own = ["inbox", "work", "--with-parent"]
            arguments = [sys.executable, "-c", command, *own, *options]
            # Ctrl-C is for this process, which passes the word on.
            running[:] = [subprocess.Popen(arguments, start_new_session=True)]
            if ended.is_set():
                running[0].terminate()
            began = time.monotonic()
            code = running[0].wait()
            if ended.is_set():
                return
            pause = 1.0 if time.monotonic() - began > 60 else min(2 * pause, 60.0)
            warn(f"loreline: the worker ended with {code}; it starts again in {pause:.0f} s")
            ended.wait(pause)

    thread = threading.Thread(target=keep_running)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        for process in running:
            process.terminate()
        thread.join(SECONDS_TO_END)
        for process in running:
            process.kill()
        thread.join()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise LorelineError(
            f"cannot listen on {host} port {port} ({error.strerror or error})",
            "choose another --port or --host",
        ) from error
