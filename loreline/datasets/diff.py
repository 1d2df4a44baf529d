"""What differs between two frozen datasets: rows, counts, settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loreline.datasets.card import counted
from loreline.datasets.exports import KEY, Source
from loreline.datasets.registry import FrozenDataset
from loreline.datasets.verify import rows_of
from loreline.lake import duck
from loreline.settings import Settings

SHOWN_IDS = 20


@dataclass(frozen=True)
class Difference:
    """What differs between dataset A and dataset B.

    Attributes:
        rows: rows of each.
        added: rows that only B has, by `example_id`.
        removed: rows that only A has.
        changed: rows that both have, and that are not the same in each.
        columns_changed: how many of these differ in which column.
        examples: some ids of rows that were added, removed and changed.
        counts: by column and value: rows of A and of B, where they differ.
        settings: what else is not the same, as A and B have it.
    """

    rows: tuple[int, int]
    added: int
    removed: int
    changed: int
    columns_changed: Mapping[str, int]
    examples: Mapping[str, list[str]]
    counts: Mapping[str, Mapping[str, tuple[int, int]]]
    settings: Mapping[str, tuple[Any, Any]]


def difference(settings: Settings, before: FrozenDataset, after: FrozenDataset) -> Difference:
    """Compare two frozen datasets, each at its tag."""
    with duck.connect(settings.as_reader()) as connection:
        sources = [rows_of(connection, frozen) for frozen in (before, after)]
        columns = [set(source.columns()) for source in sources]
        shared = sorted((columns[0] & columns[1]) - {KEY})
        for name, source in zip(("a", "b"), sources, strict=True):
            connection.execute(f"create temp table {name} as {_selected(source)}")
        compared = _compared(shared)
        row = connection.execute(compared).fetchone()
        assert row is not None
        examples = {
            what: [key for (key,) in connection.execute(query).fetchall()]
            for what, query in _examples(shared).items()
        }
        counts = _counts(*map(counted, sources))
    added, removed, changed, *per_column = row
    by_column = {name: number for name, number in zip(shared, per_column, strict=True) if number}
    return Difference(
        (before.row_count, after.row_count),
        added,
        removed,
        changed,
        by_column,
        examples,
        counts,
        _settings(before, after, columns),
    )


def _selected(source: Source) -> str:
    columns = ", ".join(_name(name) for name in source.columns())
    return f"select {columns} from {source.relation()} where (\n{source.where or 'true'}\n)"


def _differs(column: str) -> str:
    return f"a.{_name(column)} is distinct from b.{_name(column)}"


def _any_differs(columns: list[str]) -> str:
    return "(" + (" or ".join(map(_differs, columns)) or "false") + ")"


def _compared(columns: list[str]) -> str:
    both = f"a.{KEY} is not null and b.{KEY} is not null"
    counts = [
        f"count(*) filter (where a.{KEY} is null)",
        f"count(*) filter (where b.{KEY} is null)",
        f"count(*) filter (where {both} and {_any_differs(columns)})",
        *(f"count(*) filter (where {both} and {_differs(column)})" for column in columns),
    ]
    return f"select {', '.join(counts)} from a full join b using ({KEY})"


def _examples(columns: list[str]) -> dict[str, str]:
    end = f"order by 1 limit {SHOWN_IDS}"
    return {
        "added": f"select {KEY} from b anti join a using ({KEY}) {end}",
        "removed": f"select {KEY} from a anti join b using ({KEY}) {end}",
        "changed": f"select {KEY} from a join b using ({KEY}) where {_any_differs(columns)} {end}",
    }


def _counts(before: Any, after: Any) -> dict[str, dict[str, tuple[int, int]]]:
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for column in ["split", *before.values.keys() | after.values.keys()]:
        sums = [_sums(counts, column) for counts in (before, after)]
        values = {
            value: (sums[0].get(value, 0), sums[1].get(value, 0))
            for value in sorted(sums[0].keys() | sums[1].keys())
        }
        if differing := {value: pair for value, pair in values.items() if pair[0] != pair[1]}:
            found[column] = differing
    return found


def _sums(counts: Any, column: str) -> dict[str, int]:
    if column == "split":
        return dict(counts.splits)
    sums: dict[str, int] = {}
    for (value, _), number in counts.values.get(column, {}).items():
        sums[str(value)] = sums.get(str(value), 0) + number
    return sums


def _settings(
    before: FrozenDataset, after: FrozenDataset, columns: list[set[str]]
) -> dict[str, tuple[Any, Any]]:
    facts = [
        {
            "dataset": frozen.dataset,
            "code_version": frozen.code_version,
            "status": frozen.status,
            "columns": sorted(names),
            **{name: frozen.parameters[name] for name in ("where", "variables", "licence")},
            **{f"library {name}": version for name, version in frozen.writer["libraries"].items()},
            **_upstream(frozen),
        }
        for frozen, names in zip((before, after), columns, strict=True)
    ]
    return {
        name: (facts[0].get(name), facts[1].get(name))
        for name in dict.fromkeys([*facts[0], *facts[1]])
        if facts[0].get(name) != facts[1].get(name)
    }


def _upstream(frozen: FrozenDataset) -> dict[str, list[int]]:
    read: dict[str, list[int]] = {}
    for one in frozen.upstream:
        read.setdefault(f"snapshot of {one.table}", []).append(one.snapshot_id)
    return read


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'
