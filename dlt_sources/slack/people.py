"""The people of a workspace, and those of others who write in it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime

from dlt_sources.api import ApiError
from dlt_sources.live import Batch
from dlt_sources.slack.client import record_of
from dlt_sources.slack.observations import user_seen
from dlt_sources.slack.settings import USERS
from dlt_sources.slack.workspace import Seen, Workspace
from dlt_sources.slices import Observation

NOBODY = {"user_not_found", "user_not_visible", "users_not_found", "invalid_user"}


class People:
    """Users of a workspace.

    Args:
        workspace: the state of the run.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.api = workspace.api
        self._known: set[str] = set()

    def all(self) -> Iterator[Batch]:
        """The list of users."""
        for page in self.api.pages("users.list", "members"):
            found = [user_seen(record, page.observed_at) for record in page.records]
            self._known |= {each.external_id for each in found if isinstance(each, Observation)}
            yield Batch([(USERS, each) for each in found], {"strangers": None})

    def met(self, known: Collection[str] = ()) -> Iterator[Batch]:
        """People in messages who are not landed: they are new, or of another workspace.

        Args:
            known: those who were asked for already.
        """
        nobody = set(self.workspace.run.cursors.get("strangers", []))
        before = set(nobody)
        unknown = self.workspace.people - self._known - set(known) - nobody
        asked = sorted(unknown - self.workspace.landed(USERS, unknown))
        for user, seen in zip(asked, self.api.map(self.by_itself, asked), strict=True):
            if seen is None:
                # There is no use in asking every time.
                nobody.add(user)
            else:
                yield Batch(seen)
        if nobody != before:
            yield Batch(cursors={"strangers": sorted(nobody)})

    def by_itself(self, user: str) -> list[Seen] | None:
        """A user; None where there is none."""
        observed_at = datetime.now(UTC)
        try:
            told = self.api.ask("users.info", user=user).get("user")
        except ApiError as error:
            if error.code in NOBODY:
                return None
            raise
        return [(USERS, user_seen(record_of(told, "users.info"), observed_at))]
