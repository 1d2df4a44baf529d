"""Contracts at the border: rows are judged package by package, before any of them is committed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from dlt_sources.quarantine import Reject
from dlt_sources.slices import MAX_PAYLOAD_BYTES
from loreline.contracts.odcs import QUARANTINE, STOP, VOLUME_CHANGE, WARN, Contract, Rule
from loreline.contracts.suite import EXAMPLES, Breach
from loreline.errors import LorelineError

# A load package is what becomes visible, and what a killed run loses, at once.
PACKAGE_BYTES = 64 * 1024 * 1024
# What is remembered of a load, at most.
NEW_FIELDS = 100


class ContractError(LorelineError):
    """Rows break a contract that says to stop: nothing of their package is committed."""


@dataclass
class Findings:
    """What a contract says of the rows of one table in one load.

    Attributes:
        contract: which.
        rows: how many were judged.
        breaches: rows that break a rule, by rule and by what was done with them.
        examples: of each rule, some values that break it.
        new_fields: fields that the contract does not know, the most frequent ones, and how many
            rows have them.
        result: Great Expectations' result of the last package, or of the first that broke a rule.
    """

    contract: Contract
    rows: int = 0
    breaches: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[str, list[Any]] = field(default_factory=dict)
    new_fields: Counter[str] = field(default_factory=Counter)
    result: dict[str, Any] | None = None

    def add(self, breaches: Iterable[Breach], result: dict[str, Any], done: str) -> None:
        """Count breaches, and what was done with the rows."""
        if self.result is None or self.result["success"]:
            self.result = result
        for breach in breaches:
            self.breaches[breach.rule.text, done or breach.rule.on_breach] += breach.rows
            examples = self.examples.setdefault(breach.rule.text, [])
            examples += [value for value in breach.examples if value not in examples]
            del examples[EXAMPLES:]


class Border:
    """Judges the rows of one table in one load by its contract.

    Args:
        contract: of the table.
        on_breach: what is done with rows that break the contract, whatever it says itself.
        fetch: the payload that is kept at an address.
        median: of the rows observed in recent loads; None where their number is not judged.

    Attributes:
        findings: what was found so far.
        observed: rows that the source has shown so far.
    """

    def __init__(
        self,
        contract: Contract,
        on_breach: str,
        fetch: Callable[[str], bytes],
        median: float | None = None,
    ) -> None:
        self.contract = contract
        self.on_breach = on_breach
        self.fetch = fetch
        self.median = median
        self.findings = Findings(contract)
        self.observed = 0

    @cached_property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """DuckDB without the limit of memory of the comparing one: a payload may be large."""
        return duckdb.connect()

    def judge(self, rows: pa.Table) -> dict[int, Reject]:
        """Judge a package.

        Returns:
            The positions of the rows that are to be set aside, and why.

        Raises:
            ContractError: a rule is broken that stops the source.
        """
        from loreline.contracts.payloads import columns, new_fields
        from loreline.contracts.suite import validate

        # A deletion says nothing new of an object.
        present = _present(rows)
        if not len(present):
            return {}
        payloads = self._payloads(rows if len(present) == len(rows) else rows.take(present))
        frame = columns(self.connection, self.contract, payloads)
        result, breaches = validate(self.contract, frame)
        self.findings.rows += len(present)
        new = self.findings.new_fields + new_fields(self.connection, self.contract, payloads)
        # Keys may be data, and then there are as many as rows.
        self.findings.new_fields = Counter(dict(new.most_common(NEW_FIELDS)))
        self.findings.add(breaches, result, self.on_breach)
        self._stop(breaches)
        refused = [each for each in breaches if self._done(each) == QUARANTINE]
        broken: dict[int, list[Rule]] = {}
        for breach in refused:
            for n in breach.positions.tolist():
                broken.setdefault(n, []).append(breach.rule)
        return {
            int(present[n]): self._reject(
                rows, int(present[n]), payloads[n], *_why(rules, frame, n)
            )
            for n, rules in broken.items()
        }

    def judge_overflow(self) -> bool:
        """Judge the rows `observed` while there may be more: what is too many stays too many.

        Returns:
            Whether they are to be set aside from here on.

        Raises:
            ContractError: they are too many, and the contract says to stop.
        """
        volume = self.contract.volume
        if volume is None or self.median is None:
            return False
        if self.observed <= volume.bounds(self.median)[1]:
            return False
        done = self.on_breach or volume.on_breach
        if done == STOP:
            self.judge_volume(so_far=True)
        return done == QUARANTINE

    def judge_volume(self, *, so_far: bool = False) -> str:
        """Judge how many rows a complete load has `observed`.

        Args:
            so_far: there are more of them.

        Returns:
            What is to be done: quarantine or warn; nothing where the number is not sudden.

        Raises:
            ContractError: it is, and the contract says to stop.
        """
        volume, median = self.contract.volume, self.median
        if volume is None or median is None:
            return ""
        least, most = volume.bounds(median)
        if least <= self.observed <= most and self.findings.result is None:
            # Nothing is new: Great Expectations is not even imported.
            return ""
        from loreline.contracts.suite import joined, validate_volume

        result, breaches = validate_volume(
            self.contract, volume, self.observed, median, so_far=so_far
        )
        before = self.findings.result
        self.findings.result = None
        self.findings.add(
            breaches, joined([before, result] if before else [result]), self.on_breach
        )
        self._stop(breaches)
        return self._done(breaches[0]) if breaches else ""

    def refuse(self, rows: pa.Table) -> dict[int, Reject]:
        """All rows of a package that are no deletions, to be set aside for their number."""
        payloads = self._payloads(rows)
        why = f"contract: {VOLUME_CHANGE}", "too many or too few rows came at once"
        return {n: self._reject(rows, n, payloads[n], *why) for n in _present(rows).tolist()}

    def _done(self, breach: Breach) -> str:
        return self.on_breach or breach.rule.on_breach

    def _stop(self, breaches: list[Breach]) -> None:
        stopping = [each for each in breaches if self._done(each) == STOP]
        if not stopping:
            return
        told = "; ".join(f"{each.rule.kind}: {_told(each)}" for each in stopping)
        raise ContractError(
            f"{self.contract.source} {self.contract.resource} break their contract, nothing of this"
            f" package was landed ({told})",
            f"repair the input, edit {self.contract.file.name}, or set LORELINE_ON_BREACH to"
            f" {QUARANTINE} or {WARN} for this load",
        )

    def _payloads(self, rows: pa.Table) -> pa.ChunkedArray:
        """The payloads of rows, also those that are kept as objects."""
        payloads = rows["payload"]
        if not payloads.null_count:
            return payloads
        texts = payloads.to_pylist()
        uris = rows["raw_object_uri"].to_pylist()
        for n, (text, uri) in enumerate(zip(texts, uris, strict=True)):
            if text is None and uri:
                texts[n] = self.fetch(uri).decode()
        return pa.chunked_array([pa.array(texts, pa.string())])

    def _reject(
        self, rows: pa.Table, n: int, payload: pa.StringScalar, reason: str, detail: str
    ) -> Reject:
        return Reject(
            reason=reason,
            detail=detail,
            raw=(payload.as_py() or "").encode(),
            origin=f"{self.contract.file.name}, version {self.contract.version}",
            resource=self.contract.resource,
            external_id=rows["external_id"][n].as_py(),
            observed_at=_in_utc(rows["observed_at"][n].as_py()),
            source_updated_at=_in_utc(rows["source_updated_at"][n].as_py()),
        )


def weight(rows: pa.Table) -> int:
    """Bytes that rows take while they are judged, when payloads kept as objects are fetched."""
    return rows.nbytes + (len(rows) - rows["raw_object_uri"].null_count) * MAX_PAYLOAD_BYTES


def _present(rows: pa.Table) -> np.ndarray:
    """The positions of rows that are no deletions."""
    return np.flatnonzero(~rows["is_deleted"].to_numpy())


def _why(rules: list[Rule], frame: pd.DataFrame, n: int) -> tuple[str, str]:
    """The reason why a row is set aside, and all that is wrong with it."""
    details = []
    for rule in rules:
        found = frame[rule.column].iloc[n]
        details.append(rule.text if pd.isna(found) else f"{rule.text}, not {found}")
    return f"contract: {rules[0].kind}", "to hold: " + "; ".join(details)


def _in_utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment else None


def _told(breach: Breach) -> str:
    if not breach.positions.size:
        return breach.rule.text
    examples = ", ".join(map(str, breach.examples))
    return f"{breach.rows:,} rows break: {breach.rule.text}" + (
        f"; it is {examples}" if examples else ""
    )
