"""Contracts of raw tables, read from files of the Open Data Contract Standard (ODCS) v3.

https://bitol-io.github.io/open-data-contract-standard. The schema describes the JSON in `payload`:
nested properties are nested objects. What a file says and nothing here would check is refused,
rather than taken for checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pydantic
import yaml
from open_data_contract_standard.model import (
    CustomProperty,
    DataQuality,
    OpenDataContractStandard,
    SchemaObject,
    SchemaProperty,
)

from loreline.errors import LorelineError
from loreline.settings import ON_BREACH, Settings

SUFFIX = ".odcs.yaml"
ENGINE = "loreline"
# Longer lists of values are only counted where a rule is shown.
SHOWN_VALUES = 8

MISSING_KEY = "missing key"
TYPE_CHANGE = "type change"
UNSEEN_VALUE = "unseen value"
VOLUME_CHANGE = "volume change"

# What is done with rows that break a contract: set aside, nothing landed, or landed and reported.
QUARANTINE, STOP, WARN = ON_BREACH

# ODCS's logical types, and the types of JSON values that they allow.
JSON_TYPES = {
    "string": ("string",),
    "date": ("string",),
    "timestamp": ("string",),
    "time": ("string",),
    "number": ("number", "integer"),
    "integer": ("integer",),
    "boolean": ("boolean",),
    "object": ("object",),
    "map": ("object",),
    "array": ("array",),
    "vector": ("array",),
}

Path_ = tuple[str, ...]


@dataclass(frozen=True)
class Field:
    """A field of a payload.

    Attributes:
        path: the keys that lead to it.
        types: JSON types that it may have; none where it may have any.
        is_required: whether it must be in every payload, and not null.
        values: the values that it may have, as text; none where it may have any.
        on_breach: what is done with rows that break this.
        on_unseen: what is done with rows that have another value.
    """

    path: Path_
    types: tuple[str, ...]
    is_required: bool
    values: tuple[str, ...]
    on_breach: str
    on_unseen: str

    @property
    def name(self) -> str:
        """The path as people write it."""
        return ".".join(self.path)


@dataclass(frozen=True)
class Volume:
    """How the number of rows observed in a complete load may differ from recent loads.

    Attributes:
        least: times the median of recent loads.
        most: likewise.
        loads: how many loads are recent.
        ignored_below: a difference of fewer rows is never sudden.
        needs_word: whether only inputs count whose `export.json` says that they are complete.
        on_breach: what is done with the rows of a load beyond these bounds.
    """

    least: float = 0.0
    most: float = float("inf")
    loads: int = 5
    ignored_below: int = 0
    needs_word: bool = False
    on_breach: str = STOP

    def is_meant_for(self, told_complete: bool | None) -> bool:
        """Whether an input is judged that says of itself to be complete or not, or nothing."""
        return told_complete is True if self.needs_word else told_complete is not False

    def bounds(self, median: float) -> tuple[float, float]:
        """The fewest and the most rows that are not sudden, after loads of that median."""
        return (
            min(self.least * median, median - self.ignored_below),
            max(self.most * median, median + self.ignored_below),
        )


@dataclass(frozen=True)
class Rule:
    """One thing that a contract demands, as Great Expectations judges it.

    Attributes:
        kind: missing key, type change, unseen value or volume change.
        column: of the frame that `payloads.columns` makes.
        text: the demand in words.
        values: what may be in the column; none where it must not be empty.
        on_breach: what is done with rows that break it.
    """

    kind: str
    column: str
    text: str
    values: tuple[str, ...]
    on_breach: str


@dataclass(frozen=True)
class Contract:
    """What is agreed about a raw table.

    Attributes:
        file: where it is written.
        source: notion, slack, …
        resource: the table, without its namespace.
        version: the contract's own.
        fields: what it says of the payload, parents before what is in them.
        other_fields: paths that are known and that nothing reads; one that ends in `.*` stands for
            all below it, `*` for all there are.
        open_objects: objects of which no field is described: any may come.
        volume: bounds of the number of rows, if there are any.
        latency_days: how old the newest load may be, if that is agreed.
        text: the file's content.
    """

    file: Path
    source: str
    resource: str
    version: str
    fields: tuple[Field, ...]
    other_fields: frozenset[str]
    open_objects: frozenset[str]
    volume: Volume | None
    latency_days: float | None
    text: str

    @property
    def name(self) -> str:
        """The table's name, as `raw_slack.messages`."""
        return f"raw_{self.source}.{self.resource}"

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """What is demanded of each row."""
        return tuple(rule for field in self.fields for rule in _rules(field))

    @cached_property
    def objects(self) -> tuple[Path_, ...]:
        """Objects whose keys are all described: the payload first."""
        within = {field.path[:-1] for field in self.fields}
        return tuple(sorted(within | {()}, key=lambda path: (len(path), path)))

    def knows(self, path: Path_) -> bool:
        """Whether a field is described, or noted as known."""
        names = {field.name for field in self.fields} | self.other_fields
        above = [".".join(path[:n]) for n in range(1, len(path))]
        is_open = any(f"{name}.*" in names or name in self.open_objects for name in above)
        return is_open or "*" in names or ".".join(path) in names


