"""An OpenAI-compatible `/v1/chat/completions` over real HTTP, without a model behind it.

Its answers have the fields of recorded ones. What it says is up to the test, by a function of the
request; by itself it repeats what was asked and counts.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = Any


@dataclass
class Refusal:
    """An answer that is none: an HTTP status, and what it says."""

    status: int
    message: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Received:
    """A request as it came."""

    headers: dict[str, str]
    body: Json


@dataclass
class ChatCompletions:
    """The server's state.

    Attributes:
        answer: gives the assistant's message to a request, None for no choice, or refuses it.
        delay: seconds before an answer.
        requests: everything that came, in order.
        most_at_once: of requests under way.
        turn_ids: whether answers tell `x-turn-id`, as a gateway that records does.
    """

    answer: Callable[[Json], Json | Refusal] = lambda body: said(f"again: {last_text(body)}")
    delay: float = 0.0
    turn_ids: bool = False
    requests: list[Received] = field(default_factory=list)
    most_at_once: int = 0
    url: str = ""
    _under_way: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, received: Received) -> tuple[int, dict[str, str], Json]:
        """Status, headers and body of what is answered."""
        with self._lock:
            self.requests.append(received)
            number = len(self.requests)
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            time.sleep(self.delay)
            answer = self.answer(received.body)
        finally:
            with self._lock:
                self._under_way -= 1
        if isinstance(answer, Refusal):
            return answer.status, answer.headers, {"error": {"message": answer.message}}
        headers = {"x-turn-id": f"turn-{number}"} if self.turn_ids else {}
        return 200, headers, completion(received.body, answer, number)


def said(text: str) -> Json:
    """An assistant's message."""
    return {"role": "assistant", "content": text, "refusal": None}


def called(name: str, **arguments: Json) -> Json:
    """An assistant's message that calls a tool."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    calls = [{"id": "call_abc", "type": "function", "function": function}]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def last_text(body: Json) -> str:
    """What was said last."""
    return str(body["messages"][-1].get("content"))


def choice(message: Json) -> Json:
    """A message as the only choice."""
    finish_reason = "tool_calls" if message.get("tool_calls") else "stop"
    return {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}


def completion(body: Json, message: Json, number: int) -> Json:
    """A response of the API."""
    prompt = sum(len(str(m.get("content"))) for m in body["messages"]) // 4 + 1
    written = len(str((message or {}).get("content"))) // 4 + 1
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1_790_000_000 + number,
        "model": f"{body['model']}-2026-10-01",
        "choices": [] if message is None else [choice(message)],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
        },
        "system_fingerprint": "fp_1",
    }


@contextmanager
def chat_completions(**state: Any) -> Iterator[ChatCompletions]:
    """Serve on a free port of the loopback; `url` is what a client is given."""
    simulator = ChatCompletions(**state)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            body = json.loads(self.rfile.read(length))
            received = Received({k.lower(): v for k, v in self.headers.items()}, body)
            if self.path != "/v1/chat/completions":
                status, headers, reply = 404, {}, {"error": {"message": f"no {self.path}"}}
            else:
                status, headers, reply = simulator.reply(received)
            content = json.dumps(reply).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            with suppress(BrokenPipeError):  # the client was killed
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    simulator.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield simulator
    finally:
        server.shutdown()
        server.server_close()
