"""What the simulators of services share: a real HTTP server on the loopback, with its faults."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

Json = Any

# What can go wrong with a request, in any place of a walk.
FAULTS = ("429", "529", "500", "timeout", "cut", "no json", "reset")


@dataclass(frozen=True)
class Asked:
    """A request as it came.

    Attributes:
        method: GET, POST, …
        path: without the query.
        query: its parameters, the last value of each.
        body: the parsed JSON, or the form; None where there is none.
        headers: with names in lower case.
    """

    method: str
    path: str
    query: dict[str, str]
    body: Json
    headers: dict[str, str]


@dataclass(frozen=True)
class Answer:
    """A status, a JSON body and headers."""

    body: Json
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Service(Protocol):
    """What is behind a server."""

    def answer(self, asked: Asked) -> Answer:
        """What the service says; called by one thread at a time."""
        ...


@dataclass
class Server:
    """A running server, and what is to go wrong.

    Attributes:
        service: what answers.
        url: where it is.
        rate: requests that are answered per second; more get 429. 0 for all.
        latency: seconds before each answer.
        faults: by the number of the request, counted from 0 at the last `clear`.
        clock_skew: seconds that its clock is ahead.
        asked: the requests that were answered, in order.
        limited: how many got 429 for their rate.
        retry_after: seconds that a limited client is told to wait.
        hang: seconds that a time-out lasts, unless the client goes away before.
    """

    service: Service
    url: str = ""
    rate: float = 0.0
    latency: float = 0.0
    faults: dict[int, str] = field(default_factory=dict)
    clock_skew: float = 0.0
    asked: list[Asked] = field(default_factory=list)
    limited: int = 0
    retry_after: float = 0.05
    hang: float = 2.0
    keeps_requests: bool = True
    answered: int = 0
    _received: int = 0
    _room: float = 0.0
    _filled_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def clear(self, **faults: str) -> None:
        """Forget what was asked, and count from 0 again."""
        with self._lock:
            self.asked.clear()
            self.limited = self._received = self.answered = 0
            self.faults = {int(number): fault for number, fault in faults.items()}

    def next_fault(self) -> str:
        """What is to go wrong with the request that has just come; empty for nothing."""
        with self._lock:
            fault = self.faults.pop(self._received, "")
            self._received += 1
            if not fault and self.rate and not self._has_room():
                self.limited += 1
                return "429"
            return fault

    def reply(self, asked: Asked) -> Answer:
        """What the service says."""
        if self.latency:
            time.sleep(self.latency)
        with self._lock:
            self.answered += 1
            if self.keeps_requests:
                self.asked.append(asked)
            return self.service.answer(asked)

    def _has_room(self) -> bool:
        """A token bucket of one second's requests."""
        now = time.monotonic()
        self._room = min(max(1.0, self.rate), self._room + (now - self._filled_at) * self.rate)
        self._filled_at = now
        if self._room < 1:
            return False
        self._room -= 1
        return True


@contextmanager
def serving(service: Service, **options: Any) -> Iterator[Server]:
    """Serve on a free port of the loopback."""
    server = Server(service, **options)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def _handle(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            raw = self.rfile.read(length)
            fault = server.next_fault()
            if fault == "timeout":
                # A client that has gone away leaves nothing to answer.
                self.connection.settimeout(server.hang)
                with suppress(OSError):
                    self.connection.recv(1)
                self.close_connection = True
            elif fault == "reset":
                self.close_connection = True
            elif fault.isdigit():
                wait = {"retry-after": f"{server.retry_after:g}"}
                self._send(Answer({"message": "not now"}, int(fault), wait))
            else:
                parts = urlsplit(self.path)
                query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = _body(raw, headers.get("content-type", ""))
                asked = Asked(self.command, parts.path, query, body, headers)
                self._send(server.reply(asked), fault)

        do_GET = do_POST = do_PATCH = do_DELETE = _handle  # noqa: N815 - as http.server calls them

        def _send(self, answer: Answer, fault: str = "") -> None:
            content = b"<html>" if fault == "no json" else json.dumps(answer.body).encode()
            self.send_response_only(answer.status)
            date = formatdate(time.time() + server.clock_skew, usegmt=True)
            for name, value in {"date": date, **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            with suppress(BrokenPipeError, ConnectionResetError):
                if fault == "cut":
                    self.wfile.write(content[: len(content) // 2])
                    self.wfile.flush()
                    self.close_connection = True
                else:
                    self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    class Http(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that is killed in the middle of a request is no error of the server's."""

    http = Http(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(
        target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()


def _body(raw: bytes, kind: str) -> Json:
    if not raw:
        return None
    if "json" in kind:
        return json.loads(raw)
    return {name: values[-1] for name, values in parse_qs(raw.decode()).items()}
