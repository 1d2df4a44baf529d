"""A gateway's record of a chat request, read once: what the forest is made of.

The fields are those of the event `llm.chat.*`; how its hashes are formed is said in `canonical`.
"""

from __future__ import annotations

import gc
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain, islice
from multiprocessing import get_context
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from loreline.conversations.canonical import (
    EMPTY,
    History,
    Json,
    Message,
    Messages,
    Step,
    canonical_json,
    chained,
    merged,
    parsed,
    short_hash,
)

NO_ATTRIBUTE = EMPTY

_MESSAGE = pa.struct(
    [
        ("message_hash", pa.string()),
        ("role", pa.string()),
        ("content", pa.string()),
        ("name", pa.string()),
        ("tool_calls", pa.string()),
        ("tool_call_id", pa.string()),
    ]
)
_SNAPSHOT = pa.struct(
    [
        ("context_snapshot_id", pa.string()),
        ("parent_snapshot_id", pa.string()),
        ("message_hash", pa.string()),
        ("depth", pa.int32()),
    ]
)
_ATTRIBUTE = pa.struct(
    [("attribute_hash", pa.string()), ("kind", pa.string()), ("content", pa.string())]
)
_CHOICE = pa.struct(
    [
        ("choice_index", pa.int32()),
        ("response_snapshot_id", pa.string()),
        ("message_hash", pa.string()),
        ("post_hashes", pa.list_(pa.string())),
        ("pair_hashes", pa.list_(pa.string())),
        ("response_text", pa.string()),
        ("tool_calls", pa.string()),
        ("finish_reason", pa.string()),
    ]
)
_TIME = pa.timestamp("us")

