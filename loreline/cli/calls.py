"""What commands that call a model share: where it is, what it costs, and how it goes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import typer

from loreline.cli.output import say
from loreline.cli.progress import progress as lines
from loreline.cli.text import one_line, shortened
from loreline.errors import LorelineError

if TYPE_CHECKING:
    from loreline.calls.budget import Limits, Outcome, Prices
    from loreline.calls.endpoint import Endpoint
    from loreline.settings import Settings

LONGEST_ERROR = 300

Budget = Annotated[
    float | None, typer.Option(metavar="DOLLARS", help="Spend no more: see model_prices.")
]
TokenBudget = Annotated[
    int, typer.Option("--token-budget", metavar="TOKENS", help="Read and write no more.")
]
Concurrency = Annotated[int, typer.Option(min=1, help="Calls at once.")]
Retries = Annotated[int, typer.Option(min=0, help="Of a call that may yet succeed.")]
Timeout = Annotated[float, typer.Option(min=1, metavar="SECONDS", help="Of a call.")]
TOKEN_BUDGET, CONCURRENCY, RETRIES, TIMEOUT = 1_000_000, 4, 3, 120.0


def limits(
    budget: float | None, token_budget: int, concurrency: int, retries: int, timeout: float
) -> Limits:
    """Limits as options say them."""
    from loreline.calls.budget import Limits

    cost = None if budget is None else Decimal(str(budget))
    return Limits(token_budget, cost, concurrency, retries, timeout)


def prices(settings: Settings) -> Prices:
    """Those of the seed `model_prices`; none where it was not built."""
    from loreline.calls.budget import Price, Prices
    from loreline.lake.duck import connect, rows_if_built

    table = f"lake.{settings.prefix}seeds.model_prices"
    with connect(settings.as_reader()) as lake:
        rows = rows_if_built(lake, f"select model, input_price, output_price from {table}")  # noqa: S608 - the name is our own
    known = {m: Price(Decimal(str(read)), Decimal(str(write))) for m, read, write in rows or []}
    return Prices(known)


def endpoint(settings: Settings) -> Endpoint:
    """Where the settings say that calls go.

    Raises:
        LorelineError: they do not.
    """
    from loreline.calls.endpoint import Endpoint

    if not settings.gateway_url:
        raise LorelineError(
            "nothing says where to call",
            "set LORELINE_GATEWAY_URL to an OpenAI-compatible API, as http://127.0.0.1:4000/v1",
        )
    if settings.gateway_records not in ("true", "false"):
        raise LorelineError(
            f"LORELINE_GATEWAY_RECORDS is {settings.gateway_records!r}", "use true or false"
        )
    return Endpoint(
        settings.gateway_url, settings.gateway_api_key, settings.gateway_records == "true"
    )


@contextmanager
def progress(what: str, calls: int) -> Iterator[Callable[[Outcome], None]]:
    """A bar, where a person watches, else now and then a line."""
    if not sys.stderr.isatty():
        with lines(what) as told:
            yield lambda outcome: told(f"{outcome.calls.total():,} of {calls:,} calls")
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[spent]}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=calls, spent="")

        def show(outcome: Outcome) -> None:
            spent = f"calls, {outcome.tokens:,} tokens, {outcome.cost:.6f} dollars"
            bar.update(task, completed=outcome.calls.total(), spent=spent)

        yield show


def dollars(costs: Sequence[Decimal | None]) -> str:
    """The sum, or nothing where a price is missing."""
    return "" if None in costs else f"{sum(cost or 0 for cost in costs):.6f}"


def print_spent(outcome: Outcome) -> None:
    """Say why calls failed, and what all took."""
    for error, count in outcome.errors.most_common():
        say(f"{count} × {shortened(one_line(error), LONGEST_ERROR)}")
    say(f"{outcome.tokens:,} tokens, {outcome.cost:.6f} dollars as far as models have prices.")
