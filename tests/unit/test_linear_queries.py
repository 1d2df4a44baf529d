"""The queries that are sent to Linear: whether its schema has them, and what they cost."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from graphql import (
    FieldNode,
    GraphQLSchema,
    OperationDefinitionNode,
    SelectionSetNode,
    build_schema,
    parse,
    validate,
)
from graphql.language import IntValueNode, VariableNode

from dlt_sources.linear.queries import (
    ALL_TEAMS,
    CLOSED_TEAMS,
    FEW,
    KINDS,
    LISTINGS,
    SHARED_ISSUES,
    Listing,
    listing_query,
    object_query,
    objects_query,
    rest_query,
)
from tests.simulators.linear import SCHEMA

MOST = 10_000
# What one look for changes may cost: 60 an hour are then a third of the smallest limit of an hour
# that Linear has had, 250,000.
MOST_OF_A_LOOK = 1_400
ALL = [*{**LISTINGS, "teams": ALL_TEAMS}.values(), SHARED_ISSUES]
CHANGES = [*LISTINGS.values(), CLOSED_TEAMS]


def firsts(listings, first: int) -> dict[str, int]:
    return {f"{listing.name}First": min(first, listing.most) for listing in listings}


def queries() -> dict[str, tuple[str, dict[str, int]]]:
    """Every query by a name for it, with the sizes of its pages."""
    found = {
        "list all": (listing_query(ALL), firsts(ALL, 250)),
        "list changes": (listing_query(CHANGES), firsts(CHANGES, 250)),
        "look for changes": (listing_query(CHANGES), firsts(CHANGES, FEW)),
    }
    for listing in [*ALL, *CHANGES]:
        each = Listing(listing.name, listing.kind, listing.is_whole, listing.most)
        found[f"list {listing.name} {listing.is_whole}"] = (
            listing_query([each]),
            firsts([each], 250),
        )
    for kind in KINDS.values():
        found[f"one of {kind.table}"] = (object_query(kind), {})
        if kind.filter:
            found[f"some {kind.table}"] = (objects_query(kind), {"first": kind.at_once})
            ids = (objects_query(kind, is_whole=False), {"first": 250})
            found[f"ids of {kind.table}"] = ids
        for name, _ in kind.inner:
            found[f"{name} of {kind.table}"] = (rest_query(kind, name), {})
    return found


@pytest.fixture(scope="module")
def schema(real_data: Path) -> GraphQLSchema:
    return build_schema((real_data / "linear" / "schema.graphql").read_text())


@pytest.mark.parametrize("name", queries())
def test_the_simulator_understands_it(name):
    query, _ = queries()[name]
    assert validate(SCHEMA, parse(query)) == []


def test_linears_schema_has_all_of_them(schema):
    wrong = {
        name: [error.message for error in errors]
        for name, (query, _) in queries().items()
        if (errors := validate(schema, parse(query)))
    }
    assert wrong == {}


def test_the_simulators_schema_is_a_part_of_linears(schema):
    for name, part in SCHEMA.type_map.items():
        if name.startswith("__") or not hasattr(part, "fields"):
            continue
        whole = schema.type_map[name]
        for field, described in part.fields.items():
            assert field in whole.fields, f"{name}.{field}"
            real = whole.fields[field]
            assert str(described.type) == str(real.type), f"{name}.{field}"
            for argument, of_type in getattr(described, "args", {}).items():
                assert str(of_type.type) == str(real.args[argument].type), f"{name}.{field}"


@pytest.mark.parametrize("name", queries())
def test_it_is_not_too_complex(name):
    query, sizes = queries()[name]
    assert complexity(query, sizes) <= MOST


def test_a_look_for_changes_is_cheap():
    assert complexity(*queries()["look for changes"]) <= MOST_OF_A_LOOK


def complexity(query: str, sizes: dict[str, int]) -> int:
    """What Linear charges: 0.1 for a field, 1 for an object, times `first` within a list."""
    operation = parse(query).definitions[0]
    assert isinstance(operation, OperationDefinitionNode)
    return math.ceil(sum(cost(each, sizes) for each in operation.selection_set.selections))


def cost(field: FieldNode, sizes: dict[str, int], times: int = 1) -> float:
    inside = field.selection_set
    if not isinstance(inside, SelectionSetNode):
        return 0.1 * times
    first = 1
    for argument in field.arguments or ():
        if argument.name.value == "first":
            if isinstance(argument.value, VariableNode):
                first = sizes[argument.value.name.value]
            else:
                assert isinstance(argument.value, IntValueNode)
                first = int(argument.value.value)
    is_list = field.name.value == "nodes"
    total = float(0 if is_list else 1) * times
    for each in inside.selections:
        assert isinstance(each, FieldNode)
        if each.name.value == "nodes":
            nodes = each.selection_set
            assert isinstance(nodes, SelectionSetNode)
            total += times * first
            total += sum(cost(n, sizes, times * first) for n in nodes.selections)
        else:
            total += cost(each, sizes, times)
    return total
