"""The web application: parts of it are routers, mounted here."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loreline.errors import LorelineError
from loreline.inbox.senders import senders
from loreline.inbox.store import Writer
from loreline.postgres import check_schema
from loreline.review.categories import Category
from loreline.review.pages import HEADERS, review_router
from loreline.settings import Settings
from loreline.web.webhooks import webhook_router

_log = logging.getLogger(__name__)


def create_app(settings: Settings, categories: Sequence[Category]) -> FastAPI:
    """The application.

    Args:
        settings: the stores.
        categories: what reviewers may say of a trajectory.

    Raises:
        LorelineError: a setting is none.
    """
    # Without pages about itself, which nobody would have to log in for.
    app = FastAPI(title="Loreline", docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(review_router(settings, categories))
    writer = Writer(settings)
    app.include_router(webhook_router(writer, senders(settings)))

    @app.get("/healthz")
    def is_alive() -> Response:
        return PlainTextResponse("alive\n")

    @app.get("/readyz")
    async def is_ready() -> Response:
        await run_in_threadpool(check_schema, settings)
        if not await writer.is_ready():
            raise LorelineError("deliveries cannot be stored")
        return PlainTextResponse("ready\n")

    @app.exception_handler(LorelineError)
    def fail(_: Request, error: LorelineError) -> Response:
        # Whoever asks is told nothing about the stores.
        _log.error("%s", error)
        return PlainTextResponse("A store does not answer. Try again later.\n", 503)

    app.add_middleware(_WithHeaders)
    return app


class _WithHeaders:
    """Adds what every answer says; a middleware of FastAPI's own kind costs a task for each."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)
