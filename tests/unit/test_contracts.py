"""Contracts say what models read, and what they say is checked."""

from __future__ import annotations

import fnmatch
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import jsonschema
import pyarrow as pa
import pytest
import yaml
from open_data_contract_standard.model import OpenDataContractStandard

from dlt_sources.inspection import inspect
from loreline.contracts import odcs, payloads, suite
from loreline.errors import LorelineError
from loreline.settings import PROJECT_ROOT, Settings

STAGING = [*PROJECT_ROOT.glob("models/staging/*/*.sql")]
CONTRACTS = {contract.name: contract for contract in odcs.contracts(Settings())}
# What staging reads otherwise than by a path in SQL: by functions in Python, or in a loop.
IN_PYTHON = {
    "raw_google_docs.documents": {
        *("tabs", "body", "lists", "footnotes", "inlineObjects", "positionedObjects"),
    },
    "raw_incident_reports.reports": {
        f"fields.{name}"
        for name in (
            *("title", "severity", "status", "commander", "url"),
            *("started_at", "detected_at", "resolved_at", "services", "authors", "tags"),
        )
    },
    "raw_log_files.lines": {"file", "end", "continues", "text"},
    "raw_notion.pages": {
        "page.properties",  # the title
        "blocks",
        "markdown",
    },
    "raw_notion.comments": {"rich_text"},
    "raw_slack.messages": {"text", "blocks", "attachments", "files"},
    "raw_gateway.events": {
        f"data.{name}"
        for name in (
            *("backend", "branch_kind", "context_anchor_turn_id", "duration_ms", "error"),
            *("is_replay", "model_snapshot_id", "parent_turn_id", "replay_run_id", "request"),
            *("response", "session_id", "started_at", "status", "tenant", "theme_id", "turn_id"),
            "variant_config",
        )
    },
}
# What the reader of a source needs, so that no model has to.
IN_READERS = {
    "raw_slack.messages": {"type", "ts", "channel", "edited.ts", "edited.user"},
    "raw_slack.channels": {"id"},
    "raw_slack.users": {"id"},
    "raw_notion.pages": {
        *("page.object", "page.id", "page.last_edited_time"),
        "page.parent.type",  # which of the ids is there
    },
    "raw_notion.users": {"object", "id"},
    "raw_notion.comments": {"object", "id", "last_edited_time"},
    "raw_gateway.events": {"specversion"},
    "raw_evaluation.items": {"is_deleted"},
    "raw_review.labels": {"label_id"},
    "raw_judge.judgements": {"judgement_id"},
    "raw_google_docs.documents": {"documentId", "suggestionsViewMode"},
    "raw_google_docs.files": {"id", "modifiedTime"},
    "raw_incident_reports.reports": {"file"},
    "raw_log_files.lines": {"start"},
    "raw_github.issues": {"issue.id", "issue.updated_at"},
    **{
        f"raw_linear.{table}": {"id"}
        for table in (
            *("attachments", "comments", "cycles", "issues", "labels", "projects", "relations"),
            *("teams", "users"),
        )
    },
}
# Landed for their history or for the source itself: no model reads them yet.
UNREAD = {
    *("raw_notion.databases", "raw_notion.data_sources"),
    *("raw_linear.documents", "raw_linear.history", "raw_log_files.files"),
}

SOURCE = re.compile(r'source\("(\w+)", "(\w+)"\)')
PATH = re.compile(
    r'(?:json_text|json_list|json_text_list|json_field_list)\("(?:source\.)?payload", "\$\.([^"]+)"'
)


def paths_that_staging_reads() -> dict[str, set[str]]:
    """Paths into payloads, by raw table; those of `verdicts[0].x` are of the list `verdicts`."""
    found: dict[str, set[str]] = {}
    for file in STAGING:
        text = file.read_text()
        if sources := set(SOURCE.findall(text)):
            ((schema, table),) = sources
            name = f"{schema}.{table}"
        else:
            assert 'ref("stg_gateway__events")' in text, file
            name = "raw_gateway.events"
        found.setdefault(name, set()).update(
            re.sub(r"\[\d+\].*", "", path) for path in PATH.findall(text) if not path.endswith(".")
        )
    return found


