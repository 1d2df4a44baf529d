"""Who judges, and how: rows of the seed `judges`, each with its prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import duckdb

from loreline.conversations.canonical import canonical_json
from loreline.errors import LorelineError
from loreline.judge import prompts, verdicts
from loreline.lake.duck import rows_if_built
from loreline.review.categories import Category
from loreline.settings import PROJECT_ROOT, Settings

Json = Any

WHICH = ("all", "queue")


@dataclass(frozen=True)
class Judge:
    """A judge: a row of the seed, and the text of its prompt.

    Attributes:
        name: of it.
        kind: trajectory or pair.
        model: that is asked.
        instructions: the prompt, with the categories in it.
        categories: that a trajectory may show.
        temperature: None to leave it to the model.
        max_tokens: of an answer; None likewise.
        most_characters: of what is shown of a subject; more are shortened.
        which: all, those in the review queue first; or queue, for those alone.
        at_most: subjects that one version judges.
        is_active: whether it judges unless it is named.
    """

    name: str
    kind: str
    model: str
    instructions: str
    categories: tuple[str, ...]
    temperature: float | None
    max_tokens: int | None
    most_characters: int
    which: str
    at_most: int
    is_active: bool

    @cached_property
    def configuration(self) -> dict[str, Json]:
        """All that shapes what it says."""
        return {
            "kind": self.kind,
            "model": self.model,
            "instructions": self.instructions,
            "frame": prompts.FRAME,
            "record_version": prompts.RECORD_VERSION,
            "schema": self.schema,
            "parameters": self.parameters,
            "most_characters": self.most_characters,
        }

    @cached_property
    def version(self) -> str:
        """Its name, and how the hash of its configuration begins."""
        digest = hashlib.sha256(canonical_json(self.configuration)).hexdigest()
        return f"{self.name} {digest[:8]}"

    @cached_property
    def schema(self) -> Json:
        """The JSON schema of an answer."""
        return verdicts.schema(self.kind, self.categories)

    @property
    def parameters(self) -> dict[str, Json]:
        """Parameters of its requests."""
        given = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        return {name: value for name, value in given.items() if value is not None}


def read_judges(
    lake: duckdb.DuckDBPyConnection,
    settings: Settings,
    categories: Sequence[Category],
    names: Sequence[str],
) -> list[Judge]:
    """The judges of these names, or the active ones, as they were last built.

    Args:
        lake: where the seed is.
        settings: say which schema.
        categories: that trajectories may show.
        names: whom to read; nobody for those that are active.

    Raises:
        LorelineError: there is no such judge, or one is not what it should be.
    """
    rows = rows_if_built(
        lake,
        "select judge, kind, model, prompt, temperature, max_tokens, most_characters, which,"  # noqa: S608 - the name is our own
        f" at_most, is_active from lake.{settings.prefix}seeds.judges order by judge",
    )
    known = [row[0] for row in rows or []]
    if unknown := sorted({*names} - {*known}):
        there = f"there are {', '.join(known)}" if known else "build the seed judges"
        raise LorelineError(f"no judge is called {', '.join(unknown)}", there)
    chosen = [row for row in rows or [] if (row[0] in names if names else row[-1])]
    return [_judge(*row, categories=categories) for row in chosen]


def _judge(
    name: str,
    kind: str,
    model: str,
    prompt: str,
    temperature: float | None,
    max_tokens: int | None,
    most_characters: int,
    which: str,
    at_most: int,
    is_active: bool,
    *,
    categories: Sequence[Category],
) -> Judge:
    where = f"judge {name} in seeds/judges.csv"
    if kind not in verdicts.KINDS or which not in WHICH:
        raise LorelineError(
            f"{where} has the kind {kind} and judges {which}",
            f"use {' or '.join(verdicts.KINDS)}, and {' or '.join(WHICH)}",
        )
    if most_characters < prompts.SHORTEST_SUBJECT:
        raise LorelineError(
            f"{where} is shown {most_characters} characters",
            f"use {prompts.SHORTEST_SUBJECT:,} or more",
        )
    try:
        text = (PROJECT_ROOT / prompt).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise LorelineError(
            f"the prompt of {where} cannot be read ({error})", "name a file in prompts/judges"
        ) from error
    instructions = prompts.instructions(text, categories)
    of_trajectories = tuple(each.category for each in categories) if kind == "trajectory" else ()
    return Judge(
        name,
        kind,
        model,
        instructions,
        of_trajectories,
        temperature,
        max_tokens,
        most_characters,
        which,
        at_most,
        is_active,
    )
