"""How many deliveries `loreline serve` takes in, and how long each waits for its answer.

    python -m benchmarks.webhooks [--rate 500] [--seconds 20] [--json FILE]

Deliveries of all senders in turn, each signed and of another id, over connections that stay open,
in a stack of its own. First at a set rate, each timed from the moment that it was due, so that a
service which stalls cannot hide it; then as many as are taken. An answer that is not 200, or a
delivery that was answered and is not stored, ends the run. References in the same run: `/healthz`
of the same service, which stores nothing, and one commit after the other in Postgres.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from benchmarks.process import ROOT
from benchmarks.sandbox import Measurement, arguments, show
from loreline import stack
from loreline.postgres import connect

SECRET = "a secret of this benchmark"
SECRETS = (
    "LORELINE_NOTION_WEBHOOK_TOKEN",
    "LORELINE_SLACK_SIGNING_SECRET",
    "LORELINE_LINEAR_WEBHOOK_SECRET",
    "LORELINE_GOOGLE_CHANNEL_TOKEN",
    "LORELINE_EVENTS_TOKEN",
)
CONNECTIONS = 64
COMMITS = 300
EVENT_MESSAGES = 6
NUMBERS = itertools.count()


def requests() -> Iterator[bytes]:
    """Requests of all senders in turn, each another delivery; signed when they are drawn."""
    while True:
        for make in (notion, slack, linear, google_drive, event):
            path, headers, body = make(next(NUMBERS))
            yield request(path, headers, body)


def request(path: str, headers: dict[str, str], body: bytes, method: str = "POST") -> bytes:
    """A request as it goes over the wire."""
    fields = {
        "Host": "loreline",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
    }
    lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in (fields | headers).items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def notion(number: int) -> tuple[str, dict[str, str], bytes]:
    """A page was edited."""
    body = dumped(
        {
            "id": str(uuid.UUID(int=number)),
            "timestamp": "2026-10-01T09:00:00.000Z",
            "workspace_id": str(uuid.UUID(int=1)),
            "subscription_id": str(uuid.UUID(int=2)),
            "authors": [{"id": str(uuid.UUID(int=3)), "type": "person"}],
            "attempt_number": 1,
            "entity": {"id": str(uuid.UUID(int=number % 997)), "type": "page"},
            "type": "page.content_updated",
            "data": {"updated_blocks": [{"id": str(uuid.UUID(int=4)), "type": "block"}] * 4},
        }
    )
    return "/webhooks/notion", {"X-Notion-Signature": f"sha256={signature(body)}"}, body


def slack(number: int) -> tuple[str, dict[str, str], bytes]:
    """A message was said."""
    now = int(time.time())
    body = dumped(
        {
            "type": "event_callback",
            "event_id": f"Ev{number:09d}",
            "team_id": "T0001",
            "event_time": now,
            "event": {
                "type": "message",
                "channel": f"C{number % 40:04d}",
                "user": "U0001",
                "ts": f"{1_790_000_000 + number}.000100",
                "text": "the retry queue of the till is behind again " * 5,
            },
        }
    )
    signed = signature(f"v0:{now}:".encode() + body)
    headers = {"X-Slack-Request-Timestamp": str(now), "X-Slack-Signature": f"v0={signed}"}
    return "/webhooks/slack", headers, body


def linear(number: int) -> tuple[str, dict[str, str], bytes]:
    """An issue was changed."""
    body = dumped(
        {
            "action": "update",
            "type": "Issue",
            "data": {
                "id": str(uuid.UUID(int=number % 997)),
                "title": f"Issue {number}",
                "description": "steps to see it, what was expected, what came instead " * 20,
            },
            "webhookTimestamp": int(time.time() * 1000),
        }
    )
    headers = {"Linear-Signature": signature(body), "Linear-Delivery": str(uuid.UUID(int=number))}
    return "/webhooks/linear", headers, body


def google_drive(number: int) -> tuple[str, dict[str, str], bytes]:
    """Something was changed in a drive."""
    headers = {
        "X-Goog-Channel-ID": "channel",
        "X-Goog-Channel-Token": SECRET,
        "X-Goog-Message-Number": str(number),
        "X-Goog-Resource-State": "change",
    }
    return "/webhooks/google-drive", headers, b""


def event(number: int) -> tuple[str, dict[str, str], bytes]:
    """A chat request of a gateway, of some 8 kB."""
    said = "deploy the rollback of the billing index and tell the owner of the region " * 18
    messages = [
        {"role": ("user", "assistant")[n % 2], "content": said} for n in range(EVENT_MESSAGES)
    ]
    data = {"turn_id": str(uuid.UUID(int=number)), "request": {"messages": messages}}
    body = dumped(
        {
            "specversion": "1.0",
            "id": str(number),
            "source": "gateway",
            "type": "llm.chat.completed",
            "time": "2026-10-01T09:00:00Z",
            "data": data,
        }
    )
    return "/events", {"Authorization": f"Bearer {SECRET}"}, body


def dumped(value: object) -> bytes:
    """As JSON."""
    return json.dumps(value).encode()


def signature(content: bytes) -> str:
    """HMAC-SHA256 as hex."""
    return hmac.new(SECRET.encode(), content, hashlib.sha256).hexdigest()


class Connection:
    """One open connection, on which requests are answered one after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connect on the loopback."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, sent: bytes) -> None:
        """Send a request and read its answer.

        Raises:
            RuntimeError: the answer is not 200.
        """
        self._writer.write(sent)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        assert length is not None, head
        body = await self._reader.readexactly(int(length[1]))
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"{head.decode()}{body.decode()}")