READ = paths_that_staging_reads()


def test_staging_is_found() -> None:
    assert len(READ) >= 8 and "thread_ts" in READ["raw_slack.messages"]


@pytest.mark.parametrize("table", sorted(READ))
def test_what_staging_reads_is_in_the_contract_and_nothing_else(table: str) -> None:
    contract = CONTRACTS[table]
    leaves = {
        field.name
        for field in contract.fields
        if not any(other.path[:-1] == field.path for other in contract.fields)
    }
    read = READ[table] | IN_PYTHON.get(table, set())
    described = {field.name for field in contract.fields}
    assert read <= described, "a model reads what the contract does not describe"
    assert leaves <= read | IN_READERS.get(table, set()), "nobody reads what the contract describes"


def test_every_raw_table_of_a_model_has_a_contract_and_no_other_has_one() -> None:
    sources = {}
    for file in PROJECT_ROOT.glob("models/staging/*/*__sources.yml"):
        for source in yaml.safe_load(file.read_text())["sources"]:
            sources |= {f"{source['name']}.{table['name']}": source for table in source["tables"]}
    assert set(sources) <= set(CONTRACTS)
    assert set(CONTRACTS) - set(sources) <= UNREAD


@pytest.mark.parametrize(
    "place",
    sorted(PROJECT_ROOT.glob("sample_workspace/day_*/*/")),
    ids=lambda place: f"{place.parent.name} {place.name}",
)
def test_the_sample_workspace_keeps_all_contracts(place: Path) -> None:
    seen = inspect(Settings(), place.name, place)
    assert sum(findings.rows for findings in seen.findings) > 0
    assert (seen.without_contract, seen.rejected) == ([], {})
    for findings in seen.findings:
        assert (findings.breaches, findings.new_fields) == ({}, {}), findings.contract.name


@pytest.mark.parametrize("name", sorted(CONTRACTS))
def test_a_contract_is_valid_by_the_standard(name: str) -> None:
    assert problem(CONTRACTS[name].text) is None


def problem(text: str) -> str | None:
    schema = json.loads(OpenDataContractStandard.json_schema())
    errors = jsonschema.Draft201909Validator(schema).iter_errors(yaml.safe_load(text))
    worst = jsonschema.exceptions.best_match(errors)
    return f"{worst.json_path}: {worst.message}" if worst else None


CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: raw_test.things
version: 2.1.0
status: active
schema:
  - name: things
    physicalName: raw_test.things
    properties:
      - {name: id, logicalType: string, required: true}
      - name: kind
        logicalType: string
        quality:
          - {metric: invalidValues, mustBe: 0, arguments: {validValues: [a, b]}}
      - {name: size, logicalType: number}
      - {name: count, logicalType: integer}
      - name: in
        logicalType: object
        properties:
          - {name: it's "so", logicalType: boolean}
      - {name: open, logicalType: object}
      - name: either
        logicalType: string
        customProperties:
          - {property: jsonTypes, value: [string, array]}
    customProperties:
      - {property: otherFields, value: [noted, in.noted]}
"""


@pytest.fixture
def contract(tmp_path: Path) -> odcs.Contract:
    return written(tmp_path, CONTRACT)


def written(folder: Path, text: str) -> odcs.Contract:
    file = folder / "raw_test.things.odcs.yaml"
    file.write_text(text)
    return odcs.read(file)


def judged(contract: odcs.Contract, *values: Any) -> dict[str, list[int]]:
    texts = pa.chunked_array([[json.dumps(value) for value in values]])
    with duckdb.connect() as connection:
        frame = payloads.columns(connection, contract, texts)
    _, breaches = suite.validate(contract, frame)
    return {breach.rule.text: breach.positions.tolist() for breach in breaches}


@pytest.mark.parametrize(
    ("value", "broken"),
    [
        ({"id": "x"}, None),
        ({}, "id is there"),
        ({"id": None}, "id is there"),
        ({"id": 7}, "id is of type string"),
        ({"id": ["x"]}, "id is of type string"),
        ({"id": "x", "kind": "b"}, None),
        ({"id": "x", "kind": None}, None),
        ({"id": "x", "kind": "c"}, "kind is one of a, b"),
        ({"id": "x", "size": 1}, None),
        ({"id": "x", "size": -1.5}, None),
        ({"id": "x", "size": "1"}, "size is of type number or integer"),
        ({"id": "x", "count": 2**70}, "count is of type integer"),
        ({"id": "x", "count": -3}, None),
        ({"id": "x", "count": 1.5}, "count is of type integer"),
        ({"id": "x", "in": {'it\'s "so"': True}}, None),
        ({"id": "x", "in": {'it\'s "so"': 1}}, 'in.it\'s "so" is of type boolean'),
        ({"id": "x", "in": []}, "in is of type object"),
        ({"id": "x", "either": []}, None),
        ({"id": "x", "either": {}}, "either is of type string or array"),
    ],
)
def test_a_row_is_judged_by_what_it_holds(
    contract: odcs.Contract, value: Any, broken: str | None
) -> None:
    assert judged(contract, {"id": "good"}, value) == ({broken: [1]} if broken else {})


def test_all_rows_that_break_a_rule_are_named(contract: odcs.Contract) -> None:
    values = [{"id": "x"} if n % 3 else {"kind": "z"} for n in range(1_000)]
    every_third = list(range(0, 1_000, 3))
    assert judged(contract, *values) == {
        "id is there": every_third,
        "kind is one of a, b": every_third,
    }


def test_new_fields_are_those_that_are_nowhere_in_the_contract(contract: odcs.Contract) -> None:
    values = [
        {"id": "x", "noted": 1, "new": 1, "open": {"any": 1}},
        {"id": "x", "in": {"noted": 1, "new": None}, "new": 2},
    ]
    texts = pa.chunked_array([[json.dumps(value) for value in values]])
    with duckdb.connect() as connection:
        found = payloads.new_fields(connection, contract, texts)
    assert found == {"new": 2, "in.new": 1}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("physicalName: raw_test.things", "physicalName: raw_test.others", "raw_test.others"),
        ("required: true", "required: true, unique: true", "versions"),
        ("metric: invalidValues", "metric: nullValues", "invalidValues"),
        ("mustBe: 0", "mustBeLessThan: 5", "mustBe: 0"),
        ("status: active", "slaProperties: [{property: latency, value: 3, unit: h}]", "in days"),
        ("kind: DataContract", "kind: DataContract\nmood: glad", "no contract"),
        ("status: active", "customProperties: [{property: onBreach, value: shrug}]", "quarantine"),
    ],
)  # fmt: skip
def test_what_a_contract_says_and_nobody_checks_is_refused(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert CONTRACT.count(old) == 1
    with pytest.raises(LorelineError, match=said):
        written(tmp_path, CONTRACT.replace(old, new))


def test_what_is_done_with_a_breach_is_said_for_all_for_a_field_or_for_its_values(
    tmp_path: Path,
) -> None:
    custom = "customProperties: [{property: onBreach, value: %s}]"
    text = CONTRACT.replace("status: active", f"status: active\n{custom % 'stop'}")
    text = text.replace("      - name: in\n", f"      - name: in\n        {custom % 'warn'}\n")
    assert text.count("onBreach") == 2
    done = {rule.text: rule.on_breach for rule in written(tmp_path, text).rules}
    assert done["in is of type object"] == done['in.it\'s "so" is of type boolean'] == "warn"
    assert {rule for rule, on_breach in done.items() if on_breach == "stop"} == {
        *("id is there", "id is of type string", "kind is of type string", "kind is one of a, b"),
        *("size is of type number or integer", "count is of type integer"),
        *("open is of type object", "either is of type string or array"),
    }


def test_rows_that_say_who_may_read_are_never_set_aside() -> None:
    """Set aside, one would leave in force what was said before."""
    for table, field in [
        ("raw_google_docs.files", ""),
        ("raw_linear.issues", "team"),
        ("raw_linear.issues", "sharedAccess"),
        ("raw_linear.teams", ""),
        ("raw_slack.channels", ""),
    ]:
        rules = [rule for rule in CONTRACTS[table].rules if rule.text.startswith(field)]
        assert rules and {rule.on_breach for rule in rules} == {"warn"}, table


@pytest.mark.parametrize("page", ["contracts.md", "adding-a-source.md"])
def test_the_contract_in_the_documentation_is_one(page: str, tmp_path: Path) -> None:
    (text,) = re.findall(
        r"```yaml\n(.*?)```", (PROJECT_ROOT / "docs" / page).read_text(), re.DOTALL
    )
    assert problem(text) is None
    name = yaml.safe_load(text)["schema"][0]["physicalName"]
    file = tmp_path / f"{name}.odcs.yaml"
    file.write_text(text)
    assert odcs.read(file).rules


def test_the_documentation_says_of_which_tables_the_number_of_rows_is_judged() -> None:
    page = (PROJECT_ROOT / "docs" / "contracts.md").read_text()
    section = page.partition("### How many rows are usual")[2]
    told = {}
    for tables, bounds, inputs in re.findall(r"^\| (`raw_.*) \| (.*) \| (.*) \|$", section, re.M):
        factors = [float(factor) for factor in re.findall(r"[\d.]+", bounds)]
        needs_word = inputs.startswith("only")
        for pattern in re.findall(r"`(.+?)`", tables):
            for name in fnmatch.filter(CONTRACTS, pattern):
                told[name] = (*factors, needs_word) if factors else None
    judged = {
        name: volume and (volume.least, volume.most, volume.needs_word)
        for name, volume in ((name, contract.volume) for name, contract in CONTRACTS.items())
    }
    assert told == judged


def test_bounds_leave_small_numbers_alone() -> None:
    volume = odcs.Volume(least=0.5, most=2, ignored_below=20)
    assert volume.bounds(10) == (-10, 30)
    assert volume.bounds(1_000) == (500, 2_000)


def test_the_site_shows_values_as_text_and_needs_nobody(
    contract: odcs.Contract, tmp_path: Path
) -> None:
    from loreline.contracts.results import Result
    from loreline.contracts.site import build

    hostile = '<script>alert(1)</script><img src="https://elsewhere.example/x">'
    texts = pa.chunked_array([[json.dumps({"id": "x", "kind": hostile})]])
    with duckdb.connect() as connection:
        result, _ = suite.validate(contract, payloads.columns(connection, contract, texts))
    kept = Result(
        contract.name, 1, datetime(2026, 10, 1, tzinfo=UTC), json.loads(json.dumps(result))
    )
    # Of another site of the same process it shows nothing.
    build([replace(contract, resource="others")], [kept], tmp_path / "before")
    index = build([contract], [kept], tmp_path / "site")
    pages = {page: page.read_text() for page in index.parent.rglob("*.html")}
    assert len(pages) == 3 and "raw_test.things" in pages[index]
    assert any("&lt;script&gt;alert(1)" in page for page in pages.values())
    for page in pages.values():
        assert "<script" not in page and "default-src 'none'" in page
        assert not re.search(r"<(link|img|iframe|source)[^>]*(src|href)=.?https?:", page)
        assert not re.search(r"url\(.?https?:", page)
    (link,) = re.findall(r'href="(validations/[^"]+)"', pages[index])
    assert (index.parent / link).exists()
    # Written again it is replaced; what is not ours is left alone.
    assert build([contract], [], tmp_path / "site") == index
    assert "validations/" not in index.read_text()
    assert not [*index.parent.glob("validations/**/*.html")]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").touch()
    with pytest.raises(LorelineError, match="something else"):
        build([contract], [], tmp_path / "other")
