"""Canonical chat messages, and the hashes by which requests become a forest.

A client that goes on with a conversation sends back what it was answered, though not byte for byte.
Two messages are equal here when a client may have made one of the other: null, "" and a lone text
part; tool calls under other ids; arguments with their keys in another order; results of parallel
calls in another order; reasoning left out.

A hash is the first 128 bits of a SHA-256, as 32 lower-case hex digits. The hash of a history is a
chain, hᵢ = H(hᵢ₋₁, messageᵢ), over its messages without the system's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

import orjson

Json = Any

# The history without any message.
EMPTY = "0" * 32

_REASONING = frozenset({"reasoning", "thinking", "redacted_thinking"})
_SYSTEM = frozenset({"system", "developer"})


def short_hash(text: bytes) -> str:
    """The first 128 bits of a SHA-256, as hex digits."""
    return sha256(text).hexdigest()[:32]


def chained(history: str, message: str) -> str:
    """The hash of a history with one message more."""
    return sha256((history + message).encode()).hexdigest()[:32]


def canonical_json(value: Json) -> bytes:
    """JSON with sorted keys and no blanks; a whole number is written without decimals."""
    return orjson.dumps(_plain(value), option=orjson.OPT_SORT_KEYS)


class Message(NamedTuple):
    """A canonical message.

    Attributes:
        digest: its hash; for a tool's result the hash without the call that it answers.
        role: user, assistant, tool, …; a developer is the system.
        content: text, or JSON of its parts; None where it says nothing.
        name: the author's name, where one is given.
        tool_calls: JSON list of its calls, without ids; None where there are none.
        call_ids: the ids of those calls, as they were received.
        answered_id: the id of the call that a tool's result answers, as it was received.
    """

    digest: str
    role: str
    content: str | None
    name: str | None
    tool_calls: str | None
    call_ids: tuple[str, ...]
    answered_id: str | None


class Step(NamedTuple):
    """A message of a history.

    Attributes:
        end: the hash of the history up to and with it.
        digest: the message's hash.
        message: the message.
        call: for a tool's result, which call of the assistant's message it answers, from 0.
    """

    end: str
    digest: str
    message: Message
    call: int | None


@dataclass(slots=True)
class History:
    """The canonical messages of a request.

    Attributes:
        steps: those that are not the system's, results of parallel calls in the calls' order.
        system: the system's messages, each with its position among all messages, from 0.
        known: how many of the steps are those of a history that was read before.
    """

    steps: list[Step] = field(default_factory=list)
    system: list[tuple[int, Message]] = field(default_factory=list)
    known: int = 0

    @property
    def end(self) -> str:
        """The hash of the whole history."""
        return self.steps[-1].end if self.steps else EMPTY

    def add(self, message: Message, call: int | None, digest: str) -> None:
        """Add a message at the end."""
        self.steps.append(Step(chained(self.end, digest), digest, message, call))

    def add_results(self, results: Sequence[tuple[int, int, Message]]) -> None:
        """Add tools' results, given with call and position, in the calls' order."""
        for call, _, result in sorted(results, key=lambda item: item[:2]):
            self.add(result, call, answer_hash(result, call))

    def continued(self) -> History:
        """One that begins with the same messages, to which others are added."""
        return History(self.steps.copy(), self.system.copy(), len(self.steps))

    def before(self, index: int) -> str:
        """The hash of the history before a message."""
        return self.steps[index - 1].end if index else EMPTY


class Messages:
    """Reads messages; what was read lately is remembered, because histories repeat it.

    Args:
        remembered: how many messages to remember at most, and a fifth as many histories.
    """

    def __init__(self, remembered: int = 100_000) -> None:
        self._limit = remembered
        self._known: dict[bytes, Message] = {}
        self._histories: dict[bytes, History] = {}

    def history(self, messages: Sequence[Json]) -> History:
        """The canonical history of a request.

        Raises:
            ValueError: something in it is no message.
        """
        # Most requests are an earlier one, its answer, and what was said to that. Only an answer
        # surely ends what is before it: results of parallel calls are put in order together.
        start = len(messages) - 2
        known = None
        if start > 0 and _is_answer(messages[start]):
            known = self._histories.get(orjson.dumps(messages[:start]))
        found = known.continued() if known else History()
        self._add(found, messages, start if known else 0)
        if 5 * len(self._histories) >= self._limit:
            self._histories.clear()
        self._histories[orjson.dumps(messages)] = found
        return found

    def _add(self, found: History, messages: Sequence[Json], start: int) -> None:
        """Add the messages from a position on; what answers earlier ones is not among them."""
        calls: dict[str, list[int]] = {}
        results: list[tuple[int, int, Message]] = []
        for position, given in enumerate(messages[start:], start):
            message = self.message(given)
            if message.role == "system":
                found.system.append((position, message))
            elif message.role == "tool":
                open_calls = calls.get(message.answered_id or "")
                # What answers no known call, as where the history was cut, keeps its place.
                call = open_calls.pop(0) if open_calls else len(results)
                results.append((call, position, message))
            else:
                if results:
                    found.add_results(results)
                    results = []
                found.add(message, None, message.digest)
                calls = {}
                for number, call_id in enumerate(message.call_ids):
                    calls.setdefault(call_id, []).append(number)
        if results:
            found.add_results(results)

    def forget(self) -> None:
        """Remember nothing of what was read."""
        self._known.clear()
        self._histories.clear()

    def message(self, given: Json) -> Message:
        """One canonical message, given as a request or a response holds it.

        Raises:
            ValueError: it is no message.
        """
        if not isinstance(given, dict):
            raise ValueError(f"a message is an object, this is {type(given).__name__}")
        key = orjson.dumps(given)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= self._limit:
                self._known.clear()
            known = self._known[key] = _message(given)
        return known


def answer_hash(result: Message, call: int) -> str:
    """The hash of a tool's result to one of the calls before it."""
    return short_hash(f"{result.digest}:{call}".encode())


