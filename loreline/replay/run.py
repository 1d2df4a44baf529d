"""Making the calls of a replay: several at once, within a budget, each answer kept at once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2
import openai

from loreline.conversations.canonical import Message, Messages, canonical_json, parsed
from loreline.errors import LorelineError
from loreline.replay.contexts import Contexts, Json, Row, chat_messages, moved, tools_of
from loreline.replay.journal import Call, Journal
from loreline.replay.plan import Estimate, Estimator, Step, Trajectory

SOURCE = "urn:loreline:replay"
# By this header of an answer a gateway tells the id under which it records the turn.
TURN_HEADER = "x-turn-id"
# What a header may hold as it is: printable ASCII.
_PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))


@dataclass(frozen=True)
class Endpoint:
    """Where calls go.

    Attributes:
        url: of the OpenAI-compatible API, up to and with its `/v1`.
        api_key: empty where none is needed.
        records: whether it records calls itself, so that their events need not be written here.
    """

    url: str
    api_key: str = field(default="", repr=False)
    records: bool = False

    @property
    def host(self) -> str:
        """Host and port, without what else an address may hold, such as a password."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


@dataclass(frozen=True)
class Limits:
    """How much at once, and in all.

    Attributes:
        tokens: of all calls together, read and written.
        cost: of all calls together, in the currency of `model_prices`; None for no limit.
        concurrency: calls at once.
        retries: of a call that failed for a reason that may pass.
        timeout: of a call, in seconds.
    """

    tokens: int
    cost: Decimal | None = None
    concurrency: int = 4
    retries: int = 3
    timeout: float = 120.0


@dataclass
class Outcome:
    """What became of the calls of a replay.

    Attributes:
        calls: how many were completed, failed, answered before (known), or kept from being made by
            the budget (over_budget).
        stopped: later turns that could not be asked, by the reason.
        tokens: that were read and written.
        cost: as far as models have prices.
        errors: of failed calls, by what they said.
    """

    calls: Counter[str] = field(default_factory=Counter)
    stopped: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    cost: Decimal = Decimal(0)


@dataclass(frozen=True)
class _Place:
    """How far a trajectory is.

    Attributes:
        history: canonical messages, the last answer with them.
        answer: that one.
        turn_id: of that answer; None where the gateway does not tell.
    """

    history: list[Row]
    answer: Row
    turn_id: str | None


@dataclass(frozen=True)
class _Reply:
    """What an endpoint answered, or why it did not.

    Attributes:
        response: empty where it failed.
        turn_id: under which the endpoint records the turn, where it tells.
        error: None where it did not fail.
        started_at: when it was asked first.
        seconds: until the answer, retries with them.
        was_asked_in_vain: whether it may have been answered, and paid for, without our hearing it.
    """

    response: dict[str, Json]
    turn_id: str | None
    error: dict[str, Json] | None
    started_at: datetime
    seconds: float
    was_asked_in_vain: bool

    @property
    def status(self) -> str:
        """As an event says it."""
        return "failed" if self.error else "completed"


