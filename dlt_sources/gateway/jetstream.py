"""Events from a stream of NATS JetStream, by a durable pull consumer.

Messages are acknowledged once what they hold is committed to the lake. Until then the server is
told that they are being worked on: what a killed run had in hand comes again within seconds.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self, TypeVar

import nats
import nats.errors
import nats.js.errors
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy
from nats.js.client import JetStreamContext

from dlt_sources.gateway.bounds import BYTES_PER_COMMIT, MESSAGES_PER_COMMIT
from loreline.errors import LorelineError
from loreline.settings import Settings

T = TypeVar("T")

# After this the server takes a silent consumer for dead, and delivers again.
ACK_WAIT = 30.0
_SECONDS_TO_ANSWER = 10.0
_SECONDS_TO_READ = 600.0
# How the server ends a request of which the next message alone is too large, and says that it is
# at work on one.
_TOO_LARGE = "409 Message Size Exceeds MaxBytes"
_STILL_THERE = "100"


@dataclass(frozen=True, slots=True)
class Message:
    """A message in hand.

    Attributes:
        data: its bytes.
        stream: where it is kept, and
        sequence: its number there.
        stored_at: when the stream took it in.
        delivered: what acknowledges it.
    """

    data: bytes
    stream: str
    sequence: int
    stored_at: datetime
    delivered: Msg


class Consumer:
    """The durable consumer, while connected.

    NATS speaks asyncio: its loop runs in a thread of its own, so that the server is answered while
    rows are compared and committed.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # A laptop or a run of tests reads all that there is, and takes nothing from production.
        self.durable = f"{settings.prefix}{settings.nats_durable}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="nats")
        self._in_hand: list[Msg] = []
        self._ack_wait = ACK_WAIT
        self._most = MESSAGES_PER_COMMIT
        self._wanted, self._end = 0, ""
        self._ended = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._client = self._do(self._connect())
            self._jetstream, self._stream = self._do(self._bind())
        except BaseException:
            self._stop()
            raise
        asyncio.run_coroutine_threadsafe(self._keep_in_hand(), self._loop)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(LorelineError):
            self._do(self._client.close())
        self._stop()

    def info(self) -> ConsumerInfo:
        """How far the consumer is: `num_pending`, and `num_ack_pending` in somebody's hand."""
        return self._do(self._jetstream.consumer_info(self._stream, self.durable))

    @property
    def seconds_until_redelivered(self) -> float:
        """How long what a dead run had in hand stays away."""
        return self._ack_wait + 2

    def read(self, wait: float) -> tuple[list[Message], bool]:
        """Messages, as many as are to be committed at once, and whether there are more.

        Args:
            wait: seconds in which they may arrive; 0 for those that are there.
        """
        found = self._do(self._gather(wait), _SECONDS_TO_READ)
        return found, bool(found) and found[-1].delivered.metadata.num_pending > 0

    def settle(self, done: Sequence[Message], refused: Sequence[Message]) -> None:
        """Acknowledge what is committed, and end what was set aside: neither comes again."""
        # Not only after the acknowledgements: one that comes late would take them back.
        self._in_hand = []
        self._do(self._settle(done, refused), 60.0)

    async def _connect(self) -> Client:
        settings = self._settings
        said: dict[str, Any] = {}
        if settings.nats_credentials:
            said["user_credentials"] = settings.nats_credentials

        async def quiet(_: Exception) -> None:
            """What fails is raised where it is asked for."""

        servers = [url.strip() for url in settings.nats_url.split(",") if url.strip()]
        return await nats.connect(
            servers,
            name="loreline",
            connect_timeout=5,
            max_reconnect_attempts=5,
            reconnect_time_wait=1,
            error_cb=quiet,
            **said,
        )

    async def _bind(self) -> tuple[JetStreamContext, str]:
        settings = self._settings
        jetstream = self._client.jetstream(timeout=_SECONDS_TO_ANSWER)
        stream = settings.nats_stream or await jetstream.find_stream_name_by_subject(
            settings.nats_subject
        )
        try:
            info = await jetstream.consumer_info(stream, self.durable)
        except nats.js.errors.NotFoundError:
            info = await jetstream.add_consumer(
                stream,
                ConsumerConfig(
                    durable_name=self.durable,
                    deliver_policy=DeliverPolicy.ALL,
                    ack_policy=AckPolicy.EXPLICIT,
                    ack_wait=ACK_WAIT,
                    max_ack_pending=MESSAGES_PER_COMMIT,
                    filter_subject=settings.nats_subject or None,
                ),
            )
        if info.config.ack_policy != AckPolicy.EXPLICIT or info.config.deliver_subject:
            raise LorelineError(
                f"the NATS consumer {self.durable} of {stream} does not pull and acknowledge each",
                "name another one in LORELINE_NATS_DURABLE: it is made as it has to be",
            )
        self._ack_wait = info.config.ack_wait or ACK_WAIT
        if info.config.max_ack_pending and info.config.max_ack_pending > 0:
            self._most = min(self._most, info.config.max_ack_pending)
        self._request = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{self.durable}"
        self._inbox = self._client.new_inbox()
        await self._client.subscribe(self._inbox, cb=self._arrived)
        return jetstream, stream

    async def _gather(self, wait: float) -> list[Message]:
        """Messages of one request, which the server ends: by count, by bytes, and in time."""
        asked: dict[str, Any] = {"batch": self._most, "max_bytes": BYTES_PER_COMMIT}
        ends = {"expires": round(wait * 1e9)} if wait else {"no_wait": True}
        found = await self._pull(asked | ends)
        if not found and self._end == _TOO_LARGE:
            found = await self._pull({"batch": 1} | ends)
        return [_message(each) for each in found]

    async def _pull(self, asked: dict[str, Any]) -> list[Msg]:
        self._in_hand, self._wanted, self._end = [], asked["batch"], ""
        self._ended.clear()
        await self._client.publish(self._request, orjson.dumps(asked), reply=self._inbox)
        while not self._ended.is_set():
            before = len(self._in_hand)
            try:
                await asyncio.wait_for(self._ended.wait(), _SECONDS_TO_ANSWER)
            except TimeoutError:
                # A large answer over a slow line goes on; what has come is taken in any case.
                if len(self._in_hand) == before:
                    break
        if not self._in_hand and not self._ended.is_set():
            raise nats.errors.TimeoutError
        return list(self._in_hand)

    async def _arrived(self, message: Msg) -> None:
        """Take in a message, or the word that a request has ended."""
        said = message.headers or {}
        if status := said.get("Status"):
            if status != _STILL_THERE:
                self._end = f"{status} {said.get('Description', '')}"
                self._ended.set()
            return
        self._in_hand.append(message)
        if len(self._in_hand) >= self._wanted:
            self._ended.set()

    async def _settle(self, done: Sequence[Message], refused: Sequence[Message]) -> None:
        for message in done:
            await message.delivered.ack()
        for message in refused:
            await message.delivered.term()
        await self._client.flush(timeout=30)

    async def _keep_in_hand(self) -> None:
        """Tell the server now and then that what is in hand is being worked on."""
        while True:
            await asyncio.sleep(self._ack_wait / 3)
            for each in list(self._in_hand):
                # Where the connection is gone the messages come again, which does no harm.
                with suppress(nats.errors.Error):
                    await each.in_progress()

    def _do(self, work: Coroutine[Any, Any, T], seconds: float = 60.0) -> T:
        """Have something done in the loop of NATS."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(seconds)
        except LorelineError:
            raise
        except nats.js.errors.NotFoundError:
            named = self._settings.nats_stream or self._settings.nats_subject
            raise LorelineError(
                f"NATS has no stream {named}",
                "check LORELINE_NATS_STREAM and LORELINE_NATS_SUBJECT",
            ) from None
        except (nats.errors.Error, OSError, TimeoutError, ValueError) as error:
            future.cancel()
            told = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise LorelineError(
                f"NATS failed ({told})",
                "check LORELINE_NATS_URL and LORELINE_NATS_CREDENTIALS; what is not acknowledged"
                " comes again",
            ) from None

    def _stop(self) -> None:
        with suppress(LorelineError):
            self._do(_end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _message(delivered: Msg) -> Message:
    about = delivered.metadata
    stored_at = about.timestamp.astimezone(UTC)
    return Message(delivered.data, about.stream, about.sequence.stream, stored_at, delivered)


async def _end_tasks() -> None:
    """What the client leaves running, and what keeps messages in hand."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
