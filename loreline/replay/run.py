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

import openai

from loreline.conversations.canonical import Messages, canonical_json, parsed
from loreline.errors import LorelineError
from loreline.replay.contexts import Contexts, Json, Row, chat_messages, tools_of
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
        step: the one that was answered.
        answer: to it.
        turn_id: of that answer; None where the gateway does not tell.
    """

    history: list[Row]
    step: Step
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
    """

    response: dict[str, Json]
    turn_id: str | None
    error: dict[str, Json] | None
    started_at: datetime
    seconds: float

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
                added, obstacle = self._added(step, before)
                if obstacle:
                    self.outcome.stopped[obstacle] += sum(1 for _ in step.all())
                    continue
                if not added:
                    waiting += [(following, before) for following in reversed(step.following)]
                    continue
                history = before.history + added
            call = made.get(trajectory.call_id(step))
            if call and call.status == "completed":
                self._count("known")
            else:
                call = self._call(trajectory, step, before, history, call.attempt if call else 0)
            if call and call.status == "completed":
                place = _place(step, history, call)
                waiting += [(following, place) for following in reversed(step.following)]

    def _added(self, step: Step, before: _Place) -> tuple[list[Row], str]:
        """What a client says at a step, nothing where it is left out; or why it cannot go on.

        A tool's result belongs to the call that it answers. Where the model has made the same calls
        again, the results are the same; where it has made none, what a person said next follows;
        where it has made others, nobody knows what they would have given.
        """
        if before.answer["tool_calls"] == self._original_calls(before.step):
            return step.added, ""
        if before.answer["tool_calls"]:
            return [], "an answer calls tools, and what they would give is not known"
        return [row for row in step.added if row["role"] != "tool"], ""

    def _original_calls(self, step: Step) -> str | None:
        answer = step.node.response_snapshot_id
        return self._contexts.history(answer)[-1]["tool_calls"] if answer else None

    def _request(self, trajectory: Trajectory, step: Step, history: list[Row]) -> dict[str, Json]:
        change, node = trajectory.change, step.node
        if change.system is None:
            system = self._contexts.attribute(node, node.system_hash)
        else:
            system = [{"position": 0, "content": change.system}] if change.system else []
        tools = change.tools
        if tools is None:
            tools = self._contexts.attribute(node, node.tools_hash)
        return {
            "model": trajectory.model(step),
            "messages": chat_messages(history, system),
            **tools_of(tools),
            **change.parameters_of(node),
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
            call_id = trajectory.call_id(step)
            reply = self._reply(request, {**_headers(context), "Idempotency-Key": call_id})
            prompt_tokens, completion_tokens = _used(reply.response)
            call = Call(
                call_id=call_id,
                attempt=attempts + 1,
                replay_run_id=trajectory.replay_run_id,
                branch_node_id=step.node.branch_node_id,
                model=request["model"],
                status=reply.status,
                event=self._event(f"{call_id}-{attempts + 1}", step, context, request, reply),
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
                cost=self._estimator.cost(
                    request["model"], prompt_tokens or 0, completion_tokens or 0
                ),
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
        turn_id, error = None, None
        try:
            answer = self._client.chat.completions.with_raw_response.create(
                model=request["model"],
                messages=request["messages"],
                extra_body=others,
                extra_headers=headers,
            )
            turn_id = answer.headers.get(TURN_HEADER)
            response = _checked(answer.http_response.content)
        except openai.APITimeoutError:
            error = {"message": f"no answer within {self._limits.timeout:g} s"}
        except openai.APIConnectionError as refused:
            raise LorelineError(
                f"nothing answers at {self._endpoint.host} ({refused.__cause__ or refused})",
                "start the gateway, or check LORELINE_GATEWAY_URL; then run this again",
            ) from refused
        except (openai.AuthenticationError, openai.PermissionDeniedError) as refused:
            raise LorelineError(
                f"{self._endpoint.host} refused the call ({refused.message})",
                "check LORELINE_GATEWAY_API_KEY",
            ) from refused
        except openai.APIStatusError as failed:
            error = {"status": failed.status_code, "message": failed.message}
        except ValueError as unreadable:
            error = {"message": f"the endpoint answered with something else: {unreadable}"}
        return _Reply(response, turn_id, error, started_at, time.monotonic() - started)

    def _event(
        self,
        event_id: str,
        step: Step,
        context: dict[str, Any],
        request: dict[str, Json],
        reply: _Reply,
    ) -> dict[str, Json]:
        """What a gateway would have written of a call."""
        call_id = event_id.rpartition("-")[0]
        return {
            "specversion": "1.0",
            "id": event_id,
            "source": SOURCE,
            "type": f"llm.chat.{reply.status}",
            "time": datetime.now(UTC).isoformat(),
            "subject": step.node.session_id,
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


def _place(step: Step, history: list[Row], call: Call) -> _Place:
    """Where a call's first answer leads."""
    data = call.event["data"]
    message = Messages().message(data["response"]["choices"][0]["message"])
    answer: Row = {
        "role": "assistant",
        "content": message.content,
        "name": message.name,
        "tool_calls": message.tool_calls,
        "tool_call_id": None,
    }
    said = history
    if history and history[-1]["role"] == "assistant":
        # The answer to a prefill goes on from it in the same message.
        begun = history[-1]["content"] or ""
        said, answer = history[:-1], {**answer, "content": begun + (answer["content"] or "")}
    return _Place([*said, answer], step, answer, data["turn_id"])


def _context(trajectory: Trajectory, step: Step, before: _Place | None) -> dict[str, Any]:
    """What an event says of a call's place in the forest, and its headers.

    The anchor puts it into a group with the original. That holds for equal messages alone, so
    neither for another system's text nor for what follows another answer.
    """
    node, change = step.node, trajectory.change
    is_same = before is None and change.system is None
    return {
        "session_id": node.session_id,
        "theme_id": node.theme_id,
        "parent_turn_id": node.parent_turn_id if before is None else before.turn_id,
        "context_anchor_turn_id": node.turn_id if is_same else None,
        "variant_config": change.config or None,
        "is_replay": True,
        "replay_run_id": trajectory.replay_run_id,
    }


def _headers(context: dict[str, Any]) -> dict[str, str]:
    """The headers from which a gateway takes the place of a call in the forest."""
    config = context["variant_config"]
    values = {
        "x-session-id": context["session_id"],
        "x-theme-id": context["theme_id"],
        "x-parent-turn-id": context["parent_turn_id"],
        "x-context-anchor-turn-id": context["context_anchor_turn_id"],
        "x-variant-config": canonical_json(config).decode() if config else None,
        "x-replay": context["replay_run_id"],
    }
    return {name: quote(value, safe=_PRINTABLE) for name, value in values.items() if value}


def _used(response: dict[str, Json]) -> tuple[int | None, int | None]:
    """Tokens read and written, where the response tells."""
    usage = response.get("usage")
    told = usage if isinstance(usage, dict) else {}
    read, written = told.get("prompt_tokens"), told.get("completion_tokens")
    return read if type(read) is int else None, written if type(written) is int else None


def _checked(content: bytes) -> dict[str, Json]:
    """A response with an answer in it.

    Raises:
        ValueError: it is none.
    """
    response = parsed(content)
    choices = response.get("choices") if isinstance(response, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ValueError("it has no choices")
    Messages().message(choices[0].get("message"))
    return response