class Replay:
    """One run of `loreline replay`.

    Args:
        contexts: what was asked.
        journal: where answers are kept.
        estimator: of what calls may take.
        endpoint: where calls go.
        limits: how much.
        progress: told the outcome so far, after each call.
    """

    def __init__(
        self,
        contexts: Contexts,
        journal: Journal,
        estimator: Estimator,
        endpoint: Endpoint,
        limits: Limits,
        progress: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        self._contexts = contexts
        self._journal = journal
        self._estimator = estimator
        self._endpoint = endpoint
        self._limits = limits
        self._progress = progress
        self._client = openai.OpenAI(
            base_url=endpoint.url,
            api_key=endpoint.api_key or "none",
            max_retries=limits.retries,
            timeout=limits.timeout,
        )
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._reserved_tokens = 0
        self._reserved_cost = Decimal(0)
        self.outcome = Outcome()

    def run(self, trajectories: Iterable[Trajectory]) -> Outcome:
        """Make the calls of trajectories that were not answered yet.

        Interrupted, it waits for the calls under way and keeps their answers.

        Raises:
            LorelineError: nothing answers at the endpoint, or it refuses the credentials.
        """
        waiting = iter(trajectories)

        def work() -> None:
            while not self._stop.is_set():
                with self._lock:
                    trajectory = next(waiting, None)
                if trajectory is None:
                    return
                try:
                    self._follow(trajectory)
                except BaseException:
                    self._stop.set()
                    raise

        with ThreadPoolExecutor(self._limits.concurrency) as pool:
            workers = [pool.submit(work) for _ in range(self._limits.concurrency)]
            try:
                for worker in workers:
                    worker.result()
            finally:
                self._stop.set()
        return self.outcome

    def _follow(self, trajectory: Trajectory) -> None:
        """Take the steps of a trajectory, the later ones on what the earlier were answered."""
        made = self._journal.calls([trajectory.replay_run_id])
        waiting: list[tuple[Step, _Place | None]] = [(trajectory.first, None)]
        while waiting and not self._stop.is_set():
            step, before = waiting.pop()
            if before is None:
                history = self._contexts.history(step.node.context_snapshot_id)
            else:
                added = _said_now(step, before)
                if added is None:
                    self._leave(
                        "an answer calls tools, and what they would give is not known", step
                    )
                    continue
                if not added and step.added:
                    waiting += [(following, before) for following in reversed(step.following)]
                    continue
                history = before.history + added
            call = made.get(trajectory.call_id(step))
            if call and call.status == "completed":
                self._count("known")
            else:
                call = self._call(trajectory, step, before, history, call.attempt if call else 0)
            if call and call.status == "completed":
                place = _place(history, call)
                waiting += [(following, place) for following in reversed(step.following)]
            else:
                for following in step.following:
                    self._leave("the turn before has no answer", following)

    def _leave(self, reason: str, step: Step) -> None:
        with self._lock:
            self.outcome.stopped[reason] += sum(1 for _ in step.all())

    def _request(self, trajectory: Trajectory, step: Step, history: list[Row]) -> dict[str, Json]:
        change, node = trajectory.change, step.node
        if change.system is None:
            system = self._contexts.attribute(node, node.system_hash) or []
            if step is not trajectory.first:
                system = moved(system, step.length, step.length - len(step.added), len(history))
        else:
            system = [{"position": 0, "content": change.system}] if change.system else []
        tools = change.tools
        if tools is None:
            tools = self._contexts.attribute(node, node.tools_hash)
        return {
            "model": trajectory.model(step),
            "messages": chat_messages(history, system),
            **tools_of(tools),
            **change.parameters_of(node, trajectory.repetition),
        }

    def _call(
        self,
        trajectory: Trajectory,
        step: Step,
        before: _Place | None,
        history: list[Row],
        attempts: int,
    ) -> Call | None:
        """Make a call and keep what came of it; None where the budget does not allow it."""
        estimate = self._estimator.estimate(trajectory, step)
        if not self._reserve(estimate):
            self._count("over_budget")
            return None
        try:
            request = self._request(trajectory, step, history)
            context = _context(trajectory, step, before)
            call_id, attempt = trajectory.call_id(step), attempts + 1
            # Another attempt has another key: by the same one a gateway would repeat the failure.
            key = f"{call_id}-{attempt}"
            reply = self._reply(request, {**_headers(context), "Idempotency-Key": key})
            prompt_tokens, completion_tokens = self._used(reply, estimate)
            call = Call(
                call_id=call_id,
                attempt=attempt,
                replay_run_id=trajectory.replay_run_id,
                branch_node_id=step.node.branch_node_id,
                model=request["model"],
                status=reply.status,
                event=self._event(key, call_id, step, context, request, reply),
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
                cost=self._estimator.cost(request["model"], prompt_tokens, completion_tokens),
                is_recorded_here=not self._endpoint.records,
            )
            self._journal.save(call)
            self._count(call.status, call)
        finally:
            self._release(estimate)
        return call

    def _reply(self, request: dict[str, Json], headers: dict[str, str]) -> _Reply:
        """Ask, and ask again for as long as a failure may pass.

        Raises:
            LorelineError: no call can succeed.
        """
        others = {name: value for name, value in request.items() if name not in _OWN}
        started_at, started = datetime.now(UTC), time.monotonic()
        response: dict[str, Json] = {}
        turn_id, error, was_asked_in_vain = None, None, False
        try:
            answer = self._client.chat.completions.with_raw_response.create(
                model=request["model"],
                messages=request["messages"],
                extra_body=others,
                extra_headers=headers,
            )
            turn_id = answer.headers.get(TURN_HEADER)
            response = _read(answer.http_response.content)
            error = _fault(response)
        except openai.APITimeoutError:
            error = {"message": f"no answer within {self._limits.timeout:g} s"}
            was_asked_in_vain = True
        except openai.APIConnectionError as broken:
            if isinstance(broken.__cause__, httpx2.ConnectError):
                raise LorelineError(
                    f"nothing answers at {self._endpoint.host} ({broken.__cause__})",
                    "start the gateway, or check LORELINE_GATEWAY_URL; then run this again",
                ) from broken
            error = {"message": f"the connection broke ({broken.__cause__ or broken})"}
            was_asked_in_vain = True
        except openai.AuthenticationError as refused:
            raise LorelineError(
                f"{self._endpoint.host} refused the credentials ({refused.message})",
                "check LORELINE_GATEWAY_API_KEY",
            ) from refused
        except openai.APIStatusError as failed:
            error = {"status": failed.status_code, "message": failed.message}
        seconds = time.monotonic() - started
        return _Reply(response, turn_id, error, started_at, seconds, was_asked_in_vain)

    def _event(
        self,
        event_id: str,
        call_id: str,
        step: Step,
        context: dict[str, Any],
        request: dict[str, Json],
        reply: _Reply,
    ) -> dict[str, Json]:
        """What a gateway would have written of a call."""
        return {
            "specversion": "1.0",
            "id": event_id,
            "source": SOURCE,
            "type": f"llm.chat.{reply.status}",
            "time": datetime.now(UTC).isoformat(),
            "subject": context["session_id"],
            "data": {
                "turn_id": reply.turn_id if self._endpoint.records else call_id,
                **context,
                "tenant": step.node.tenant or None,
                "request": request,
                "response": reply.response,
                "model_snapshot_id": reply.response.get("model"),
                "backend": self._endpoint.host,
                "started_at": reply.started_at.isoformat(),
                "duration_ms": round(1000 * reply.seconds),
                "status": reply.status,
                "error": reply.error,
            },
        }

    def _reserve(self, estimate: Estimate) -> bool:
        """Set aside what a call may take; what is under way counts as spent."""
        with self._lock:
            tokens = self.outcome.tokens + self._reserved_tokens + estimate.tokens
            cost = self.outcome.cost + self._reserved_cost + (estimate.cost or 0)
            limit = self._limits.cost
            if tokens > self._limits.tokens or (limit is not None and cost > limit):
                return False
            self._reserved_tokens += estimate.tokens
            self._reserved_cost += estimate.cost or 0
            return True

    def _release(self, estimate: Estimate) -> None:
        with self._lock:
            self._reserved_tokens -= estimate.tokens
            self._reserved_cost -= estimate.cost or 0

    def _used(self, reply: _Reply, estimate: Estimate) -> tuple[int, int]:
        """Tokens that a call took; where it does not tell, what it was expected to take."""
        if reply.was_asked_in_vain:
            tries = self._limits.retries + 1
            return tries * estimate.prompt_tokens, tries * estimate.completion_tokens
        if not reply.response:
            return 0, 0
        usage = reply.response.get("usage")
        told = usage if isinstance(usage, dict) else {}
        read, written = told.get("prompt_tokens"), told.get("completion_tokens")
        return (
            read if type(read) is int else estimate.prompt_tokens,
            written if type(written) is int else estimate.completion_tokens,
        )

    def _count(self, what: str, call: Call | None = None) -> None:
        with self._lock:
            self.outcome.calls[what] += 1
            if call:
                self.outcome.tokens += (call.prompt_tokens or 0) + (call.completion_tokens or 0)
                self.outcome.cost += call.cost or 0
            if call and call.status == "failed":
                self.outcome.errors[call.event["data"]["error"]["message"]] += 1
            self._progress(self.outcome)


# Fields of a request that the client has arguments of its own for.
_OWN = ("model", "messages")


def _said_now(step: Step, before: _Place) -> list[Row] | None:
    """What a client says at a step; None where nobody knows.

    A tool's result belongs to the call that it answers. Where the model has made the calls of then,
    the results are those of then; where it has made none, what a person said next follows; where it
    has made others, nobody knows what they would have given.
    """
    calls = before.answer["tool_calls"]
    if calls == step.original_calls:
        return step.added
    return None if calls else [row for row in step.added if row["role"] != "tool"]


def _place(history: list[Row], call: Call) -> _Place:
    """Where a call's first answer leads."""
    data = call.event["data"]
    message = _answer(data["response"])
    answer: Row = {
        "role": "assistant",
        "content": message.content,
        "name": message.name,
        "tool_calls": message.tool_calls,
        "tool_call_id": None,
    }
    said = history
    if history and history[-1]["role"] == "assistant" and not history[-1]["tool_calls"]:
        # The answer to a prefill goes on from it in the same message.
        begun = history[-1]["content"] or ""
        said, answer = history[:-1], {**answer, "content": begun + (answer["content"] or "")}
    return _Place([*said, answer], answer, data["turn_id"])


def _context(trajectory: Trajectory, step: Step, before: _Place | None) -> dict[str, Any]:
    """What an event says of a call's place in the forest, and its headers.

    The anchor puts it into a group with the original. That holds for equal messages alone, so
    neither for another system's text nor for what follows another answer.
    """
    node, change = step.node, trajectory.change
    is_same = before is None and change.system is None
    # A session that no client named has its name from the forest.
    is_named = not node.session_id.startswith("unnamed:")
    return {
        "session_id": node.session_id if is_named else None,
        "theme_id": node.theme_id,
        "parent_turn_id": node.parent_turn_id if before is None else before.turn_id,
        "context_anchor_turn_id": node.turn_id if is_same else None,
        "variant_config": change.config or None,
        "is_replay": True,
        "replay_run_id": trajectory.replay_run_id,
    }


def _headers(context: dict[str, Any]) -> dict[str, str]:
    """The headers from which a gateway takes the place of a call in the forest.

    Ids come from outside: what a header cannot hold is percent-encoded.
    """
    config = context["variant_config"]
    values = {
        "x-session-id": context["session_id"],
        "x-theme-id": context["theme_id"],
        "x-parent-turn-id": context["parent_turn_id"],
        "x-context-anchor-turn-id": context["context_anchor_turn_id"],
        "x-variant-config": canonical_json(config).decode() if config else None,
        "x-replay": context["replay_run_id"],
    }
    return {name: _quoted(value) for name, value in values.items() if value}


def _quoted(value: str) -> str:
    quoted = quote(value, safe=_PRINTABLE)
    # A header begins and ends with something that can be seen.
    start, end = (len(quoted) - len(quoted.lstrip()), len(quoted.rstrip()))
    return "%20" * start + quoted[start:end] + "%20" * (len(quoted) - max(start, end))


def _read(content: bytes) -> dict[str, Json]:
    """A response as JSON; as text, where it is something else."""
    try:
        response = parsed(content)
    except (ValueError, RecursionError):
        response = None
    return response if isinstance(response, dict) else {"text": content.decode(errors="replace")}


def _fault(response: dict[str, Json]) -> dict[str, Json] | None:
    """What keeps a response from being an answer."""
    try:
        _answer(response)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as fault:
        return {"message": f"the endpoint gave no answer ({str(fault) or type(fault).__name__})"}
    return None


def _answer(response: dict[str, Json]) -> Message:
    """The first answer of a response.

    Raises:
        ValueError: and others, where there is none.
    """
    choices = response.get("choices")
    if not isinstance(choices, list) or not choices:
        raise ValueError("no choices")
    said = choices[0]["message"]
    return Messages().message({**said, "role": said.get("role") or "assistant"})