def read(file: Path) -> Contract:
    """Read a contract.

    Raises:
        LorelineError: it is no ODCS contract of a raw table, or says what nothing here checks.
    """
    try:
        text = file.read_text()
        content = yaml.safe_load(text)
        document = OpenDataContractStandard(**content)
    except (OSError, yaml.YAMLError, TypeError, pydantic.ValidationError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LorelineError(
            f"{file} is no contract ({first})", "write it as docs/contracts.md says"
        ) from error
    if not document.schema_ or len(document.schema_) != 1:
        raise _refused(file, f"it has {len(document.schema_ or [])} schemas", "give it one table")
    return _contract(file, text, document, document.schema_[0])


def contracts(settings: Settings) -> list[Contract]:
    """All contracts, by name.

    Raises:
        LorelineError: one of them cannot be used.
    """
    return [read(file) for file in sorted(settings.contracts_folder.glob(f"raw_*{SUFFIX}"))]


def contract_of(settings: Settings, source: str, resource: str) -> Contract | None:
    """The contract of a raw table, if there is one."""
    file = settings.contracts_folder / f"raw_{source}.{resource}{SUFFIX}"
    return read(file) if file.is_file() else None


def digest_of(settings: Settings, source: str) -> str:
    """What changes when a contract of a source does, or what is done with breaches."""
    files = sorted(settings.contracts_folder.glob(f"raw_{source}.*{SUFFIX}"))
    content = b"\0".join(file.read_bytes() for file in files)
    return hashlib.sha256(settings.on_breach.encode() + b"\0" + content).hexdigest()


def _contract(
    file: Path, text: str, document: OpenDataContractStandard, table: SchemaObject
) -> Contract:
    name = file.name.removesuffix(SUFFIX)
    if table.physicalName != name or not name.startswith("raw_") or name.count(".") != 1:
        raise _refused(
            file,
            f"its table is called {table.physicalName}",
            "physicalName is raw_<source>.<resource>, and so is the file's name",
        )
    source, resource = name.removeprefix("raw_").split(".")
    agreed = _on_breach(file, document.customProperties, QUARANTINE)
    properties = list(_properties(file, table.properties or [], (), agreed))
    return Contract(
        file=file,
        source=source,
        resource=resource,
        version=document.version or "",
        fields=tuple(_field(file, *each) for each in properties),
        other_fields=frozenset(_custom(table.customProperties, "otherFields") or ()),
        open_objects=frozenset(
            ".".join(path)
            for path, each, _ in properties
            if each.logicalType in ("object", "map") and not each.properties
        ),
        volume=_volume(file, table.quality or [], agreed),
        latency_days=_latency(file, document),
        text=text,
    )


def _properties(
    file: Path, properties: Sequence[SchemaProperty], above: Path_, agreed: str
) -> Iterator[tuple[Path_, SchemaProperty, str]]:
    """All properties, those within others too, with what is done with rows that break them."""
    for each in properties:
        path = (*above, each.name or "")
        on_breach = _on_breach(file, each.customProperties, agreed)
        yield path, each, on_breach
        yield from _properties(file, each.properties or [], path, on_breach)


def _field(file: Path, path: Path_, written: SchemaProperty, agreed: str) -> Field:
    if written.unique or written.primaryKey or written.enum:
        raise _refused(
            file,
            f"{'.'.join(path)} is unique, a primaryKey or an enum",
            "a raw table holds versions; allowed values are a rule with the metric invalidValues",
        )
    values: tuple[str, ...] = ()
    on_unseen = agreed
    for rule in written.quality or []:
        if rule.type == "text":
            continue
        allowed = (rule.arguments or {}).get("validValues")
        if rule.metric != "invalidValues" or not allowed or rule.mustBe != 0:
            raise _refused(
                file,
                f"a rule of {'.'.join(path)} is of another kind than are checked",
                "there is `metric: invalidValues` with `arguments.validValues` and `mustBe: 0`",
            )
        values = tuple(str(value) for value in allowed)
        on_unseen = _on_breach(file, rule.customProperties, agreed)
    return Field(
        path=path,
        types=tuple(_custom(written.customProperties, "jsonTypes") or ())
        or JSON_TYPES.get(written.logicalType or "", ()),
        is_required=bool(written.required),
        values=values,
        on_breach=agreed,
        on_unseen=on_unseen,
    )


def _volume(file: Path, rules: Sequence[DataQuality], agreed: str) -> Volume | None:
    found = None
    for rule in rules:
        if rule.type == "text":
            continue
        written = rule.implementation if isinstance(rule.implementation, dict) else {}
        bounds = written.get("volumeChange")
        if rule.type != "custom" or rule.engine != ENGINE or not isinstance(bounds, dict):
            raise _refused(
                file,
                "a rule of the table is of another kind than are checked",
                f"there is `engine: {ENGINE}` with `implementation.volumeChange`",
            )
        named = {
            "least": "least",
            "most": "most",
            "recentLoads": "loads",
            "ignoredBelow": "ignored_below",
            "onlyIfComplete": "needs_word",
        }
        if unknown := bounds.keys() - named.keys():
            raise _refused(
                file, f"volumeChange has {', '.join(unknown)}", f"use {', '.join(named)}"
            )
        found = Volume(
            **{named[key]: value for key, value in bounds.items()},
            on_breach=_on_breach(file, rule.customProperties, agreed),
        )
    return found


def _latency(file: Path, document: OpenDataContractStandard) -> float | None:
    for each in document.slaProperties or []:
        if each.property != "latency":
            continue
        if each.unit not in ("d", "day", "days"):
            raise _refused(file, f"its latency is in {each.unit}", "give it in days: `unit: d`")
        return float(each.value)  # type: ignore[arg-type]
    return None


def _rules(field: Field) -> Iterator[Rule]:
    if field.is_required:
        yield Rule(MISSING_KEY, field.name, f"{field.name} is there", (), field.on_breach)
    if field.types:
        text = f"{field.name} is of type {' or '.join(field.types)}"
        yield Rule(TYPE_CHANGE, field.name, text, field.types, field.on_breach)
    if field.values:
        text = f"{field.name} is one of {_listed(field.values)}"
        yield Rule(UNSEEN_VALUE, value_column(field), text, field.values, field.on_unseen)


def _listed(values: Sequence[str]) -> str:
    return f"{len(values)} known values" if len(values) > SHOWN_VALUES else ", ".join(values)


def value_column(field: Field) -> str:
    """The column with a field's values, beside that with their types."""
    return f"value of {field.name}"


def _custom(properties: Sequence[CustomProperty] | None, name: str) -> Any:
    return next((each.value for each in properties or [] if each.property == name), None)


def _on_breach(file: Path, properties: Sequence[CustomProperty] | None, default: str) -> str:
    chosen = _custom(properties, "onBreach") or default
    if chosen not in ON_BREACH:
        raise _refused(file, f"onBreach is {chosen!r}", f"use one of {', '.join(ON_BREACH)}")
    return chosen


def _refused(file: Path, what: str, todo: str) -> LorelineError:
    return LorelineError(f"contract {file.name} cannot be used: {what}", todo)
