"""The routes that senders deliver to. A delivery is stored before it is answered."""

# Annotations stay objects here: FastAPI finds no local names in texts.
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import psycopg
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from loreline.inbox.senders import Delivery, RefusedError, Reply, Sender
from loreline.inbox.store import Writer

_log = logging.getLogger(__name__)


def webhook_router(writer: Writer, senders: Sequence[Sender]) -> APIRouter:
    """A route for each sender."""
    router = APIRouter(lifespan=_closing(writer))
    for sender in senders:
        # Nothing of it is for FastAPI to take apart, which costs more than all else that is done.
        router.add_route(sender.path, _route(writer, sender), methods=["POST"])
    return router


def _closing(writer: Writer) -> Callable[[FastAPI], object]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await writer.close()

    return lifespan


def _route(writer: Writer, sender: Sender) -> Callable[[Request], Awaitable[Response]]:
    async def receive(request: Request) -> Response:
        try:
            sender.admit(request.headers)
            body = await _body(request, sender.max_bytes)
            found = sender.received(request.headers, body)
        except RefusedError as refused:
            _log.warning("%s refused a request: %s", sender.path, refused)
            if refused.status == 503:
                _log.warning("set %s to be told by %s", sender.variable, sender.path)
            return PlainTextResponse("refused\n", refused.status)
        try:
            return await _kept(writer, sender, found, body)
        except psycopg.Error as error:
            _log.error("%s could not store a delivery: %s", sender.path, error)
            return PlainTextResponse("not stored, send it again\n", 503)

    return receive


async def _kept(writer: Writer, sender: Sender, found: Delivery | Reply, body: bytes) -> Response:
    if isinstance(found, Delivery):
        await writer.put(found, body if found.body is None else found.body)
        return JSONResponse({"stored": True})
    if found.token:
        await writer.keep_token("notion", found.token)
        _log.warning(
            "%s received a verification token: `loreline inbox tokens` shows it, %s takes it",
            sender.path,
            sender.variable,
        )
    return JSONResponse(found.content)


async def _body(request: Request, max_bytes: int) -> bytes:
    """The body, no more of it than is allowed, whatever was announced.

    Raises:
        RefusedError: it is larger.
    """
    too_large = RefusedError(413, f"its body is larger than {max_bytes} bytes")
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > max_bytes:
        raise too_large
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > max_bytes:
            raise too_large
        pieces.append(piece)
    return b"".join(pieces)