async def at_rate(
    ask: Callable[[Connection, bytes], Awaitable[None]], port: int, rate: float, seconds: float
) -> np.ndarray:
    """Milliseconds from when each request was due to its answer, at a set rate."""
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(await Connection.open(port))
    taken: list[float] = []
    drawn = requests()

    async def one(due: float) -> None:
        connection = await free.get()
        await ask(connection, next(drawn))
        taken.append(time.perf_counter() - due)
        free.put_nowait(connection)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for n in range(int(rate * seconds)):
            due = began + n / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(due))
    return np.array(taken) * 1000


async def as_many_as_are_taken(port: int, drawn: Iterator[bytes], seconds: float) -> float:
    """Requests answered per second over all connections."""
    until = time.perf_counter() + seconds
    count = 0

    async def keep_asking() -> None:
        nonlocal count
        connection = await Connection.open(port)
        while time.perf_counter() < until:
            await connection.ask(next(drawn))
            count += 1

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(keep_asking())
    return count / (time.perf_counter() - began)


@contextmanager
def service(home: Path) -> Iterator[tuple[int, psutil.Process]]:
    """`loreline serve` without its worker: its port, and its process."""
    variables = dict.fromkeys(SECRETS, SECRET)
    command = "import sys; from loreline.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "serve", "--no-worker", "--port", "0"],
        cwd=ROOT,
        env=os.environ | variables | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        address = re.search(r":(\d+)/", process.stdout.readline())
        if address is None:
            sys.exit("loreline serve did not start")
        yield int(address[1]), psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def commits_per_second() -> float:
    """Rows of 2 kB committed one after the other by one connection."""
    from loreline.settings import Settings

    with connect(Settings.load(), autocommit=True) as connection:
        connection.execute("create table operations.benchmark (body bytea)")
        began = time.perf_counter()
        for _ in range(COMMITS):
            connection.execute("insert into operations.benchmark values (%s)", [b"x" * 2_000])
        return COMMITS / (time.perf_counter() - began)


def stored() -> int:
    """Deliveries in the inbox."""
    from loreline.settings import Settings

    with connect(Settings.load()) as connection:
        row = connection.execute("select count(*) from operations.inbox").fetchone()
    assert row is not None
    return row[0]


async def measure(port: int, process: psutil.Process, rate: float, seconds: float) -> list:
    """All figures."""
    # What is made once: routes, the connection to Postgres, imports.
    await at_rate(Connection.ask, port, 50, 1)
    before = process.cpu_times()
    latencies = await at_rate(Connection.ask, port, rate, seconds)
    after = process.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    most = await as_many_as_are_taken(port, requests(), seconds / 2)
    alive = request("/healthz", {}, b"", "GET")
    bare = await as_many_as_are_taken(port, itertools.repeat(alive), seconds / 4)
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99])
    at = f"at {rate:.0f}/s"
    return [
        Measurement("deliveries/s taken in", most, None, 500),
        Measurement("the same, against /healthz of the same service", most, bare),
        Measurement("against one commit after the other", most, commits_per_second()),
        Measurement(f"ms to the answer {at}, median", float(p50)),
        Measurement(f"ms to the answer {at}, p95", float(p95), None, 50, is_limit=True),
        Measurement(f"ms to the answer {at}, p99", float(p99)),
        Measurement(f"ms of CPU a delivery {at}", 1000 * cpu / len(latencies)),
    ]


def main() -> None:
    """Measure in a stack of its own."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--rate", type=float, default=500)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="loreline-benchmark-") as folder:
        home = Path(folder)
        os.environ |= {"LORELINE_HOME": str(home), "LORELINE_TARGET": "local"}
        try:
            stack.up(home)
            with service(home) as (port, process):
                found = asyncio.run(measure(port, process, options.rate, options.seconds))
            if stored() != (sent := next(NUMBERS)):
                sys.exit(f"{sent} deliveries were answered, {stored()} are stored")
        finally:
            stack.down(home)
    show("webhooks", found, options.json)


if __name__ == "__main__":
    main()
