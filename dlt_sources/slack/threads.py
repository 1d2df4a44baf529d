"""When threads are read again.

History shows replies neither by themselves nor by a change of their text, so threads have to be
asked one by one. A thread that has been quiet for some time is asked again after a tenth of that
time: after a day every 2.4 hours, after a month no more but in sweeps. That makes about
10 · ln(30 d / 20 min) ≈ 77 requests for one that stays quiet, and no run asks for more than
`THREADS_PER_RUN` of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Json = Any

THREADS_PER_RUN = 50
OPEN_SECONDS = 30 * 86_400.0
SHORTEST_SECONDS = 120.0
QUIET_SHARE = 0.1


@dataclass
class Thread:
    """What is known of a thread.

    Attributes:
        latest_reply: `ts` of its last reply, as its first message says.
        replies: how many there are, as it says.
        read_at: when it was read, in seconds of Unix time by Slack's clock.
    """

    latest_reply: str
    replies: int
    read_at: float

    def quiet_for(self, now: float) -> float:
        """Seconds without a reply."""
        return max(0.0, now - float(self.latest_reply or 0))

    def is_open(self, now: float) -> bool:
        """Whether it is asked for at all."""
        return self.quiet_for(now) <= OPEN_SECONDS

    def overdue(self, now: float) -> float:
        """How many times over it could have been read since it was; due from 1 on."""
        return (now - self.read_at) / max(SHORTEST_SECONDS, QUIET_SHARE * self.quiet_for(now))


class Threads:
    """The open threads of one channel, by the `ts` of their first messages."""

    def __init__(self, saved: Json = None) -> None:
        self.is_changed = False
        self._threads: dict[str, Thread] = {}
        for root, (latest, replies, read_at) in (saved or {}).items():
            self._threads[root] = Thread(latest, replies, read_at)

    def saved(self) -> Json:
        """What `Threads` is made of again; None where there are none."""
        return {
            root: [thread.latest_reply, thread.replies, thread.read_at]
            for root, thread in self._threads.items()
        } or None

    def is_known(self, root: str, latest_reply: str, replies: int) -> bool:
        """Whether a thread was read since it came to be so."""
        thread = self._threads.get(root)
        return thread is not None and (thread.latest_reply, thread.replies) == (
            latest_reply,
            replies,
        )

    def keep(self, root: str, latest_reply: str, replies: int, read_at: float) -> None:
        """Note that a thread was read."""
        self.is_changed = True
        self._threads[root] = Thread(latest_reply, replies, read_at)

    def open_again(self, root: str, reply: str) -> None:
        """Have a thread read at the next occasion, because something is known to be in it."""
        latest = self._threads[root].latest_reply if root in self._threads else reply
        self.keep(root, max(latest, reply), -1, 0.0)

    def forget(self, root: str) -> None:
        """There is no such thread."""
        if self._threads.pop(root, None):
            self.is_changed = True

    def close(self, now: float) -> None:
        """Forget those that have been quiet for long."""
        for root in [r for r, thread in self._threads.items() if not thread.is_open(now)]:
            self.forget(root)

    def overdue(self, now: float) -> Mapping[str, float]:
        """The threads that are due, and how much."""
        found = {root: thread.overdue(now) for root, thread in self._threads.items()}
        return {root: times for root, times in found.items() if times >= 1}
