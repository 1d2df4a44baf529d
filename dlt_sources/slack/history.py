"""The messages of channels: their last days and open threads, or all of them."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from itertools import chain
from typing import Any

from dlt_sources.api import ApiError, NotFoundError, Waiting
from dlt_sources.live import Batch
from dlt_sources.slack.client import NO_ACCESS, Page
from dlt_sources.slack.settings import MESSAGES
from dlt_sources.slack.threads import THREADS_PER_RUN
from dlt_sources.slack.workspace import Workspace, parent_of, tombstone, ts_of
from loreline.errors import LorelineError

Json = Any

SECONDS_PER_CHECKPOINT = 30.0
TOMBSTONES_PER_BATCH = 1_000
BEGINNING = "0.000000"


@dataclass
class Step:
    """One thing to do in a walk, and what it gave.

    Attributes:
        channel: where.
        page: of history, that was read.
        root: of a thread that is to be read.
        parent: what history said of the thread: its last reply, and how many.
        low: history is read down to here, threads included.
        is_sure: whether what history did not show there is gone.
        is_full: whether the walk leads to the beginning of the channel.
        is_end: whether it ends here.
        pages: of the thread.
        is_absent: there is no such thread.
        is_refused: the bot may not read the channel.
    """

    channel: str
    page: Page | None = None
    root: str | None = None
    parent: tuple[str, int] | None = None
    low: str | None = None
    is_sure: bool = True
    is_full: bool = False
    is_end: bool = False
    pages: list[Page] = field(default_factory=list)
    is_absent: bool = False
    is_refused: bool = False


class History:
    """The messages of the channels that the bot is in.

    Args:
        workspace: the state of the run.
        began: the sweep that goes on, or that this run would begin.
    """

    def __init__(self, workspace: Workspace, began: str) -> None:
        self.workspace = workspace
        self.run = workspace.run
        self.api = workspace.api
        self.began = began
        # Above `high` the coverage knows what a walk has read; None is the present. What lies
        # between it and `low` it is told next.
        self._high: dict[str, str | None] = {}
        self._low: dict[str, str] = {}
        self._gone: dict[str, list[str]] = {}

    def recent(self) -> Iterator[Batch]:
        """The last days of each channel, and threads that are open."""
        due = [
            channel
            for channel, found in self.workspace.readable.items()
            # An empty channel may have been read, too.
            if ((progress := self.workspace.progress[channel]).newest or progress.swept)
            and not (found.is_archived and progress.is_archived)
        ]
        read: set[tuple[str, str]] = set()

        def steps() -> Iterator[Step]:
            for step in self._windows(due):
                if step.root:
                    read.add((step.channel, step.root))
                yield step
            yield from self._open_threads(due, read)

        for step in self.api.map_or_wait(self._answer, steps()):
            yield from [Batch()] if isinstance(step, Waiting) else self._took(step)
        self._cover()
        yield from self._delete(self.workspace.coverage.gone(), {})
        for channel in due:
            found = self.workspace.readable[channel]
            self.workspace.progress[channel].is_archived = found.is_archived
        yield Batch(cursors=self._reached(due))

    def walks(self) -> Iterator[Batch]:
        """Whole channels: those that were never read to their beginning, and all in a sweep."""
        due = [
            channel
            for channel in self.workspace.readable
            if channel not in self.workspace.refused and self._is_due(channel)
        ]
        for channel in due:
            progress = self.workspace.progress[channel]
            goes_on = progress.swept is None or progress.walk_began == self.began
            self._high[channel] = progress.walk if goes_on else None
            progress.walk_began = self.began

        def steps() -> Iterator[Step]:
            for channel in due:
                pages = self._pages(channel, latest=self._high[channel])
                yield from self._steps(channel, pages, BEGINNING, is_full=True)

        touched: set[str] = set()
        since = time.monotonic()
        for step in self.api.map_or_wait(self._answer, steps()):
            if isinstance(step, Waiting):
                yield Batch()
                continue
            touched.add(step.channel)
            yield from self._took(step)
            is_late = time.monotonic() - since >= SECONDS_PER_CHECKPOINT
            if step.low and (is_late or self.workspace.coverage.is_large):
                yield Batch(cursors=self._checkpoint(touched))
                touched, since = set(), time.monotonic()
        yield Batch(cursors=self._checkpoint(touched))
        found = self.run.cursors.named("gone:") | self._gone
        gone = {
            channel: found[channel]
            for channel in due
            if found.get(channel) and channel not in self.workspace.refused
        }
        yield from self._delete(gone, {f"gone:{channel}": None for channel in gone})

    def _is_due(self, channel: str) -> bool:
        swept = self.workspace.progress[channel].swept
        return swept is None or (self.run.sweeps and swept != self.began)

    def _windows(self, channels: Sequence[str]) -> Iterator[Step]:
        """The last days of channels; the first pages of some are asked for at once."""
        lows = {channel: self._window(channel) for channel in channels}

        def begun(channel: str) -> tuple[Page | None, Iterator[Page]]:
            pages = self._pages(channel, oldest=lows[channel], inclusive=True)
            return next(pages, None), pages

        for channel, (first, others) in zip(channels, self.api.map(begun, channels), strict=True):
            self._high[channel] = None
            pages = chain([first] if first else [], others)
            yield from self._steps(channel, pages, lows[channel], is_full=False)

    def _window(self, channel: str) -> str:
        try:
            hours = Decimal(self.run.settings.slack_lookback_hours)
        except ArithmeticError:
            raise LorelineError(
                f"LORELINE_SLACK_LOOKBACK_HOURS is {self.run.settings.slack_lookback_hours!r},"
                " not a number",
                "write one, or unset it",
            ) from None
        progress = self.workspace.progress[channel]
        # What lies below a first walk that was interrupted, it reads next.
        walked = Decimal(progress.walk or 0) if progress.swept is None else Decimal(0)
        return f"{max(walked, Decimal(progress.newest or 0) - hours * 3600):.6f}"

    def _pages(self, channel: str, **bounds: str | bool | None) -> Iterator[Page]:
        """Pages of history, newest first; none where the bot may not read it."""
        try:
            yield from self.api.pages(
                "conversations.history", "messages", channel=channel, **bounds
            )
        except ApiError as error:
            if error.code not in NO_ACCESS:
                raise
            self.workspace.refuse(channel)

    def _steps(
        self, channel: str, pages: Iterable[Page], oldest: str, *, is_full: bool
    ) -> Iterator[Step]:
        """Each page, the threads in it that are to be read, and how far that leads."""
        low: str | None = None
        is_sure = True
        for page in pages:
            yield Step(channel, page)
            known = [ts for record in page.records if (ts := ts_of(record))]
            is_sure = is_sure and len(known) == len(page.records)
            for step in self._threads(channel, page, is_full=is_full):
                yield step
                if is_full:
                    yield Step(channel, low=step.root, is_sure=is_sure, is_full=True)
            if known:
                low = min([*known, *([low] if low else [])], key=Decimal)
                yield Step(channel, low=low, is_sure=is_sure, is_full=is_full)
                is_sure = True
            if page.is_last:
                # What a workspace does not pay to see is not gone.
                is_sure = is_sure and not page.is_limited
                yield Step(channel, low=oldest, is_sure=is_sure, is_full=is_full, is_end=True)

    def _threads(self, channel: str, page: Page, *, is_full: bool) -> Iterator[Step]:
        """The threads of a page, newest first, unless nothing has happened in them."""
        parents = {
            ts: parent
            for record in page.records
            if (ts := ts_of(record)) and (parent := parent_of(record))
        }
        for root in sorted(parents, key=Decimal, reverse=True):
            if not is_full and self.workspace.threads(channel).is_known(root, *parents[root]):
                self.workspace.coverage.leave_out(channel, root)
            else:
                yield Step(channel, root=root, parent=parents[root])

    def _open_threads(
        self, channels: Iterable[str], read: Collection[tuple[str, str]]
    ) -> Iterator[Step]:
        """Those that are due to be read again, the most overdue first."""
        now = self.workspace.now()
        due = [
            (times, channel, root)
            for channel in channels
            if channel not in self.workspace.refused
            for root, times in self.workspace.threads(channel).overdue(now).items()
            if (channel, root) not in read
        ]
        for _, channel, root in sorted(due, reverse=True)[:THREADS_PER_RUN]:
            yield Step(channel, root=root)

    def _answer(self, step: Step) -> Step:
        """Ask for a thread; other steps have their answers."""
        if step.root is None or step.channel in self.workspace.refused:
            return step
        try:
            pages = self.api.pages(
                "conversations.replies", "messages", channel=step.channel, ts=step.root
            )
            return replace(step, pages=list(pages))
        except NotFoundError as error:
            is_absent = error.code == "thread_not_found"
            return replace(step, is_absent=is_absent, is_refused=not is_absent)
        except ApiError as error:
            if error.code not in NO_ACCESS:
                raise
            return replace(step, is_refused=True)

    def _took(self, step: Step) -> Iterator[Batch]:
        """What a step gave."""
        workspace, channel = self.workspace, step.channel
        if step.is_refused:
            workspace.refuse(channel)
        if channel in workspace.refused:
            return
        if step.page:
            for record in step.page.records:
                if ts := ts_of(record):
                    workspace.progress[channel].sees(ts, workspace.now())
            yield Batch(workspace.messages(channel, step.page))
        elif step.root:
            yield from self._thread(channel, step.root, step)
        elif step.low:
            self._go_down(channel, step.low, step)

    def _thread(self, channel: str, root: str, step: Step) -> Iterator[Batch]:
        workspace = self.workspace
        for page in step.pages:
            yield Batch(workspace.messages(channel, page))
        records = {ts_of(record): record for page in step.pages for record in page.records}
        is_whole = step.is_absent or root in records
        if is_whole and None not in records:
            workspace.coverage.read_thread(channel, root)
        else:
            workspace.coverage.leave_out(channel, root)
        parent = step.parent or (parent_of(records[root]) if root in records else None)
        if parent:
            workspace.threads(channel).keep(root, *parent, workspace.now())
        elif is_whole:
            workspace.threads(channel).forget(root)

    def _go_down(self, channel: str, low: str, step: Step) -> None:
        if step.is_sure:
            self._low[channel] = low
        else:
            # Of what lies between it is not known what is gone; of what lies above it is.
            if above := self._low.pop(channel, None):
                self.workspace.coverage.read(channel, above, self._high.get(channel))
            self._high[channel] = low
        if step.is_full:
            progress = self.workspace.progress[channel]
            progress.walk = low
            if step.is_end:
                progress.swept, progress.walk, progress.walk_began = self.began, None, None

    def _cover(self) -> None:
        """Tell the coverage how far walks have come."""
        for channel, low in self._low.items():
            if channel not in self.workspace.refused:
                self.workspace.coverage.read(channel, low, self._high.get(channel))
            self._high[channel] = low
        self._low.clear()

    def _checkpoint(self, touched: Collection[str]) -> dict[str, Json]:
        """Conclude what is gone of what was read, so that a later run need not read it again."""
        self._cover()
        changed = self.workspace.coverage.gone()
        for channel, ids in changed.items():
            before = self._gone.get(channel) or self.run.cursors.get(f"gone:{channel}", [])
            self._gone[channel] = [*dict.fromkeys([*before, *ids])]
        gone = {f"gone:{channel}": self._gone[channel] for channel in changed}
        return self._reached(touched) | gone

    def _reached(self, channels: Iterable[str]) -> dict[str, Json]:
        """The cursors of channels that are not as they were."""
        cursors: dict[str, Json] = {}
        for channel in channels:
            if channel in self.workspace.refused:
                continue
            threads = self.workspace.threads(channel)
            threads.close(self.workspace.now())
            cursors[f"history:{channel}"] = asdict(self.workspace.progress[channel])
            if threads.is_changed:
                cursors[f"threads:{channel}"] = threads.saved()
        known = self.run.cursors
        return {name: value for name, value in cursors.items() if value != known.get(name)}

    def _delete(
        self, gone: Mapping[str, Sequence[str]], settled: Mapping[str, Json]
    ) -> Iterator[Batch]:
        """Land deletions, unless they are too many.

        Args:
            gone: ids by channel.
            settled: cursors that say so.
        """
        ids = [each for found in gone.values() for each in found]
        if len(ids) >= self.run.rails.least:
            covered = self.workspace.count_messages()
            try:
                self.run.rails.check("slack", "messages", len(ids), covered)
            except LorelineError:
                if settled:
                    # They are to be looked for again, in a sweep from the start.
                    yield Batch(cursors={**settled, "sweep": None})
                raise
        for start in range(0, len(ids), TOMBSTONES_PER_BATCH):
            part = ids[start : start + TOMBSTONES_PER_BATCH]
            yield Batch([tombstone(MESSAGES, each) for each in part])
        if settled:
            yield Batch(cursors=settled)
