"""What can be said of an item, and whether it was said completely."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

PREFERENCES = ("a", "b", "tie")
STRENGTHS = {1: "slightly better", 2: "clearly better", 3: "much better"}
SCORES = {1: "bad", 2: "poor", 3: "fair", 4: "good", 5: "excellent"}
LONGEST_COMMENT = 10_000


class VerdictError(ValueError):
    """Something in a verdict is missing, or cannot be said; the message says what."""


@dataclass(frozen=True)
class Verdict:
    """What a reviewer says of an item.

    Attributes:
        preferred: of a pair: a, b or tie, by the order of the item's sides.
        strength: of a preference: 1 slightly, 2 clearly, 3 much better.
        categories: of a trajectory: rows of the seed `label_categories`, any number.
        score: of a trajectory: 1 bad to 5 excellent.
        comment: in words, if there are any.
    """

    preferred: str | None = None
    strength: int | None = None
    categories: Sequence[str] | None = None
    score: int | None = None
    comment: str | None = None

    def check(self, kind: str, known_categories: Collection[str]) -> None:
        """Make sure that it says all of an item of this kind that there is to say.

        Raises:
            VerdictError: it does not.
        """
        if self.comment is not None and len(self.comment) > LONGEST_COMMENT:
            raise VerdictError(f"a comment has at most {LONGEST_COMMENT:,} characters")
        if kind == "pair":
            self._check_pair()
        else:
            self._check_trajectory(known_categories)

    def _check_pair(self) -> None:
        if self.score is not None or self.categories:
            raise VerdictError("a pair is compared: it has no score and no categories")
        if self.preferred not in PREFERENCES:
            raise VerdictError("say which of the two is better, or that neither is")
        if self.preferred == "tie":
            if self.strength is not None:
                raise VerdictError("a tie has no strength")
        elif self.strength not in STRENGTHS:
            raise VerdictError("say by how much it is better")

    def _check_trajectory(self, known_categories: Collection[str]) -> None:
        if self.preferred is not None or self.strength is not None:
            raise VerdictError("a trajectory stands alone: there is nothing to prefer")
        if self.score not in SCORES:
            raise VerdictError("give a score")
        if unknown := sorted({*(self.categories or ())} - {*known_categories}):
            raise VerdictError(f"there is no category {', '.join(unknown)}")
