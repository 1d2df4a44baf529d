"""Asking judges: several calls at once, within a budget, each answer kept at once."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from loreline.calls.budget import (
    ANSWER_TOKENS,
    CHARACTERS_PER_TOKEN,
    Estimate,
    Limits,
    Meter,
    Outcome,
    Prices,
    in_threads,
)
from loreline.calls.endpoint import Client, Endpoint, Reply, header
from loreline.conversations.canonical import canonical_json, short_hash
from loreline.judge import prompts, verdicts
from loreline.judge.configurations import Judge
from loreline.judge.journal import Attempts, Call, Journal
from loreline.judge.selection import SESSION_PREFIX, Selection

Json = Any

# So often is one call answered by something else than what was asked for, before it is set aside.
MOST_INVALID = 3
NOTHING = Attempts("", 0, 0, False)


@dataclass(frozen=True)
class Question:
    """One call: a subject, and for a pair one of the orders in which its sides may stand."""

    judge: Judge
    subject_id: str
    leaf_node_ids: list[str]
    content: str
    is_swapped: bool

    @property
    def judgement_id(self) -> str:
        """The id of what all orders together say."""
        return judgement_id(self.judge, self.subject_id)

    @property
    def call_id(self) -> str:
        """The id of what is answered once."""
        return f"{self.judgement_id}-{'ba' if self.is_swapped else 'ab'}"

    @cached_property
    def request(self) -> dict[str, Json]:
        """What is sent."""
        judge = self.judge
        told = judge.instructions
        shown = prompts.messages(
            told, self.content, judge.most_characters, is_swapped=self.is_swapped
        )
        return {
            "model": judge.model,
            "messages": shown,
            **judge.parameters,
            "response_format": verdicts.response_format(judge.kind, judge.schema),
        }

    def estimate(self, prices: Prices) -> Estimate:
        """What one attempt may take."""
        characters = sum(len(message["content"]) for message in self.request["messages"])
        characters += len(canonical_json(self.judge.schema))
        prompt = characters // CHARACTERS_PER_TOKEN
        return prices.estimate(self.judge.model, prompt, self.judge.max_tokens or ANSWER_TOKENS)


def judgement_id(judge: Judge, subject_id: str) -> str:
    """The id of what a version of a judge says of a subject."""
    identity = [judge.version, judge.kind, subject_id]
    return f"judge-{short_hash(canonical_json(identity))}"


def is_over(tried: Attempts, *, again: bool) -> bool:
    """Whether a call is not made any more; `again` asks once more what was set aside."""
    return tried.is_completed or (tried.invalid >= MOST_INVALID and not again)


def whole_subjects(
    judge: Judge, attempts: Mapping[str, Attempts], *, again: bool
) -> dict[str, bool]:
    """The subjects that were asked about, and whether nothing of them is left to ask."""
    orders = 2 if judge.kind == "pair" else 1
    over: dict[str, int] = {}
    for tried in attempts.values():
        over[tried.subject_id] = over.get(tried.subject_id, 0) + is_over(tried, again=again)
    return {subject: count == orders for subject, count in over.items()}


def questions(
    judge: Judge, selection: Selection, attempts: Mapping[str, Attempts], *, again: bool
) -> Iterator[Question]:
    """The calls that are to be made."""
    for subject in selection.subjects():
        for is_swapped in (False, True) if judge.kind == "pair" else (False,):
            question = Question(
                judge,
                subject["subject_id"],
                subject["leaf_node_ids"],
                subject["content"],
                is_swapped,
            )
            if not is_over(attempts.get(question.call_id, NOTHING), again=again):
                yield question


class Judging:
    """One run of `loreline judge`.

    Args:
        journal: where answers are kept.
        prices: of models.
        endpoint: where calls go.
        limits: how much.
        progress: told the outcome so far, after each call.
    """

    def __init__(
        self,
        journal: Journal,
        prices: Prices,
        endpoint: Endpoint,
        limits: Limits,
        progress: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        self._journal = journal
        self._prices = prices
        self._client = Client(endpoint, limits)
        self._concurrency = limits.concurrency
        self._stop = threading.Event()
        self._adopted: set[str] = set()
        self.outcome = Outcome()
        self._meter = Meter(limits, self.outcome, progress)

    def adopt(self, judge: Judge) -> None:
        """Let this version of a judge count from now on, and no other."""
        if judge.version not in self._adopted:
            self._journal.adopt(judge)
            self._adopted.add(judge.version)

    def run(self, asked: Iterator[Question], attempts: Mapping[str, Attempts]) -> None:
        """Make calls.

        Interrupted, it waits for the calls under way and keeps their answers.

        Args:
            asked: what to ask.
            attempts: what was tried before, by the calls' ids.

        Raises:
            LorelineError: nothing answers at the endpoint, or it refuses the credentials.
        """

        def work(question: Question) -> None:
            self._ask(question, attempts.get(question.call_id, NOTHING))

        in_threads(asked, work, self._concurrency, self._stop)

    def _ask(self, question: Question, tried: Attempts) -> None:
        """Ask until there is a valid answer, or none is to be hoped for."""
        # Asked again on purpose, a call that was set aside has its tries anew.
        invalid = tried.invalid % MOST_INVALID
        number = tried.number
        estimate = question.estimate(self._prices)
        while True:
            number += 1
            with self._meter.reserved(estimate) as is_allowed:
                if not is_allowed:
                    return
                call = self._call(question, number, estimate)
                self._meter.spend(call.prompt_tokens + call.completion_tokens, call.cost)
            invalid += call.status == "invalid"
            if call.status != "invalid" or invalid == MOST_INVALID:
                break
            if self._stop.is_set():
                return
        status = "set_aside" if call.status == "invalid" else call.status
        self._meter.count(status, error=call.problem)

    def _call(self, question: Question, attempt: int, estimate: Estimate) -> Call:
        """Make a call and keep what came of it."""
        judge = question.judge
        # Another attempt has another key: by the same one a gateway would repeat the answer.
        headers = {
            "Idempotency-Key": f"{question.call_id}-{attempt}",
            "x-session-id": header(SESSION_PREFIX + judge.version),
        }
        reply = self._client.ask(question.request, headers)
        verdict, problem = _verdict(question, reply)
        prompt_tokens, completion_tokens = reply.used(estimate)
        call = Call(
            call_id=question.call_id,
            attempt=attempt,
            judgement_id=question.judgement_id,
            judge=judge.name,
            labeller_version=judge.version,
            kind=judge.kind,
            subject_id=question.subject_id,
            leaf_node_ids=question.leaf_node_ids,
            content_sha256=hashlib.sha256(question.content.encode()).hexdigest(),
            is_swapped=question.is_swapped,
            model=judge.model,
            status="failed" if reply.error else "invalid" if verdict is None else "completed",
            verdict=verdict,
            problem=problem,
            response=reply.response,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cost=self._prices.cost(judge.model, prompt_tokens, completion_tokens),
        )
        self._journal.save(call)
        if verdict is not None:
            self.adopt(judge)
        return call


def _verdict(question: Question, reply: Reply) -> tuple[Json | None, str | None]:
    """What was said; or None, and why that is."""
    if reply.error:
        return None, str(reply.error["message"])
    judge = question.judge
    try:
        verdict = verdicts.read(
            reply.response, judge.kind, judge.schema, is_swapped=question.is_swapped
        )
    except verdicts.InvalidAnswerError as invalid:
        return None, str(invalid)
    return verdict, None
