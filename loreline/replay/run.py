"""Making the calls of a replay: several at once, within a budget, each answer kept at once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from loreline.calls.budget import Limits, Meter, Outcome, Prices, in_threads
from loreline.calls.endpoint import Client, Endpoint, Reply, first_answer, header
from loreline.conversations.canonical import canonical_json
from loreline.conversations.chat import chat_messages, tools_of
from loreline.replay.contexts import Contexts, Json, Row, moved
from loreline.replay.journal import Call, Journal
from loreline.replay.plan import Step, Trajectory, estimated

SOURCE = "urn:loreline:replay"


@dataclass
class ReplayOutcome(Outcome):
    """What became of the calls of a replay.

    Attributes:
        stopped: later turns that could not be asked, by the reason.
    """

    stopped: Counter[str] = field(default_factory=Counter)


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


class Replay:
    """One run of `loreline replay`.

    Args:
        contexts: what was asked.
        journal: where answers are kept.
        prices: of models.
        endpoint: where calls go.
        limits: how much.
        progress: told the outcome so far, after each call.
    """

    def __init__(
        self,
        contexts: Contexts,
        journal: Journal,
        prices: Prices,
        endpoint: Endpoint,
        limits: Limits,
        progress: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        self._contexts = contexts
        self._journal = journal
        self._prices = prices
        self._endpoint = endpoint
        self._client = Client(endpoint, limits)
        self._concurrency = limits.concurrency
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.outcome = ReplayOutcome()
        self._meter = Meter(limits, self.outcome, progress)

    def run(self, trajectories: Iterable[Trajectory]) -> ReplayOutcome:
        """Make the calls of trajectories that were not answered yet.

        Interrupted, it waits for the calls under way and keeps their answers.

        Raises:
            LorelineError: nothing answers at the endpoint, or it refuses the credentials.
        """
        in_threads(trajectories, self._follow, self._concurrency, self._stop)
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
                self._meter.count("known")
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
        estimate = estimated(self._prices, trajectory, step)
        with self._meter.reserved(estimate) as is_allowed:
            if not is_allowed:
                return None
            request = self._request(trajectory, step, history)
            context = _context(trajectory, step, before)
            call_id, attempt = trajectory.call_id(step), attempts + 1
            # Another attempt has another key: by the same one a gateway would repeat the failure.
            key = f"{call_id}-{attempt}"
            reply = self._client.ask(request, {**_headers(context), "Idempotency-Key": key})
            prompt_tokens, completion_tokens = reply.used(estimate)
            cost = self._prices.cost(request["model"], prompt_tokens, completion_tokens)
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
                cost=cost,
                is_recorded_here=not self._endpoint.records,
            )
            self._journal.save(call)
            self._meter.spend(prompt_tokens + completion_tokens, cost)
            self._meter.count(call.status, reply.error and reply.error["message"])
        return call

    def _event(
        self,
        event_id: str,
        call_id: str,
        step: Step,
        context: dict[str, Any],
        request: dict[str, Json],
        reply: Reply,
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
    message = first_answer(data["response"])
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
    return {name: header(value) for name, value in values.items() if value}
