"""What a long command is doing: a line that changes for a person, now and then a line for a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from loreline.cli.output import warn
from loreline.cli.text import one_line

# Between two lines where nobody watches: enough to see that it goes on.
SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress(what: str, *, in_place: bool = True) -> Iterator[Callable[[str], None]]:
    """Say on the error stream what goes on.

    Args:
        what: the name of the work; stands before each line.
        in_place: whether a line may change on a terminal; not where the work draws there itself.

    Yields:
        What is called with a line at each step, as often as one likes.
    """
    if not (in_place and sys.stderr.isatty()):
        yield _Log(what)
        return
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner
    from rich.text import Text

    spinner = Spinner("dots", Text(one_line(f"{what} …")))
    # What the work prints stands above the line, and goes on to a pipe where there is one.
    with Live(
        spinner,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    ):
        yield lambda line: spinner.update(text=Text(one_line(f"{what}: {line}")))


class _Log:
    """Passes a line on when there was none for a while."""

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._clock = clock
        self._last = clock()

    def __call__(self, line: str) -> None:
        if self._clock() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = self._clock()
            warn(one_line(f"{self._what}: {line}"))
