"""Finding in texts what must not stay there: the rules of the seed `redaction_rules`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from loreline.errors import LorelineError
from loreline.settings import PROJECT_ROOT

SEED = PROJECT_ROOT / "seeds" / "redaction_rules.csv"


@dataclass(frozen=True)
class Rule:
    """A row of the seed `redaction_rules`: RE2's syntax, `\\1` for what a group holds."""

    name: str
    pattern: str
    replacement: str


class Redactor:
    """Applies rules one after the other, by DuckDB: RE2 takes linear time, whatever the text.

    Args:
        rules: in their order.

    Raises:
        LorelineError: a pattern cannot be read.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = list(rules)
        self._connection = duckdb.connect()
        for rule in self._rules:
            try:
                self._connection.execute(
                    "select regexp_replace('', $1, $2)", [rule.pattern, rule.replacement]
                )
            except duckdb.Error as error:
                raise LorelineError(
                    f"rule {rule.name} is no regular expression ({error})",
                    "mend its pattern in seeds/redaction_rules.csv",
                ) from error
        self._query = self._layers()

    def redact(self, texts: Sequence[str]) -> tuple[list[str], list[list[str]]]:
        """The texts without what the rules find, and for each the rules' names, once per find."""
        incoming = pa.table({"place": range(len(texts)), "text": pa.array(texts, pa.string())})
        self._connection.register("incoming", incoming)
        parameters = {
            f"{key}_{number}": value
            for number, rule in enumerate(self._rules)
            for key, value in (("pattern", rule.pattern), ("replacement", rule.replacement))
        }
        try:
            found = self._connection.execute(self._query, parameters).to_arrow_table()
        finally:
            self._connection.unregister("incoming")
        finds: list[list[str]] = [[] for _ in texts]
        for number, rule in enumerate(self._rules):
            counts = found.column(f"found_{number}").to_numpy()
            for place in np.flatnonzero(counts):
                finds[place] += [rule.name] * int(counts[place])
        return found.column("text").to_pylist(), finds

    def _layers(self) -> str:
        """Each rule sees what the one before it left; nothing is counted where nothing is found."""
        query, counted = "select place, text from incoming", ""
        for number in range(len(self._rules)):
            query = (
                f"select place{counted}, case when is_found"  # noqa: S608 - its names are numbers
                f" then regexp_replace(text, $pattern_{number}, $replacement_{number}, 'g')"
                f" else text end as text, case when is_found"
                f" then len(regexp_extract_all(text, $pattern_{number})) else 0"
                f" end as found_{number}"
                f" from (select *, regexp_matches(text, $pattern_{number}) as is_found"
                f" from ({query}))"
            )
            counted += f", found_{number}"
        return f"{query} order by place"


def landing_rules(seed: Path = SEED) -> list[Rule]:
    """The active rules for what lands, in their order."""
    with seed.open(newline="") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if row["is_active"] == "true" and row["is_for_landing"] == "true"
        ]
    rows.sort(key=lambda row: (int(row["position"]), row["rule"]))
    return [Rule(row["rule"], row["pattern"], row["replacement"]) for row in rows]
