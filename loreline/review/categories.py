"""What reviewers may say of a trajectory: the seed `label_categories`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loreline.errors import LorelineError
from loreline.lake.duck import connect, rows_if_built
from loreline.settings import Settings

# What these keys do on the page is said there.
TAKEN_KEYS = frozenset("abtsucjk")


@dataclass(frozen=True)
class Category:
    """A row of the seed; `key` chooses it on the page."""

    category: str
    title: str
    description: str
    key: str


def read_categories(settings: Settings) -> list[Category] | None:
    """The categories as they were last built; None where they never were.

    Raises:
        LorelineError: two share a key, or one has a key that is none or is taken by the page.
    """
    table = f"lake.{settings.prefix}seeds.label_categories"
    with connect(settings.as_reader()) as lake:
        rows = rows_if_built(
            lake,
            f"select category, title, description, key from {table}"  # noqa: S608 - the name is our own
            " order by polarity desc, title",
        )
    if rows is None:
        return None
    found = [Category(*row) for row in rows]
    check_keys(found)
    return found


def check_keys(categories: Sequence[Category]) -> None:
    """Make sure that each category has a key of its own.

    Raises:
        LorelineError: one has not.
    """
    keys = [each.key for each in categories]
    for each in categories:
        is_letter = len(each.key) == 1 and "a" <= each.key <= "z"
        if not is_letter or each.key in TAKEN_KEYS or keys.count(each.key) > 1:
            raise LorelineError(
                f"category {each.category} has the key {each.key!r}",
                "give each in seeds/label_categories.csv a small letter of its own, none of "
                + " ".join(sorted(TAKEN_KEYS)),
            )
