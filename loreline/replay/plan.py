"""Which calls a replay makes, and what they may cost.

A trajectory is one way to go on: a node, a model, settings, and which repetition it is. Below its
first call, the later turns of the original follow in turn. What a trajectory is called follows from
all of that, so the same replay, asked for again, finds its answers in the journal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from loreline.calls.budget import ANSWER_TOKENS, CHARACTERS_PER_TOKEN, Estimate, Prices
from loreline.conversations.canonical import canonical_json, short_hash
from loreline.errors import LorelineError
from loreline.replay.contexts import Contexts, Json, Node, Row, added

# What a request says of the tools that it offers, which other tools do not fit.
_ABOUT_TOOLS = ("tool_choice", "parallel_tool_calls", "function_call")


@dataclass(frozen=True)
class Change:
    """What is asked otherwise than it was.

    Attributes:
        model: to ask; that of each turn where it is None.
        parameters: of the request, such as temperature; they go over those of each turn.
        tools: to offer instead; None leaves them as they were.
        system: text to put in the place of all of the system's; None leaves it as it was.
    """

    model: str | None = None
    parameters: Mapping[str, Json] = field(default_factory=dict)
    tools: Sequence[Json] | None = None
    system: str | None = None

    @cached_property
    def config(self) -> dict[str, Json]:
        """What of it differs from nothing, as the `variant_config` of the calls."""
        config: dict[str, Json] = {**self.parameters}
        if self.model is not None:
            config["model"] = self.model
        if self.tools is not None:
            config["tools"] = short_hash(canonical_json(list(self.tools)))
        if self.system is not None:
            config["system"] = short_hash(self.system.encode())
        return config

    def parameters_of(self, node: Node, repetition: int = 0) -> dict[str, Json]:
        """The parameters of a call: the node's own, changed; one answer at a time.

        A seed counts up with the repetitions, which would be the same answer otherwise.
        """
        own = json.loads(node.parameters or "{}")
        if own.get("n") != 1:
            own.pop("n", None)
        if isinstance(own.get("seed"), int):
            own["seed"] += repetition
        if self.tools is not None:
            for name in _ABOUT_TOOLS:
                own.pop(name, None)
        given = dict(self.parameters)
        if "max_tokens" in given and "max_completion_tokens" in own:
            given["max_completion_tokens"] = given.pop("max_tokens")
        return {**own, **given}


@dataclass
class Step:
    """A call of a trajectory.

    Attributes:
        node: the original that it repeats.
        length: of the original's history.
        added: the canonical messages that the client added to the answer before; of the first step
            none, because its context is the node's own.
        original_calls: the tools that the answer before called, as canonical JSON.
        following: the steps that go on from its answer.
    """

    node: Node
    length: int = 0
    added: list[Row] = field(default_factory=list)
    original_calls: str | None = None
    following: list[Step] = field(default_factory=list)

    def all(self) -> Iterator[Step]:
        """The step, and all below it."""
        waiting = [self]
        while waiting:
            step = waiting.pop()
            yield step
            waiting += step.following


@dataclass(frozen=True)
class Trajectory:
    """One way to go on from a node; `repetition` counts from 0."""

    first: Step
    change: Change
    repetition: int

    @cached_property
    def replay_run_id(self) -> str:
        """What all of its turns are marked with."""
        identity = [self.first.node.branch_node_id, self.change.config, self.repetition]
        return f"replay-{short_hash(canonical_json(identity))[:16]}"

    def call_id(self, step: Step) -> str:
        """The id of a call, which is the turn id of an event that is written here."""
        return f"{self.replay_run_id}-{step.node.branch_node_id[:16]}"

    def model(self, step: Step) -> str:
        """The model that a step asks.

        Raises:
            LorelineError: nobody names one.
        """
        model = self.change.model or step.node.model
        if model is None:
            raise LorelineError(
                f"node {step.node.branch_node_id} names no model", "say which with --model"
            )
        return model


def estimated(prices: Prices, trajectory: Trajectory, step: Step) -> Estimate:
    """What a call may take, from what the original took; at most `max_tokens` where that is set."""
    change, node = trajectory.change, step.node
    prompt = (node.prompt_tokens or 0) + len(change.system or "") // CHARACTERS_PER_TOKEN
    prompt += len(json.dumps(change.tools or "")) // CHARACTERS_PER_TOKEN
    parameters = change.parameters_of(node)
    limit = parameters.get("max_completion_tokens") or parameters.get("max_tokens")
    answer = limit if isinstance(limit, int) else node.completion_tokens or ANSWER_TOKENS
    return prices.estimate(trajectory.model(step), prompt, answer)


def trajectories(
    contexts: Contexts,
    nodes: Iterable[Node],
    changes: Sequence[Change],
    repetitions: int,
    *,
    subtree: bool,
) -> Iterator[Trajectory]:
    """Every node in every way, so many times; the repetitions of a node follow each other.

    Args:
        contexts: what was asked at the nodes.
        nodes: to replay.
        changes: what is asked otherwise; one that changes nothing asks the same again. What is
            named twice is there once.
        repetitions: answers that there should be of each, those that are there already among them.
        subtree: whether the later turns below the node follow.
    """
    seen = set()
    for node in nodes:
        later = list(_later_turns(contexts, node)) if subtree else []
        for change in changes:
            first = _steps(node, later, change)
            for repetition in range(repetitions):
                trajectory = Trajectory(first, change, repetition)
                if trajectory.replay_run_id not in seen:
                    seen.add(trajectory.replay_run_id)
                    yield trajectory


def _later_turns(contexts: Contexts, node: Node) -> Iterator[Step]:
    """The original turns below a node, each after the one that it goes on from."""
    for below in contexts.below(node):
        answer = contexts.history(below.parent_response_id) if below.parent_response_id else []
        history = contexts.history(below.context_snapshot_id)
        yield Step(
            below,
            len(history),
            added(history, answer),
            answer[-1]["tool_calls"] if answer else None,
        )


def _steps(node: Node, later: Iterable[Step], change: Change) -> Step:
    first = Step(node)
    steps = {node.branch_node_id: first}
    known: dict[tuple[str, str], Step] = {}
    for turn in later:
        before = steps[turn.node.parent_node_id or ""]
        step = replace(turn, following=[])
        # What two of the original's branches asked alike is asked once, and gone on from for both.
        same = known.setdefault((before.node.branch_node_id, _identity(step, change)), step)
        if same is step:
            before.following.append(step)
        steps[turn.node.branch_node_id] = same
    return first


def _identity(step: Step, change: Change) -> str:
    node = step.node
    said: list[Any] = [row["message_hash"] for row in step.added]
    said += [step.original_calls, change.model or node.model, change.parameters_of(node)]
    said += [node.system_hash if change.system is None else None]
    said += [node.tools_hash if change.tools is None else None]
    return short_hash(canonical_json(said))