SCHEMA = pa.schema(
    [
        ("raw_dlt_id", pa.string()),
        ("event_key", pa.string()),
        ("event_id", pa.string()),
        ("event_at", _TIME),
        ("problem", pa.string()),
        ("tenant", pa.string()),
        ("session_id", pa.string()),
        ("theme_id", pa.string()),
        ("turn_id", pa.string()),
        ("parent_turn_id", pa.string()),
        ("context_anchor_turn_id", pa.string()),
        ("branch_kind", pa.string()),
        ("variant_config", pa.string()),
        ("is_replay", pa.bool_()),
        ("replay_run_id", pa.string()),
        ("model", pa.string()),
        ("model_snapshot_id", pa.string()),
        ("backend", pa.string()),
        ("parameters", pa.string()),
        ("sampling_hash", pa.string()),
        ("started_at", _TIME),
        ("ended_at", _TIME),
        ("duration_ms", pa.int64()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("context_snapshot_id", pa.string()),
        ("message_hashes", pa.list_(pa.string())),
        ("prefix_hashes", pa.list_(pa.string())),
        ("pair_hashes", pa.list_(pa.string())),
        ("first_user_hash", pa.string()),
        ("prompt_hash", pa.string()),
        ("request_hash", pa.string()),
        ("system_hash", pa.string()),
        ("tools_hash", pa.string()),
        ("message_count", pa.int32()),
        ("choices", pa.list_(_CHOICE)),
        ("new_messages", pa.list_(_MESSAGE)),
        ("new_snapshots", pa.list_(_SNAPSHOT)),
        ("new_attributes", pa.list_(_ATTRIBUTE)),
    ]
)

# What of a request is neither said, nor offered, nor a setting of the sampling.
_NO_PARAMETERS = frozenset(
    {
        *("messages", "tools", "functions", "model", "stream", "stream_options", "user"),
        *("metadata", "store", "safety_identifier", "prompt_cache_key", "service_tier"),
    }
)
_STATUS = {
    "llm.chat.completed": "completed",
    "llm.chat.interrupted": "interrupted",
    "llm.chat.failed": "failed",
}


class RequestReader:
    """Reads events; what their rows say of messages, histories and attributes is said once.

    Each message, snapshot and attribute is in the row that first holds it, and may come again.

    Args:
        remembered: how many of each to remember at most.
    """

    def __init__(self, remembered: int = 100_000) -> None:
        self._messages = Messages(remembered)
        self._limit = 5 * remembered
        self._said: set[str] = set()
        self._tools = lru_cache(1_000)(_tools)
        self._parameters = lru_cache(1_000)(_parameters)
        self._system = lru_cache(10_000)(_system)

    def table(self, events: Iterable[tuple[str, str, str]]) -> pa.Table:
        """Rows of `SCHEMA` for events given as (raw_dlt_id, event_key, payload)."""
        rows = [self.row(*event) for event in events]
        columns = list(zip(*rows, strict=True)) or [[] for _ in SCHEMA]
        arrays = [_array(column, f.type) for column, f in zip(columns, SCHEMA, strict=True)]
        return pa.Table.from_arrays(arrays, schema=SCHEMA)

    def row(self, raw_dlt_id: str, event_key: str, payload: str) -> tuple[Any, ...]:
        """The row of one event; one that cannot be read says why in `problem`, and little else."""
        names = (raw_dlt_id, event_key)
        try:
            event = parsed(payload)
            return (*names, *self._read(event, event_key))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            # What this event would have said first is said by no row.
            self._messages.forget()
            self._said.clear()
            problem = str(error) or type(error).__name__
            rest = (() if pa.types.is_list(f.type) else None for f in list(SCHEMA)[5:])
            return (*names, None, None, problem, *rest)

    def _read(self, event: dict[str, Json], event_key: str) -> Iterator[Any]:
        data = _object(event, "data")
        request = _object(data, "request")
        if not isinstance(request.get("messages"), list):
            raise ValueError("request.messages is no list")
        response = data.get("response") if isinstance(data.get("response"), dict) else {}
        usage = response.get("usage") if isinstance(response.get("usage"), dict) else {}
        history = self._messages.history(request["messages"])
        tenant = _text(data.get("tenant")) or ""
        system_hash, system = self._system(tuple(history.system))
        tools_hash, tools = self._tools(orjson.dumps(_first(request, "tools", "functions")))
        attributes = [(system_hash, "system", system), (tools_hash, "tools", tools)]
        parameters, sampling_hash = self._parameters(
            orjson.dumps({k: v for k, v in request.items() if k not in _NO_PARAMETERS})
        )
        snapshots, messages = self._new(history)
        prefixes, pairs, prefill = _places(history)
        choices = [
            self._choice(choice, history, prefill, snapshots, messages)
            for choice in response.get("choices") or []
        ]
        event_at = _time(event.get("time"))
        duration = _number(data.get("duration_ms"))
        started_at, ended_at = _span(_time(data.get("started_at")), event_at, duration)
        replay = data.get("is_replay")
        from_users = (step.digest for step in history.steps if step.message.role == "user")
        first_user = next(from_users, None)
        last = history.steps[-1] if history.steps else None
        prompt = last.digest if last and last.message.role == "user" else None
        return iter(
            (
                _text(event.get("id")),
                event_at,
                None,
                tenant,
                _text(data.get("session_id")) or _text(event.get("subject")),
                _text(data.get("theme_id")),
                _text(data.get("turn_id")) or f"event:{event_key[:32]}",
                _text(data.get("parent_turn_id")),
                _text(data.get("context_anchor_turn_id")),
                _text(data.get("branch_kind")),
                _json(data.get("variant_config")),
                replay not in (None, False, "", "false", "0"),
                _text(data.get("replay_run_id")) or (replay if isinstance(replay, str) else None),
                _text(request.get("model")) or _text(response.get("model")),
                _text(data.get("model_snapshot_id")),
                _text(data.get("backend")),
                parameters,
                sampling_hash,
                started_at,
                ended_at,
                duration,
                _STATUS.get(event.get("type", "")) or _text(data.get("status")) or "completed",
                _json(data.get("error")),
                _number(usage.get("prompt_tokens")),
                _number(usage.get("completion_tokens")),
                history.end,
                [step.digest for step in history.steps],
                prefixes,
                pairs,
                first_user,
                prompt,
                short_hash(f"{history.end}:{system_hash}:{tools_hash}".encode()),
                system_hash,
                tools_hash,
                len(request["messages"]),
                choices,
                messages,
                snapshots,
                [a for a in attributes if a[2] and self._is_new(f"{tenant}:{a[0]}")],
            )
        )

    def _choice(
        self,
        choice: Json,
        history: History,
        prefill: Message | None,
        snapshots: list[Any],
        messages: list[Any],
    ) -> tuple[Any, ...]:
        if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
            raise ValueError("a choice without a message")
        said = choice["message"]
        response = self._messages.message({**said, "role": said.get("role") or "assistant"})
        end = chained(history.end, response.digest)
        posts, pairs = [end], [_pair(history, len(history.steps), response)]
        if prefill:
            whole = merged(prefill, response)
            last = len(history.steps) - 1
            posts.append(chained(history.before(last), whole.digest))
            pairs.append(_pair(history, last, whole))
        if self._is_new(end):
            snapshots.append((end, history.end, response.digest, len(history.steps) + 1))
            if self._is_new(response.digest):
                messages.append(_row(response, None, response.digest))
        return (
            _number(choice.get("index")) or 0,
            end,
            response.digest,
            posts,
            [pair for pair in pairs if pair],
            response.content,
            _json(choice["message"].get("tool_calls")),
            _text(choice.get("finish_reason")),
        )

    def _new(self, history: History) -> tuple[list[Any], list[Any]]:
        """Snapshots and messages of a history that were not said yet."""
        snapshots: list[Any] = []
        messages: list[Any] = []
        for index in range(history.known, len(history.steps)):
            end, digest, message, call = history.steps[index]
            if self._is_new(end):
                snapshots.append((end, history.before(index), digest, index + 1))
                if self._is_new(digest):
                    messages.append(_row(message, call, digest))
        return snapshots, messages

    def _is_new(self, digest: str) -> bool:
        if digest in self._said:
            return False
        if len(self._said) >= self._limit:
            self._said.clear()
        self._said.add(digest)
        return True


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Values as Arrow: lists of structs field by field, which takes a quarter of the time."""
    if not pa.types.is_list(kind) or not pa.types.is_struct(kind.value_type):
        return pa.array(values, kind)
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, values), np.int32, len(values)), out=offsets[1:])
    fields = list(kind.value_type)
    columns = list(zip(*chain.from_iterable(values), strict=True)) or [()] * len(fields)
    children = [pa.array(column, f.type) for column, f in zip(columns, fields, strict=True)]
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.StructArray.from_arrays(children, fields=fields)
    )


def _row(message: Message, call: int | None, digest: str) -> tuple[Any, ...]:
    answered = None if call is None else str(call)
    return (digest, message.role, message.content, message.name, message.tool_calls, answered)


def _places(history: History) -> tuple[list[str], list[str], Message | None]:
    """Where a request goes on: hashes of what ends in an answer, and that ends in a prefill.

    Returns:
        The chain up to the last assistant's message and, where the request ends in a prefill, up to
        the one before it; the pairs of these messages with the one before each; the prefill.
    """
    steps = history.steps
    last = _last_assistant(steps, len(steps))
    if last is None:
        return [], [], None
    ends = [last]
    prefill = steps[last].message if last == len(steps) - 1 else None
    if prefill:
        before = last
        while before and steps[before - 1].message.role == "assistant":
            before -= 1
        answered = _last_assistant(steps, before)
        ends += [] if answered is None else [answered]
    pairs = (_pair(history, end, steps[end].message) for end in ends)
    return [steps[end].end for end in ends], [pair for pair in pairs if pair], prefill


def _last_assistant(steps: list[Step], end: int) -> int | None:
    return next((n for n in range(end - 1, -1, -1) if steps[n].message.role == "assistant"), None)


def _pair(history: History, index: int, answer: Message) -> str | None:
    """The hash of a message and the one before it; it does not depend on what came earlier.

    For a tool's result that means: on which of the calls it answers.
    """
    if not index:
        return None
    before = history.steps[index - 1].message
    return short_hash(f"{before.digest}>{answer.digest}".encode())


def _system(system: tuple[tuple[int, Message], ...]) -> tuple[str, str | None]:
    """The system's messages with their positions: hash and JSON."""
    if not system:
        return NO_ATTRIBUTE, None
    texts = [{"position": n, "content": m.content, "name": m.name} for n, m in system]
    content = orjson.dumps(texts)
    return short_hash(content), content.decode()


def _tools(tools: bytes) -> tuple[str, str | None]:
    """The tools on offer: hash and canonical JSON."""
    offered = orjson.loads(tools)
    if not offered:
        return NO_ATTRIBUTE, None
    content = canonical_json(offered)
    return short_hash(content), content.decode()


def _parameters(given: bytes) -> tuple[str, str]:
    """The other parameters of a request as canonical JSON, and their hash without the seed."""
    parameters = {name: value for name, value in orjson.loads(given).items() if value is not None}
    text = canonical_json(parameters).decode()
    parameters.pop("seed", None)
    return text, short_hash(canonical_json(parameters))


def _first(parent: dict[str, Json], *names: str) -> Json:
    return next((parent[name] for name in names if parent.get(name)), None)


def _span(
    started_at: datetime | None, event_at: datetime | None, duration: int | None
) -> tuple[datetime, datetime]:
    """When a request began and ended; what was not recorded is taken from the event's own time."""
    length = timedelta(milliseconds=duration or 0)
    if started_at is None and event_at is None:
        raise ValueError("neither time nor data.started_at is a time")
    if started_at is None:
        assert event_at is not None
        started_at = event_at - length
    return started_at, started_at + length


def _time(text: Json) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _object(parent: dict[str, Json], name: str) -> dict[str, Json]:
    value = parent.get(name) if isinstance(parent, dict) else None
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no object")
    return value


def _number(value: Json) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if abs(value) < 2**31 else None


def _text(value: Json) -> str | None:
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _json(value: Json) -> str | None:
    """JSON text of a value; null, and an object or list without anything, is none."""
    if isinstance(value, str):
        return value or None
    return orjson.dumps(value).decode() if value else None


def read_requests(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Rows of `SCHEMA` for batches of events, in their order; many batches by all processors.

    Args:
        batches: columns raw_dlt_id, event_key, payload.
    """
    waiting = iter(batches)
    few = list(islice(waiting, 2))
    if len(few) < 2:
        yield from map(_Worker(), few)
        return
    workers = os.cpu_count() or 1
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin) as pool:
        running: deque[Future[pa.RecordBatch]] = deque()
        for batch in chain(few, waiting):
            running.append(pool.submit(_work, batch))
            if len(running) > 2 * workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


class _Worker:
    """Turns batches into rows; remembers from one to the next."""

    def __init__(self) -> None:
        self._reader = RequestReader()

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        columns = [batch.column(n).to_pylist() for n in range(3)]
        table = self._reader.table(zip(*columns, strict=True)).combine_chunks()
        return next(iter(table.to_batches()), pa.RecordBatch.from_pylist([], SCHEMA))


def _begin() -> None:
    global _worker
    # There are no cycles in what a row is made of, and looking for them takes a third of the time.
    gc.disable()
    _worker = _Worker()


def _work(batch: pa.RecordBatch) -> pa.RecordBatch:
    return _worker(batch)


_worker: _Worker
