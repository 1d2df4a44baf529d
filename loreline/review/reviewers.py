"""Who may review: tokens, and the logins made with them. Of both only hashes are kept."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from loreline.errors import LorelineError
from loreline.settings import Settings

LOGIN_LASTS = timedelta(hours=12)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")


@dataclass(frozen=True)
class Reviewer:
    """Somebody who reviews, or did."""

    reviewer: str
    is_active: bool
    added_at: datetime
    labels: int


class Reviewers:
    """The tables `review.reviewers` and `review.sessions`.

    Secrets are random and of 256 bits, so one is looked up by its hash: how long that takes tells
    nothing about any secret.

    Args:
        connection: in autocommit.
        settings: says which schema they live in.
    """

    def __init__(self, connection: psycopg.Connection, settings: Settings) -> None:
        self._connection = connection
        self._schema = Identifier(f"{settings.prefix}review")

    def add(self, reviewer: str) -> str:
        """Let somebody review; gives their token, which is kept nowhere.

        Raises:
            LorelineError: the name will not do, or somebody has it.
        """
        if not _NAME.fullmatch(reviewer):
            raise LorelineError(
                f"{reviewer!r} is no name for a reviewer",
                "use at most 100 letters, digits and . _ @ + -, beginning with a letter or digit",
            )
        token = secrets.token_urlsafe(32)
        done = self._connection.execute(
            self._sql(
                "insert into {}.reviewers as held (reviewer, token_sha256) values (%s, %s)"
                " on conflict (reviewer) do update set token_sha256 = excluded.token_sha256,"
                " is_active = true where not held.is_active"
            ),
            [reviewer, digest(token)],
        )
        if not done.rowcount:
            raise LorelineError(
                f"{reviewer} reviews already",
                f"for another token, `loreline reviewer remove {reviewer}` first",
            )
        return token

    def remove(self, reviewer: str) -> None:
        """Let somebody review no more: token and logins end at once, labels stay.

        Raises:
            LorelineError: nobody who reviews has that name.
        """
        with self._connection.transaction():
            done = self._connection.execute(
                self._sql(
                    "update {}.reviewers set is_active = false where reviewer = %s and is_active"
                ),
                [reviewer],
            )
            if not done.rowcount:
                raise LorelineError(
                    f"nobody called {reviewer} reviews", "look at `loreline reviewer list`"
                )
            for table in ("sessions", "locks"):
                self._connection.execute(
                    SQL("delete from {}.{} where reviewer = %s").format(
                        self._schema, Identifier(table)
                    ),
                    [reviewer],
                )

    def all(self) -> list[Reviewer]:
        """Everybody who reviews or did, by name."""
        rows = self._connection.execute(
            self._sql(
                "select reviewer, is_active, added_at, (select count(*)"
                " from {0}.label_states as said where said.reviewer = reviewers.reviewer"
                " and said.withdrawn_at is null) from {0}.reviewers as reviewers order by reviewer"
            )
        ).fetchall()
        return [Reviewer(*row) for row in rows]

    def log_in(self, token: str) -> str | None:
        """Begin a login; gives its secret name, or nothing where nobody has the token."""
        session = secrets.token_urlsafe(32)
        self._connection.execute(self._sql("delete from {}.sessions where expires_at < now()"))
        done = self._connection.execute(
            self._sql(
                "insert into {0}.sessions (session_sha256, reviewer, expires_at)"
                " select %s, reviewer, now() + %s from {0}.reviewers"
                " where token_sha256 = %s and is_active"
            ),
            [digest(session), LOGIN_LASTS, digest(token)],
        )
        return session if done.rowcount else None

    def who(self, session: str) -> str | None:
        """Whose login this is; nobody's when it has ended."""
        row = self._connection.execute(
            self._sql(
                "select reviewer from {0}.sessions inner join {0}.reviewers using (reviewer)"
                " where session_sha256 = %s and expires_at > now() and is_active"
            ),
            [digest(session)],
        ).fetchone()
        return row[0] if row else None

    def log_out(self, session: str) -> None:
        """End a login."""
        self._connection.execute(
            self._sql("delete from {}.sessions where session_sha256 = %s"), [digest(session)]
        )

    def _sql(self, statement: str) -> Composed:
        return SQL(statement).format(self._schema)


def digest(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
