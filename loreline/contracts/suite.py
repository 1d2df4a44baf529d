"""Great Expectations, made of a contract and applied to columns of payloads.

Importing it takes two seconds, a validation a tenth of one, whatever the number of rows: it is
imported when the first rows are judged, and judges whole packages.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from loreline.contracts.odcs import VOLUME_CHANGE, Contract, Rule, Volume

# It asks when it is imported.
os.environ["GX_ANALYTICS_ENABLED"] = "false"

# What a detailed result says of each row, too much to be kept.
_EVERY_ROW = {"unexpected_list", "unexpected_index_query"}
ROWS_COLUMN = "rows observed"
EXAMPLES = 5
_NONE = np.array([], dtype=np.int64)


@dataclass
class Breach:
    """A rule that some rows break.

    Attributes:
        rule: which.
        rows: how many.
        examples: some of the values that break it.
        positions: of the rows in the frame.
    """

    rule: Rule
    rows: int
    examples: list[Any] = field(default_factory=list)
    positions: np.ndarray = field(default_factory=lambda: _NONE)


def validate(contract: Contract, frame: pd.DataFrame) -> tuple[dict[str, Any], list[Breach]]:
    """Judge rows by all rules of a contract.

    Args:
        contract: whose rules.
        frame: what `payloads.columns` made of the rows.

    Returns:
        Great Expectations' result as it writes it, and the rules that are broken.
    """
    batch = _batch(contract.name, frame)
    result = batch.validate(_suite(contract), result_format="BOOLEAN_ONLY").to_json_dict()
    failed = [contract.rules[_rule(each)] for each in _failed(result)]
    if not failed:
        return result, []
    # How many rows they are, and which, is asked only of what failed.
    detailed = batch.validate(_suite_of(contract.name, failed), result_format="COMPLETE")
    breaches = []
    for told in _failed(detailed.to_json_dict()):
        found = told["result"]
        rule = failed[_rule(told)]
        positions = np.array(found.pop("unexpected_index_list"), dtype=np.int64)
        breaches.append(Breach(rule, found["unexpected_count"], _examples(found), positions))
        for each in _failed(result):
            if contract.rules[_rule(each)] == rule:
                each["result"] = {name: found[name] for name in found if name not in _EVERY_ROW}
    return result, breaches


def validate_volume(
    contract: Contract, volume: Volume, rows: int, median: float, *, so_far: bool = False
) -> tuple[dict[str, Any], list[Breach]]:
    """Judge the number of rows that a complete load observed.

    Args:
        contract: of the table.
        volume: its bounds.
        rows: observed in this load.
        median: of the rows observed in recent loads.
        so_far: the load shows more of them.
    """
    least, most = volume.bounds(median)
    rule = Rule(
        VOLUME_CHANGE,
        ROWS_COLUMN,
        f"{rows:,} rows were observed{' so far' if so_far else ''}, after {median:,.0f} in recent"
        f" loads; {max(least, 0):,.0f} to {most:,.0f} are expected",
        (),
        volume.on_breach,
    )
    x = _gx().expectations
    suite = _gx().ExpectationSuite(
        name=contract.name,
        expectations=[
            x.ExpectColumnValuesToBeBetween(
                column=ROWS_COLUMN,
                min_value=max(least, 0),
                max_value=None if most == float("inf") else most,
                description=rule.text,
                meta={"rule": len(contract.rules)},
            )
        ],
    )
    batch = _batch(contract.name, pd.DataFrame({ROWS_COLUMN: [rows]}))
    result = batch.validate(suite, result_format="BASIC").to_json_dict()
    return result, [Breach(rule, rows) for _ in _failed(result)]


def joined(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Results of a table's rows and of their number as one."""
    rules = [each for result in results for each in result["results"]]
    succeeded = sum(each["success"] for each in rules)
    return {
        **results[0],
        "success": succeeded == len(rules),
        "results": rules,
        "statistics": {
            "evaluated_expectations": len(rules),
            "successful_expectations": succeeded,
            "unsuccessful_expectations": len(rules) - succeeded,
            "success_percent": 100.0 * succeeded / len(rules) if rules else None,
        },
    }


def expectations(rules: Sequence[Rule]) -> list[Any]:
    """The expectations that judge rules; each names its rule by position."""
    x = _gx().expectations
    return [
        x.ExpectColumnValuesToBeInSet(
            column=rule.column,
            value_set=list(rule.values),
            description=rule.text,
            meta={"rule": n},
        )
        if rule.values
        else x.ExpectColumnValuesToNotBeNull(
            column=rule.column, description=rule.text, meta={"rule": n}
        )
        for n, rule in enumerate(rules)
    ]


@cache
def _gx() -> Any:
    import great_expectations

    return great_expectations


@cache
def context() -> Any:
    """Great Expectations without files, telemetry and progress bars: one for the process."""
    made = _gx().get_context(mode="ephemeral")
    made.variables.progress_bars = {"globally": False}
    return made


@cache
def _batches() -> Any:
    assets = context().data_sources.add_pandas("landing")
    return {}, assets


def _batch(name: str, frame: pd.DataFrame) -> Any:
    made, assets = _batches()
    if name not in made:
        asset = assets.add_dataframe_asset(name)
        made[name] = asset.add_batch_definition_whole_dataframe("package")
    return made[name].get_batch({"dataframe": frame})


@cache
def _made_suite(name: str, digest: str, rules: tuple[Rule, ...]) -> Any:
    return _suite_of(name, rules)


def _suite(contract: Contract) -> Any:
    return _made_suite(contract.name, contract.digest, contract.rules)


def _suite_of(name: str, rules: Sequence[Rule]) -> Any:
    return _gx().ExpectationSuite(name=name, expectations=expectations(rules))


def _failed(result: dict[str, Any]) -> list[dict[str, Any]]:
    failed = [each for each in result["results"] if not each["success"]]
    for each in failed:
        # What could not be judged is a fault of ours, not of the rows. Its place is that of the
        # expectation, or of the metrics that it asked for.
        told = each.get("exception_info") or {}
        for place in (told, *(part for part in told.values() if isinstance(part, dict))):
            if place.get("raised_exception"):
                raise RuntimeError(place.get("exception_message"))
    return failed


def _rule(result: dict[str, Any]) -> int:
    return result["expectation_config"]["meta"]["rule"]


def _examples(result: dict[str, Any]) -> list[Any]:
    values = (each["value"] for each in result.get("partial_unexpected_counts", []))
    return [value for value in values if value is not None][:EXAMPLES]