def merged(prefill: Message, response: Message) -> Message:
    """A prefill and the response to it as the one message that clients make of them."""
    parts = [prefill.content or "", response.content or ""]
    return _made("assistant", "".join(parts), response.name, response.tool_calls, (), None)


def _is_answer(given: Json) -> bool:
    return isinstance(given, dict) and given.get("role") == "assistant"


def _message(given: Mapping[str, Json]) -> Message:
    role = given.get("role")
    if not isinstance(role, str):
        raise ValueError("a message without a role")
    role = "system" if role in _SYSTEM else role
    calls, ids = _tool_calls(given)
    answered = given.get("tool_call_id")
    return _made(
        role,
        _content(given.get("content")),
        str(given["name"]) if given.get("name") else None,
        calls,
        ids,
        str(answered) if answered is not None else None,
    )


def _made(
    role: str,
    content: str | None,
    name: str | None,
    tool_calls: str | None,
    call_ids: tuple[str, ...],
    answered_id: str | None,
) -> Message:
    content = content or None
    digest = short_hash(orjson.dumps([role, content, name, tool_calls]))
    return Message(digest, role, content, name, tool_calls, call_ids, answered_id)


def _content(content: Json) -> str | None:
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, list):
        kept = [part for part in content if not _is_reasoning(part)]
        if not kept:
            return None
        if len(kept) == 1 and _is_text(kept[0]):
            text = kept[0]["text"]
            return text if isinstance(text, str) else None
        content = kept
    return canonical_json(content).decode()


def _is_text(part: Json) -> bool:
    return isinstance(part, dict) and part.get("type") in ("text", "output_text") and "text" in part


def _is_reasoning(part: Json) -> bool:
    return isinstance(part, dict) and part.get("type") in _REASONING


def _tool_calls(given: Mapping[str, Json]) -> tuple[str | None, tuple[str, ...]]:
    calls = given.get("tool_calls")
    legacy = given.get("function_call")
    if not calls and not legacy:
        return None, ()
    if calls and not isinstance(calls, list):
        raise ValueError("tool_calls is no list")
    calls = [*(calls or ()), *([{"function": legacy}] if isinstance(legacy, dict) else ())]
    if not calls:
        return None, ()
    canonical, ids = [], []
    for call in calls:
        if not isinstance(call, dict):
            raise ValueError("a tool call is no object")
        called = call.get("function") or call.get("custom") or {}
        if not isinstance(called, dict):
            raise ValueError("a tool call's function is no object")
        arguments = called.get("arguments", called.get("input"))
        canonical.append({"name": called.get("name"), "arguments": _arguments(arguments)})
        ids.append(str(call.get("id", "")))
    return canonical_json(canonical).decode(), tuple(ids)


def _arguments(arguments: Json) -> Json:
    """The arguments of a call as JSON; the text itself where it is none."""
    if not isinstance(arguments, str):
        return arguments or {}
    try:
        return orjson.loads(arguments) if arguments.strip() else {}
    except orjson.JSONDecodeError:
        return arguments


def _plain(value: Json) -> Json:
    """Whole numbers without decimals, wherever they are: some clients write 1.0, others 1."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def parsed(text: str | bytes) -> Json:
    """A JSON document; half a surrogate pair in it becomes U+FFFD.

    Raises:
        ValueError: it is none.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _repaired(json.loads(text))


def _repaired(value: Json) -> Json:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_repaired(key): _repaired(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_repaired(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return float(value)
    return value
