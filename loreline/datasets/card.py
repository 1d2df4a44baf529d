"""The card of a frozen dataset: Markdown that says what it is, made to be read beside its files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from loreline.cli.text import visible
from loreline.datasets.exports import SIDE, SPLIT, ExportedFile, Source, split_order
from loreline.datasets.registry import FrozenDataset, Upstream

# What is counted, where the dataset has such a column.
COUNTED = {
    "theme_id": "theme",
    "model": "model",
    "rejected_model": "rejected model",
    "label": "wanted",
    "labels": "label",
    "negative_type": "negative type",
    SIDE: "side",
}
REDACTIONS = ("redactions", "redaction_count")
SHOWN_VALUES = 50


@dataclass(frozen=True)
class Description:
    """What the dbt project says of a dataset."""

    text: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Counts:
    """How many rows: by split, and by the values of a column and split.

    Attributes:
        splits: rows of each split.
        values: by column: rows of each (value, split).
        redactions: how many there are of each kind; None where the dataset does not say.
        tokens: sum of `token_count`; None without such a column.
        left_out: how many examples are not in the dataset, by the reason; None where that is not
            recorded.
        evaluation_sets: items of each evaluation set that it was kept free of.
    """

    splits: Mapping[str, int]
    values: Mapping[str, Mapping[tuple[Any, str], int]]
    redactions: Mapping[str, int] | None
    tokens: int | None
    left_out: Mapping[str, int] | None = None
    evaluation_sets: Mapping[str, int] = field(default_factory=dict)


def counted(source: Source, upstream: Iterable[Upstream] = ()) -> Counts:
    """Count the rows of a dataset, and what was left out of it on the way.

    Args:
        source: the dataset.
        upstream: what it was made from.
    """
    columns = source.columns()
    by_split = source.rows([SPLIT, "count(*)"], group_by="1").fetchall()
    values = {}
    for column in [name for name in COUNTED if name in columns]:
        rows = source.rows([f'"{column}"', SPLIT, "count(*)"], group_by="1, 2").fetchall()
        values[column] = _sums(rows)
    tokens = None
    if "token_count" in columns:
        row = source.rows(["coalesce(sum(token_count), 0)::bigint"]).fetchone()
        tokens = row[0] if row else None
    splits = dict(sorted(by_split, key=lambda row: split_order(row[0])))
    redactions = _redactions(source, columns)
    return Counts(splits, values, redactions, tokens, *_left_out(source, upstream))


def card(frozen: FrozenDataset, counts: Counts, described: Description) -> str:
    """The text of the card."""
    table = frozen.dataset.rsplit(".", 1)[-1]
    sections = [
        _front_matter(frozen),
        f"# {frozen.snapshot_name}",
        _facts(frozen, table, described),
        "## Counts\n\n" + _counts(counts),
        "## Sources\n\n" + _sources(frozen),
        "## Filters\n\n" + _filters(frozen),
        "## Left out\n\n" + _told_left_out(counts),
        "## Redactions\n\n" + _told_redactions(counts),
        "## Limits\n\n" + _limits(frozen),
        "## Columns\n\n" + _columns(frozen, described),
        "## Files\n\n" + _files(frozen.files),
        "## Rebuild\n\n" + _rebuild(frozen),
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(frozen: FrozenDataset) -> str:
    """What Hugging Face reads: the licence, and which file is which split."""
    lines = ["---", f"license: {json.dumps(frozen.parameters['licence'])}"]
    lines += [f"pretty_name: {json.dumps(frozen.snapshot_name)}", "configs:"]
    parquet = [file for file in frozen.files if file.path.endswith(".parquet")]
    for side in dict.fromkeys(file.side for file in parquet):
        lines += [f"- config_name: {side or 'default'}", "  data_files:"]
        for file in parquet:
            if file.side == side:
                lines += [f"  - split: {file.split}", f"    path: {file.path}"]
    return "\n".join([*lines, "---"])


def _facts(frozen: FrozenDataset, table: str, described: Description) -> str:
    note = frozen.parameters["note"]
    said = [_cell(described.text)] if described.text else []
    said += [_cell(note)] if note else []
    rows = [
        ("dataset", _Code(table)),
        ("rows", f"{frozen.row_count:,}"),
        ("frozen", f"{frozen.frozen_at:%Y-%m-%d %H:%M} UTC by {frozen.frozen_by}"),
        ("snapshot", _Code(f"{frozen.iceberg_snapshot_id}, tag {frozen.tag}")),
        ("content SHA-256", _Code(frozen.content_sha256)),
        ("code", _Code(frozen.code_version)),
        ("licence", frozen.parameters["licence"]),
    ]
    return "\n\n".join([*said, _table(["", ""], rows)])


def _counts(counts: Counts) -> str:
    splits = list(counts.splits)
    total = sum(counts.splits.values())
    tables = [_table(["", *splits, "all"], [["rows", *counts.splits.values(), total]])]
    for column, values in counts.values.items():
        sums: dict[Any, int] = {}
        for (value, _), number in values.items():
            sums[value] = sums.get(value, 0) + number
        order = sorted(sums, key=lambda value: (-sums[value], str(value)))
        rows = [
            [
                "none" if value is None else value,
                *(values.get((value, split), 0) for split in splits),
                sums[value],
            ]
            for value in order[:SHOWN_VALUES]
        ]
        text = _table([COUNTED[column], *splits, "all"], rows)
        if len(order) > SHOWN_VALUES:
            text += f"\n\n… and {len(order) - SHOWN_VALUES:,} more."
        tables.append(text)
    if counts.tokens is not None:
        tables.append(f"{counts.tokens:,} tokens by the dataset's own count.")
    return "\n\n".join(tables)


def _sources(frozen: FrozenDataset) -> str:
    rows = [[_Code(one.table), one.snapshot_id, _Code(one.tag)] for one in frozen.upstream]
    text = _table(["table", "snapshot", "tag"], rows) if rows else "No table of the lake."
    if outside := frozen.parameters["outside"]:
        text += f"\n\nAlso read, and without a history: {', '.join(map(_cell, outside))}."
    return text


def _filters(frozen: FrozenDataset) -> str:
    parameters = frozen.parameters
    where = f"Rows were chosen by {_cell(_Code(frozen.where))}." if frozen.where else "All rows."
    variables = json.dumps(parameters["variables"], sort_keys=True, default=str)
    return f"{where}\n\ndbt's variables beside the project's own: {_cell(_Code(variables))}."


def _told_redactions(counts: Counts) -> str:
    if counts.redactions is None:
        return "The dataset does not say how many of its values were redacted."
    if not any(counts.redactions.values()):
        return "None."
    return _table(["kind", "number"], sorted(counts.redactions.items()))


def _told_left_out(counts: Counts) -> str:
    if counts.left_out is None:
        return "The dataset does not say what was left out of it."
    why = _table(["why", "examples"], sorted(counts.left_out.items()))
    said = [why if counts.left_out else "Nothing."]
    if counts.evaluation_sets:
        rows = sorted(counts.evaluation_sets.items())
        said += ["Kept free of these evaluation sets:", _table(["evaluation set", "items"], rows)]
    else:
        said.append("It was compared with no evaluation set.")
    return "\n\n".join(said)


def _limits(frozen: FrozenDataset) -> str:
    said = [
        "Frozen: what was corrected, erased or judged otherwise since is not in it.",
        "Duplicates, near-copies and splits are as the models of the recorded code see them.",
    ]
    if not frozen.parameters["commit"] or not frozen.parameters["is_clean"]:
        said.append("Built from files that no commit holds: it cannot be rebuilt from its code.")
    if frozen.parameters["outside"]:
        said.append("Made in part from what has no history: it cannot be rebuilt.")
    return "\n".join(f"- {line}" for line in said)


def _columns(frozen: FrozenDataset, described: Description) -> str:
    rows = [
        [_Code(name), _Code(kind), described.columns.get(name, "")]
        for name, kind in frozen.writer["columns"]
    ]
    note = "Tools, and the arguments of their calls, are JSON text."
    return _table(["column", "type", ""], rows) + f"\n\n{note}"


def _files(files: Sequence[ExportedFile]) -> str:
    rows = [[_Code(file.path), file.rows, file.size, _Code(file.sha256)] for file in files]
    return _table(["file", "rows", "bytes", "SHA-256"], rows)


def _rebuild(frozen: FrozenDataset) -> str:
    name = frozen.snapshot_name
    return (
        f"`loreline freeze --verify {name}` writes the files again from the tag and compares.\n"
        f"`loreline freeze --rebuild {name}` runs the recorded code over the tagged snapshots\n"
        "above and compares the rows."
    )


def _sums(rows: Iterable[tuple[Any, str, int]]) -> dict[tuple[Any, str], int]:
    """Rows of each value and split; a list counts for each of its values."""
    sums: dict[tuple[Any, str], int] = {}
    for found, split, number in rows:
        for value in (found or [None]) if isinstance(found, list) else [found]:
            sums[value, split] = sums.get((value, split), 0) + number
    return sums


def _left_out(
    source: Source, upstream: Iterable[Upstream]
) -> tuple[dict[str, int] | None, dict[str, int]]:
    """Examples by the reason why they are not in it, and items by their evaluation set."""
    left_out: dict[str, int] | None = None
    evaluation_sets: dict[str, int] = {}
    dataset = source.table.rsplit(".", 1)[-1].split("_")[0]
    for one in upstream:
        table = replace(source, table=one.table, snapshot_id=one.snapshot_id, where="")
        if one.table.endswith("datasets.example_decisions"):
            condition = f"dataset = '{dataset}' and exclusion is not null"
            found = table.rows(["exclusion", "count(*)"], condition, group_by="1")
            left_out = dict(found.fetchall())
        if one.table.endswith("staging.stg_evaluation__items"):
            latest = "arg_max(is_deleted, (observed_at, raw_batch, landed_at))"
            found = table.rows(["evaluation_set", "item_id", latest], group_by="1, 2")
            evaluation_sets = dict(Counter(name for name, _, gone in found.fetchall() if not gone))
    return left_out, evaluation_sets


def _redactions(source: Source, columns: Mapping[str, str]) -> dict[str, int] | None:
    column = next((name for name in REDACTIONS if name in columns), None)
    if column is None:
        return None
    if columns[column] != "VARCHAR":
        row = source.rows([f"coalesce(sum({column}), 0)::bigint"]).fetchone()
        return {"all kinds": row[0] if row else 0}
    sums: dict[str, int] = {}
    for (text,) in source.rows([column], f"{column} is not null").fetchall():
        found = json.loads(text)
        for kind, number in found.items() if isinstance(found, dict) else ():
            sums[kind] = sums.get(kind, 0) + int(number)
    return sums


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


class _Code(str):
    """What is to be shown as code."""


def _cell(value: Any) -> str:
    """Text from outside as text: no markup, no line of its own, no control characters."""
    if isinstance(value, _Code):
        return "`" + _line(value).replace("`", "'").replace("|", "\\|") + "`" if value else ""
    if type(value) is int:
        # Ids of snapshots are numbers, but nobody counts with them.
        return f"{value:,}" if abs(value) < 10**12 else str(value)
    return "".join(f"&#{ord(c)};" if c in "\\`*_[]<>|#&" else c for c in _line(value))


def _line(value: Any) -> str:
    return visible(" ".join(str(value).split()))
