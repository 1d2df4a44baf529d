"""Who has which item open, and what was said of it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from loreline.errors import LorelineError
from loreline.review.verdicts import Verdict
from loreline.settings import Settings

Json = Any


@dataclass(frozen=True)
class OpenItem:
    """An item as one reviewer sees it.

    Attributes:
        queue_item_id: its key.
        kind: trajectory or pair.
        content_sha256: what is judged; a verdict on anything else is not taken.
        context: the messages that the sides share.
        sides: the messages of each side, in the order in which they are shown.
        is_swapped: whether that is b before a.
        before: what the reviewer said of it and took back, if they did.
    """

    queue_item_id: str
    kind: str
    content_sha256: str
    context: list[Json]
    sides: list[list[Json]]
    is_swapped: bool
    before: Verdict | None = None

    def messages(self, part: str) -> list[Json]:
        """The messages of `context`, or of a side by its place: `0` or `1`."""
        if part == "context":
            return self.context
        return self.sides[int(part)]


@dataclass(frozen=True)
class Progress:
    """How far the queue is.

    Attributes:
        done: items with as many labels as they want.
        open: items of the queue with fewer.
        mine: labels of this reviewer that stand.
        skipped: items that this reviewer passed over and nobody else has finished.
    """

    done: int
    open: int
    mine: int
    skipped: int


class ItemGoneError(Exception):
    """The item cannot be judged any more by this reviewer; the message says why."""


class Store:
    """What reviewers do with the items.

    Args:
        connection: in autocommit.
        settings: the schema, how many labels an item wants and how long it stays open.
    """

    def __init__(self, connection: psycopg.Connection, settings: Settings) -> None:
        self._connection = connection
        self._schema = Identifier(f"{settings.prefix}review")
        self._wanted = wanted_labels(settings)
        self._seconds = lock_seconds(settings)

    def take(self, reviewer: str) -> OpenItem | None:
        """The item that the reviewer has open, or else the next one; nothing where there is none.

        What others have open, what has its labels, and what this reviewer has judged or skipped is
        passed over.
        """
        with self._turn():
            row = self._one("select {}.next_item(%s, %s)", reviewer, self._wanted)
            assert row is not None
            if row[0] is None:
                return None
            self._lock(row[0], reviewer)
            return self._shown(row[0], reviewer)

    def opened(self, reviewer: str) -> OpenItem | None:
        """The item that the reviewer has open."""
        row = self._one(
            "select queue_item_id from {}.locks where reviewer = %s and expires_at > now()",
            reviewer,
        )
        return self._shown(row[0], reviewer) if row else None

    def seen(self, queue_item_id: str, reviewer: str) -> OpenItem:
        """An item as it was shown to the reviewer, open or not.

        Raises:
            ItemGoneError: it never was.
        """
        is_known = self._one(
            "select 1 from {}.views where queue_item_id = %s and reviewer = %s",
            queue_item_id,
            reviewer,
        )
        if not is_known:
            raise ItemGoneError("that item was never shown to you")
        return self._shown(queue_item_id, reviewer)

    def renew(self, queue_item_id: str, reviewer: str) -> bool:
        """Keep an item open; gives whether it still was."""
        done = self._do(
            "update {}.locks set expires_at = now() + make_interval(secs => %s)"
            " where queue_item_id = %s and reviewer = %s and expires_at > now()",
            self._seconds,
            queue_item_id,
            reviewer,
        )
        return bool(done.rowcount)

    def close(self, reviewer: str) -> None:
        """Give the item that the reviewer has open to others."""
        self._do("delete from {}.locks where reviewer = %s", reviewer)

    def label(
        self, queue_item_id: str, reviewer: str, content_sha256: str, verdict: Verdict
    ) -> None:
        """Keep a verdict, and close the item. Said twice, it is kept once.

        A lock that has run out does not matter as long as nobody else has taken the item.

        Raises:
            ItemGoneError: somebody else has the item or has finished it, or it is not what the
                reviewer saw.
        """
        with self._turn():
            if self._my_label(queue_item_id, reviewer):
                self._done_with(queue_item_id, reviewer)
                return
            self._check(queue_item_id, reviewer, content_sha256)
            self._do(
                "insert into {0}.labels (queue_item_id, kind, leaf_node_ids, pair_id,"
                " content_sha256, reviewer, is_swapped, preferred, strength, categories, score,"
                " comment) select queue_item_id, kind, leaf_node_ids, pair_id, content_sha256,"
                " reviewer, case kind when 'pair' then is_swapped end, %s, %s, %s, %s, %s"
                " from {0}.items inner join {0}.views using (queue_item_id)"
                " where queue_item_id = %s and reviewer = %s",
                verdict.preferred,
                verdict.strength,
                list(verdict.categories) if verdict.categories is not None else None,
                verdict.score,
                verdict.comment,
                queue_item_id,
                reviewer,
            )
            self._done_with(queue_item_id, reviewer)

    def skip(self, queue_item_id: str, reviewer: str) -> None:
        """Pass an item over: others may judge it, and this reviewer at the end."""
        with self._turn():
            self._do(
                "update {}.views set skipped_at = clock_timestamp()"
                " where queue_item_id = %s and reviewer = %s",
                queue_item_id,
                reviewer,
            )
            self._done_with(queue_item_id, reviewer)

    def show_skipped(self, reviewer: str) -> None:
        """Put what the reviewer passed over back into their queue."""
        self._do("update {}.views set skipped_at = null where reviewer = %s", reviewer)

    def undo(self, reviewer: str) -> bool:
        """Take back the last label or skip of the reviewer, and open its item again.

        Returns:
            Whether there was anything to take back.

        Raises:
            ItemGoneError: somebody else has the item open.
        """
        with self._turn():
            last = self._one(
                "select label_id, queue_item_id, labelled_at from {0}.label_states"
                " where reviewer = %(who)s and origin = 'loreline' and withdrawn_at is null"
                " union all"
                " select null, queue_item_id, skipped_at from {0}.views"
                " where reviewer = %(who)s and skipped_at is not null"
                " order by 3 desc limit 1",
                {"who": reviewer},
            )
            if last is None:
                return False
            label_id, queue_item_id, _ = last
            if self._is_held(queue_item_id, reviewer):
                raise ItemGoneError("somebody else has that item open: try again later")
            if label_id:
                withdraw(self._connection, self._schema, label_id)
            else:
                self._do(
                    "update {}.views set skipped_at = null"
                    " where queue_item_id = %s and reviewer = %s",
                    queue_item_id,
                    reviewer,
                )
            self._lock(queue_item_id, reviewer)
            return True

    def progress(self, reviewer: str) -> Progress:
        """How far the queue is, and what the reviewer did."""
        row = self._one(
            "with counted as (select queue_item_id, count(*) as labels,"
            " count(*) filter (where reviewer = %(who)s) as mine"
            " from {0}.label_states where withdrawn_at is null group by queue_item_id)"
            " select count(*) filter (where labels >= %(wanted)s),"
            " count(*) filter (where is_open), coalesce(sum(mine), 0),"
            " count(*) filter (where is_open and skipped_at is not null)"
            " from (select labels, mine, skipped_at,"
            " withdrawn_at is null and coalesce(labels, 0) < %(wanted)s as is_open"
            " from {0}.items left join counted using (queue_item_id)"
            " left join {0}.views as views on views.queue_item_id = items.queue_item_id"
            " and views.reviewer = %(who)s) as known",
            {"wanted": self._wanted, "who": reviewer},
        )
        assert row is not None
        return Progress(*map(int, row))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """A transaction in which nobody else takes, judges or gives back an item.

        Reviewers are few and these are short; what is read in it is what everybody before has done.
        """
        with self._connection.transaction():
            self._do("lock table {}.locks in exclusive mode")
            yield

    def _lock(self, queue_item_id: str, reviewer: str) -> None:
        self._do(
            "delete from {}.locks where (reviewer = %s and queue_item_id <> %s)"
            " or (queue_item_id = %s and expires_at <= now())",
            reviewer,
            queue_item_id,
            queue_item_id,
        )
        self._do(
            "insert into {}.locks as held (queue_item_id, reviewer, expires_at)"
            " values (%s, %s, now() + make_interval(secs => %s))"
            " on conflict (queue_item_id) do update set expires_at = excluded.expires_at"
            " where held.reviewer = excluded.reviewer",
            queue_item_id,
            reviewer,
            self._seconds,
        )
        self._do(
            "insert into {}.views (queue_item_id, reviewer, is_swapped) values (%s, %s, %s)"
            " on conflict do nothing",
            queue_item_id,
            reviewer,
            bool(secrets.randbits(1)),
        )

    def _done_with(self, queue_item_id: str, reviewer: str) -> None:
        self._do(
            "delete from {}.locks where queue_item_id = %s and reviewer = %s",
            queue_item_id,
            reviewer,
        )

    def _is_held(self, queue_item_id: str, reviewer: str) -> bool:
        """Whether somebody else has the item open."""
        return bool(
            self._one(
                "select 1 from {}.locks"
                " where queue_item_id = %s and reviewer <> %s and expires_at > now()",
                queue_item_id,
                reviewer,
            )
        )

    def _my_label(self, queue_item_id: str, reviewer: str) -> bool:
        return bool(
            self._one(
                "select 1 from {}.label_states"
                " where queue_item_id = %s and reviewer = %s and withdrawn_at is null",
                queue_item_id,
                reviewer,
            )
        )

    def _check(self, queue_item_id: str, reviewer: str, content_sha256: str) -> None:
        row = self._one(
            "select content_sha256, {0}.label_count(queue_item_id) from {0}.items"
            # A push that changes it waits.
            " where queue_item_id = %s for share",
            queue_item_id,
        )
        assert row is not None
        held_sha256, labels = row
        if self._is_held(queue_item_id, reviewer):
            raise ItemGoneError("you were away, and somebody else has that item open now")
        if labels >= self._wanted:
            raise ItemGoneError("others have finished that item meanwhile")
        if held_sha256 != content_sha256:
            raise ItemGoneError("that item has changed since it was shown: look at it again")

    def _shown(self, queue_item_id: str, reviewer: str) -> OpenItem:
        row = self._one(
            "select kind, content_sha256, content::text, is_swapped"
            " from {0}.items inner join {0}.views using (queue_item_id)"
            " where queue_item_id = %s and reviewer = %s",
            queue_item_id,
            reviewer,
        )
        assert row is not None
        kind, content_sha256, text, is_swapped = row
        content = json.loads(text)
        sides = [side["messages"] for side in content["sides"]]
        shown = sides[::-1] if is_swapped else sides
        item = OpenItem(queue_item_id, kind, content_sha256, content["context"], shown, is_swapped)
        before = self._one(
            "select preferred, strength, categories, score, comment from {}.label_states"
            " where queue_item_id = %s and reviewer = %s and content_sha256 = %s"
            " and origin = 'loreline' order by label_number desc limit 1",
            queue_item_id,
            reviewer,
            content_sha256,
        )
        return replace(item, before=Verdict(*before)) if before else item

    def _one(self, statement: str, *parameters: Any) -> tuple[Any, ...] | None:
        return self._do(statement, *parameters).fetchone()

    def _do(self, statement: str, *parameters: Any) -> psycopg.Cursor:
        given: Any = parameters
        if len(parameters) == 1 and isinstance(parameters[0], dict):
            given = parameters[0]
        return self._connection.execute(self._sql(statement), given)

    def _sql(self, statement: str) -> Composed:
        return SQL(statement).format(self._schema)


def withdraw(connection: psycopg.Connection, schema: Identifier, label_id: str) -> None:
    """Take a label back, by a row that says so."""
    connection.execute(
        SQL(
            "insert into {0}.labels (withdraws, queue_item_id, kind, leaf_node_ids, pair_id,"
            " content_sha256, reviewer, origin) select label_id, queue_item_id, kind,"
            " leaf_node_ids, pair_id, content_sha256, reviewer, origin from {0}.labels"
            " where label_id = %s"
        ).format(schema),
        [label_id],
    )


def wanted_labels(settings: Settings) -> int:
    """How many reviewers are to judge each item."""
    return _number(settings.review_labels, "LORELINE_REVIEW_LABELS")


def lock_seconds(settings: Settings) -> int:
    """How long an item stays open without a sign of its reviewer."""
    return _number(settings.review_lock_seconds, "LORELINE_REVIEW_LOCK_SECONDS")


def _number(text: str, variable: str) -> int:
    """A setting that counts something.

    Raises:
        LorelineError: it is no number from 1 on.
    """
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise LorelineError(f"{variable} is {text!r}", "use a whole number from 1 on")
    return int(text)
