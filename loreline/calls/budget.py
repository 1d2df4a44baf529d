"""How many calls at once, what they may take together, and what they have taken."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeVar

from loreline.errors import LorelineError

Item = TypeVar("Item")

# Of an answer whose length nothing tells.
ANSWER_TOKENS = 512
# A token of English is four characters long on average; models count differently.
CHARACTERS_PER_TOKEN = 4


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


@dataclass(frozen=True)
class Price:
    """What a million tokens cost, read and written."""

    input: Decimal
    output: Decimal

    def of(self, prompt_tokens: int, completion_tokens: int) -> Decimal:
        """The cost of a call."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1_000_000


@dataclass(frozen=True)
class Estimate:
    """What a call may take; `cost` is None where the model has no price."""

    prompt_tokens: int
    completion_tokens: int
    cost: Decimal | None

    @property
    def tokens(self) -> int:
        """Both together."""
        return self.prompt_tokens + self.completion_tokens


class Prices:
    """What calls cost.

    Args:
        prices: of the models that have one.
    """

    def __init__(self, prices: Mapping[str, Price]) -> None:
        self._prices = prices

    def cost(self, model: str, prompt_tokens: int, completion_tokens: int) -> Decimal | None:
        """The cost of a call; None where the model has no price."""
        price = self._prices.get(model)
        return price.of(prompt_tokens, completion_tokens) if price else None

    def estimate(self, model: str, prompt_tokens: int, completion_tokens: int) -> Estimate:
        """A call that takes so many tokens."""
        cost = self.cost(model, prompt_tokens, completion_tokens)
        return Estimate(prompt_tokens, completion_tokens, cost)


@dataclass
class Outcome:
    """What became of calls.

    Attributes:
        calls: how many, by what became of them: completed, failed, answered before (known), kept
            from being made by the budget (over_budget), and the like.
        errors: of failed calls, by what they said.
        tokens: that were read and written.
        cost: as far as models have prices.
    """

    calls: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    cost: Decimal = Decimal(0)


class Meter:
    """Counts into an outcome what calls take, and stops them at the limits; for several threads.

    Args:
        limits: how much.
        outcome: of the calls.
        progress: told the outcome so far, after each call.
    """

    def __init__(
        self, limits: Limits, outcome: Outcome, progress: Callable[[Outcome], None]
    ) -> None:
        self._limits = limits
        self._outcome = outcome
        self._progress = progress
        self._lock = threading.Lock()
        self._reserved_tokens = 0
        self._reserved_cost = Decimal(0)

    @contextmanager
    def reserved(self, estimate: Estimate) -> Iterator[bool]:
        """Set aside what a call may take; what is under way counts as spent.

        Yields:
            Whether the budget allows the call; where it does not, that is counted.
        """
        tokens, cost = estimate.tokens, estimate.cost or 0
        with self._lock:
            all_tokens = self._outcome.tokens + self._reserved_tokens + tokens
            all_cost = self._outcome.cost + self._reserved_cost + cost
            limit = self._limits.cost
            is_allowed = all_tokens <= self._limits.tokens and (limit is None or all_cost <= limit)
            if is_allowed:
                self._reserved_tokens += tokens
                self._reserved_cost += cost
        if not is_allowed:
            self.count("over_budget")
            yield False
            return
        try:
            yield True
        finally:
            with self._lock:
                self._reserved_tokens -= tokens
                self._reserved_cost -= cost

    def spend(self, tokens: int, cost: Decimal | None) -> None:
        """Count what a call took; the cost is None where the model has no price."""
        with self._lock:
            self._outcome.tokens += tokens
            self._outcome.cost += cost or 0

    def count(self, what: str, error: str | None = None) -> None:
        """Count what became of a call, and why it failed."""
        with self._lock:
            self._outcome.calls[what] += 1
            if error is not None:
                self._outcome.errors[error] += 1
            self._progress(self._outcome)


def check_budget(estimates: Iterable[tuple[str, Estimate]], limits: Limits, *, less: str) -> None:
    """Refuse calls that are likely to take more than they may, before they cost anything.

    Args:
        estimates: of the calls, each with its model.
        limits: what they may take.
        less: how to make fewer, for the error.

    Raises:
        LorelineError: they may take more; or nobody knows what they cost.
    """
    due = list(estimates)
    tokens = sum(estimate.tokens for _, estimate in due)
    if tokens > limits.tokens:
        raise LorelineError(
            f"{len(due):,} calls may take {tokens:,} tokens, more than {limits.tokens:,}",
            f"raise --token-budget, or {less}",
        )
    if limits.cost is None:
        return
    if unpriced := sorted({model for model, estimate in due if estimate.cost is None}):
        raise LorelineError(
            f"nobody knows what {', '.join(unpriced)} costs",
            "add it to seeds/model_prices.csv and build it, or leave --budget out",
        )
    cost = sum(estimate.cost or 0 for _, estimate in due)
    if cost > limits.cost:
        raise LorelineError(
            f"{len(due):,} calls may cost {cost:.6f} dollars, more than {limits.cost}",
            f"raise --budget, or {less}",
        )


def in_threads(
    items: Iterable[Item], work: Callable[[Item], None], concurrency: int, stop: threading.Event
) -> None:
    """Work on items, several at once, until all are done or `stop` is set.

    A failure, or Ctrl-C, sets it; what is under way is waited for.
    """
    waiting = iter(items)
    lock = threading.Lock()

    def take_and_work() -> None:
        while not stop.is_set():
            try:
                with lock:
                    item = next(waiting)
            except StopIteration:
                return
            except BaseException:
                stop.set()
                raise
            try:
                work(item)
            except BaseException:
                stop.set()
                raise

    with ThreadPoolExecutor(concurrency) as pool:
        workers = [pool.submit(take_and_work) for _ in range(concurrency)]
        try:
            for worker in workers:
                worker.result()
        finally:
            stop.set()
