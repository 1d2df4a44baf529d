"""Contracts of published models, as dbt enforces them, in the Open Data Contract Standard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from open_data_contract_standard.model import (
    CustomProperty,
    Description,
    OpenDataContractStandard,
    SchemaObject,
    SchemaProperty,
)

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest

API_VERSION = "v3.1.0"
# What columns are called in models, and in ODCS.
LOGICAL_TYPES = {
    "varchar": "string",
    "bigint": "integer",
    "integer": "integer",
    "double": "number",
    "float": "number",
    "boolean": "boolean",
    "timestamp": "timestamp",
    "date": "date",
    "blob": "string",
}


def published(manifest: Manifest) -> Iterator[OpenDataContractStandard]:
    """One contract per model that others may read (`access: public`), by name.

    Args:
        manifest: the project as dbt reads it.

    Raises:
        KeyError: a column has a type that is not known here.
    """
    models = [
        node
        for node in manifest.nodes.values()
        if node.resource_type == "model" and node.config.get("access") == "public"
    ]
    for model in sorted(models, key=lambda node: (node.schema, node.name)):
        yield _contract(model)


def _contract(model: Any) -> OpenDataContractStandard:
    layer = model.fqn[1]
    return OpenDataContractStandard(
        apiVersion=API_VERSION,
        kind="DataContract",
        id=f"{layer}.{model.name}",
        name=model.name,
        version=f"{model.version or 1}.0.0",
        status="active",
        domain=model.group or layer,
        dataProduct=model.package_name,
        description=Description(purpose=model.description.strip()),
        customProperties=[
            CustomProperty(property="enforcedByDbt", value=bool(model.contract.enforced))
        ],
        schema=[
            SchemaObject(
                name=model.name,
                physicalName=f"{layer}.{model.name}",
                physicalType="table",
                logicalType="object",
                description=model.description.strip(),
                properties=[_property(column) for column in model.columns.values()],
            )
        ],
    )


def _property(column: Any) -> SchemaProperty:
    required = any(constraint.type == "not_null" for constraint in column.constraints)
    return SchemaProperty(
        name=column.name,
        physicalType=column.data_type,
        description=column.description.strip(),
        required=required or None,
        **_logical(column.data_type),
    )


def _logical(data_type: str) -> dict[str, Any]:
    """A column's type as ODCS has it, with that of its items where it is a list."""
    kind = data_type.strip().lower()
    if kind.endswith("[]"):
        items = kind.removesuffix("[]")
        inner = SchemaProperty(name="item", physicalType=items, **_logical(items))
        return {"logicalType": "array", "items": inner}
    if kind.startswith("struct"):
        return {"logicalType": "object"}
    return {"logicalType": LOGICAL_TYPES[kind]}
