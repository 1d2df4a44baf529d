"""Every part of the dbt project says what it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import jsonschema
import pytest
import yaml
from dbt.cli.main import dbtRunner
from open_data_contract_standard.model import OpenDataContractStandard

from loreline.contracts.models import published
from loreline.settings import PROJECT_ROOT

IMPLEMENTATIONS = ("duckdb__", "spark__")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The parsed project; nothing is connected to."""
    folder = str(tmp_path_factory.mktemp("target"))
    places = ["--project-dir", str(PROJECT_ROOT), "--profiles-dir", str(PROJECT_ROOT)]
    outputs = ["--target", "local", "--target-path", folder, "--log-path", folder, "--quiet"]
    outcome = dbtRunner().invoke(["--warn-error", "parse", "--no-partial-parse", *places, *outputs])
    assert outcome.success, outcome.exception
    return outcome.result


def own_macros(manifest: Any) -> Iterator[Any]:
    """The macros of this project that are called by name."""
    for macro in manifest.macros.values():
        is_own = macro.package_name == manifest.metadata.project_name
        public = macro.name.split("__", 1)[-1]
        implements = macro.name.startswith(IMPLEMENTATIONS) and (
            f"macro.{macro.package_name}.{public}" in manifest.macros
        )
        if is_own and not implements and not macro.name.startswith("materialization_"):
            yield macro


def test_parsing_gives_no_warning(manifest: Any) -> None:
    assert manifest.nodes


def test_every_model_seed_source_and_column_is_described(manifest: Any) -> None:
    tables = [
        *(n for n in manifest.nodes.values() if n.resource_type in ("model", "seed")),
        *manifest.sources.values(),
    ]
    silent = [t.unique_id for t in tables if not t.description]
    silent += [
        f"{t.unique_id}.{column.name}"
        for t in tables
        for column in t.columns.values()
        if not column.description
    ]
    assert silent == []
    assert [t.unique_id for t in tables if not t.columns] == []


def test_every_column_of_a_model_has_a_type(manifest: Any) -> None:
    models = [n for n in manifest.nodes.values() if n.resource_type in ("model", "seed")]
    assert [
        f"{model.name}.{column.name}"
        for model in models
        for column in model.columns.values()
        if not column.data_type
    ] == []


def test_every_macro_and_argument_is_described(manifest: Any) -> None:
    macros = list(own_macros(manifest))
    assert macros
    silent = [macro.name for macro in macros if not macro.description]
    silent += [
        f"{macro.name}.{argument.name}"
        for macro in macros
        for argument in macro.arguments
        if not (argument.description and argument.type)
    ]
    assert silent == []


def test_the_described_arguments_are_those_of_the_macro(manifest: Any) -> None:
    for macro in own_macros(manifest):
        described = [argument.name for argument in macro.arguments]
        assert described == signature(macro), macro.name


def test_every_exposure_group_and_unit_test_is_described(manifest: Any) -> None:
    parts = [manifest.exposures, manifest.groups, manifest.unit_tests]
    assert all(parts)
    assert [n.unique_id for part in parts for n in part.values() if not n.description] == []


def test_what_others_read_has_a_contract(manifest: Any) -> None:
    public = [n for n in manifest.nodes.values() if getattr(n, "access", None) == "public"]
    names = {n.name for n in public}
    assert names >= {"documents", "documents_current", "chunks", "vector_manifest", "people"}
    # dbt enforces contracts on SQL alone; the schema of a Python model is in its code.
    assert {
        n.name for n in public if not n.config.contract.enforced and n.language == "sql"
    } == set()


def test_staging_is_private(manifest: Any) -> None:
    staging = [n for n in manifest.nodes.values() if n.name.startswith("stg_")]
    assert {n.access for n in staging if n.resource_type == "model"} == {"private"}


def test_every_singular_test_says_what_a_failing_row_is() -> None:
    files = sorted(Path(PROJECT_ROOT / "tests" / "dbt").glob("*.sql"))
    assert files
    for file in files:
        assert file.stem.startswith("assert_"), file
        assert file.read_text().startswith("-- A row is "), file


def signature(macro: Any) -> list[str]:
    """The names of a macro's arguments, as its text has them."""
    text = macro.macro_sql.replace("{% test ", "{% macro test_").replace(
        "{% endtest", "{% endmacro"
    )
    environment = jinja2.Environment(extensions=["jinja2.ext.do"])
    (defined,) = (
        node
        for node in environment.parse(text).find_all(jinja2.nodes.Macro)
        if node.name == macro.name
    )
    return [argument.name for argument in defined.args]


def test_the_contract_of_a_published_model_is_what_dbt_enforces(manifest: Any) -> None:
    schema = json.loads(OpenDataContractStandard.json_schema())
    validator = jsonschema.Draft201909Validator(schema)
    exported = {contract.id: contract for contract in published(manifest)}
    models = {
        f"{node.fqn[1]}.{node.name}": node
        for node in manifest.nodes.values()
        if node.resource_type == "model" and node.config.get("access") == "public"
    }
    assert len(models) > 30 and set(exported) == set(models)
    for name, model in models.items():
        written = yaml.safe_load(exported[name].to_yaml())
        assert not list(validator.iter_errors(written)), name
        # dbt enforces none of models in Python.
        assert model.contract.enforced or model.language == "python", name
        (table,) = written["schema"]
        columns = {each["name"]: each["physicalType"] for each in table["properties"]}
        assert columns == {column.name: column.data_type for column in model.columns.values()}
