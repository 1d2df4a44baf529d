"""What is read of Linear's answers, in whatever shape and split they come."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dlt_sources.linear.answers import table_of_file
from dlt_sources.linear.settings import (
    ARCHIVED,
    CONNECTIONS,
    FIELDS,
    HAVE_A_BIN,
    INNER_FIELDS,
    MEMBERSHIPS,
    NAMES,
    TABLES,
    TYPES,
    WHOLE,
)
from dlt_sources.linear.stage import Stage
from dlt_sources.slices import Observation

NOW = datetime(2026, 10, 1, tzinfo=UTC)
MONDAY, TUESDAY = "2026-09-28T09:00:00.000Z", "2026-09-29T09:00:00.000Z"


def issue(identity="i1", **fields):
    return {
        "id": identity,
        "identifier": f"ENG-{identity[1:]}",
        "title": "Till is slow",
        "description": None,
        "updatedAt": MONDAY,
        **fields,
    }


def comment(identity="c1", **fields):
    return {"id": identity, "body": "Looking.", "updatedAt": MONDAY, **fields}


def connection(*nodes, goes_on=False):
    return {"nodes": list(nodes), "pageInfo": {"hasNextPage": goes_on, "endCursor": "x"}}


def answer(**data):
    return {"data": data}


def staged(folder: Path, files) -> Stage:
    for name, value in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = value if name.endswith("l") else [value]
        path.write_text("\n".join(map(json.dumps, lines)))
    paths = [(folder / name, name) for name in sorted(files)]
    return Stage(paths, folder / "stage.sqlite", NOW)


def read(folder: Path, files):
    """Observations by table, and (reason, table, id) of what was set aside."""
    stage = staged(folder, files)
    found = [(table, item) for table in TABLES for item in stage.observations(table)]
    landed: dict[str, list[Observation]] = {}
    for table, item in found:
        if isinstance(item, Observation):
            landed.setdefault(table, []).append(item)
    rejects = [item for _, item in found if not isinstance(item, Observation)]
    return landed, [(item.reason, item.resource, item.external_id) for item in rejects]


FLAT = {
    "issues.jsonl": [issue()],
    "comments.jsonl": [
        comment("c1", issue={"id": "i1"}),
        comment("c2", issue={"id": "i1"}, parent={"id": "c1"}),
    ],
    "relations.jsonl": [
        {"id": "r1", "type": "blocks", "issue": {"id": "i1"}, "relatedIssue": {"id": "i2"}}
    ],
    "history.jsonl": [{"id": "h1", "createdAt": MONDAY, "issue": {"id": "i1"}}],
}
REPLY = comment("c2")
NESTED = issue(
    comments=connection(comment("c1", children=connection(REPLY))),
    relations=connection({"id": "r1", "type": "blocks", "relatedIssue": {"id": "i2"}}),
    history={"edges": [{"node": {"id": "h1", "createdAt": MONDAY}}]},
)


@pytest.mark.parametrize(
    "files",
    [
        {"a.json": answer(issues=connection(NESTED))},
        {"a.json": answer(issue=NESTED)},
        {"a.json": answer(team={"id": "t1", "issues": connection(NESTED)})},
        {"issues.json": connection(NESTED)},
        {"issues-1.json": [NESTED]},
        {"issues/1.jsonl": [NESTED]},
        {"a.jsonl": [NESTED | {"__typename": "Issue"}]},
        {"all.jsonl": [answer(issues=connection(NESTED)), answer(issues=connection(NESTED))]},
        {"b.json": answer(organization={"issues": connection(NESTED)})},
    ],
    ids=["list", "object", "in another", "connection", "array", "lines", "named", "twice", "inner"],
)
def test_the_same_objects_are_read_from_every_shape(tmp_path, files):
    expected, none = read(tmp_path / "flat", FLAT)
    found, rejects = read(tmp_path / "other", files)
    assert none == rejects == []

    def said(landed):
        return {
            (table, item.external_id): {**item.payload, "__typename": None, "team": None}
            for table, items in landed.items()
            for item in items
        }

    assert {key: said(found)[key] for key in said(expected)} == said(expected)
    assert sum(map(len, found.values())) == 5


def test_what_refers_to_an_object_is_not_the_object(tmp_path):
    fragment = {"id": "i2", "identifier": "ENG-2", "title": "A child", "updatedAt": TUESDAY}
    landed, rejects = read(
        tmp_path,
        {
            "issues.jsonl": [issue(children=connection(fragment))],
            "teams.jsonl": [{"id": "t1", "key": "ENG", "members": connection({"id": "u1"})}],
        },
    )
    assert [item.external_id for item in landed["issues"]] == ["i1"]
    assert "users" not in landed and not rejects


def test_parts_of_an_object_are_put_together(tmp_path):
    landed, rejects = read(
        tmp_path,
        {
            "a.json": answer(issue={"id": "i1", "comments": connection(comment())}),
            "b.json": answer(issues=connection(issue(url="https://linear.app/x/issue/ENG-1"))),
            "c.json": answer(issue={"id": "i1", "estimate": 3, "updatedAt": MONDAY}),
        },
    )
    (found,) = landed["issues"]
    assert found.payload == issue(url="https://linear.app/x/issue/ENG-1", estimate=3)
    assert landed["comments"][0].payload["issue"] == {"id": "i1"}
    assert not rejects


def test_versions_of_an_object_come_in_their_order(tmp_path):
    later = issue(title="Till is fast", updatedAt="2026-09-28T12:00:00+02:00")
    landed, _ = read(tmp_path, {"issues.jsonl": [later, issue()]})
    assert [item.payload["title"] for item in landed["issues"]] == ["Till is slow", "Till is fast"]
    assert landed["issues"][1].source_updated_at == datetime(2026, 9, 28, 10, tzinfo=UTC)


def test_what_is_in_the_bin_or_archived_is_gone(tmp_path):
    landed, rejects = read(
        tmp_path,
        {
            "issues.jsonl": [
                issue("i1", trashed=True, archivedAt=None),
                issue("i2", archivedAt=TUESDAY),
                issue("i3", trashed=None, archivedAt=None),
                {"id": "i4", "trashed": True, "updatedAt": TUESDAY},
            ]
        },
    )
    assert [item.is_deleted for item in landed["issues"]] == [True, True, False, True]
    assert [item.payload is None for item in landed["issues"]] == [False, False, False, True]
    assert not rejects
    resource = TABLES["issues"]
    shown = {resource.hashes(item.payload) for item in landed["issues"][:1]}
    assert shown == {resource.hashes(issue("i1"))}


def test_an_entry_of_history_tells_of_the_bin_and_is_not_in_it(tmp_path):
    entry = {"id": "h1", "createdAt": MONDAY, "issue": {"id": "i1"}, "trashed": True}
    landed, _ = read(tmp_path, {"history.jsonl": [entry]})
    assert [item.is_deleted for item in landed["history"]] == [False]
    hashes = TABLES["history"].hashes
    assert hashes(entry) != hashes({**entry, "trashed": False})


def test_a_list_of_labels_that_goes_on_sets_its_issue_aside(tmp_path):
    def labels(*names, goes_on):
        return connection(*({"id": name, "name": name} for name in names), goes_on=goes_on)

    gone = issue("i3", labels=labels("a", goes_on=True), trashed=True)
    files = {
        "a.jsonl": [
            answer(issues=connection(issue("i1", labels=labels("b", goes_on=True)))),
            answer(issues=connection(issue("i2", labels=labels("b", goes_on=True)), gone)),
            answer(issue={"id": "i2", "labels": labels("a", goes_on=False)}),
        ]
    }
    landed, rejects = read(tmp_path, files)
    assert rejects == [("missing_nodes", "issues", "i1")]
    whole, bin_ = landed["issues"]
    assert [label["id"] for label in whole.payload["labels"]["nodes"]] == ["a", "b"]
    assert "pageInfo" not in whole.payload["labels"]
    assert bin_.is_deleted


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"issues.jsonl": [issue(id=None)]}, ("missing_id", "issues", None)),
        ({"issues.jsonl": [issue(id=7)]}, ("wrong_type", "issues", None)),
        ({"issues.jsonl": [{"id": "i1"}]}, ("missing_field", "issues", "i1")),
        ({"issues.jsonl": [issue(title=7)]}, ("wrong_type", "issues", "i1")),
        ({"issues.jsonl": [issue(updatedAt="soon")]}, ("wrong_type", "issues", "i1")),
        ({"issues.jsonl": [issue(trashed="yes")]}, ("wrong_type", "issues", "i1")),
        ({"issues.jsonl": [issue(estimate=True)]}, ("wrong_type", "issues", "i1")),
        ({"issues.jsonl": [issue(assignee="u1")]}, ("wrong_type", "issues", "i1")),
        ({"issues.jsonl": [issue(labels={"nodes": [1]})]}, ("wrong_type", "issues", "i1")),
        ({"issues.jsonl": [issue(labels=["a"])]}, ("wrong_type", "issues", "i1")),
        ({"issues.jsonl": [issue(previousIdentifiers="E-1")]}, ("wrong_type", "issues", "i1")),
        ({"issues.jsonl": [[1]]}, ("wrong_type", "", None)),
        ({"a.jsonl": [issue()]}, ("wrong_type", "", None)),
        ({"issues.jsonl": [{"id": "x", "__typename": "Fax"}]}, ("wrong_type", "", None)),
        ({"a.jsonl": [{"id": "x", "__typename": ["Issue"]}]}, ("wrong_type", "", None)),
        ({"a.json": answer(issues={"nodes": None})}, ("wrong_type", "issues", None)),
        ({"a.json": answer(issues={"nodes": [None]})}, ("wrong_type", "issues", None)),
        ({"a.json": answer(issues=7)}, ("wrong_type", "", None)),
        ({"a.json": answer(webhooks=connection({"id": "w"}))}, ("wrong_type", "", None)),
        ({"a.json": {"data": None, "errors": [{"message": "no"}]}}, ("api_error", "", None)),
    ],
)
def test_a_bad_record_is_set_aside_and_the_rest_is_read(tmp_path, files, expected):
    good = {"b.json": answer(issues=connection(issue("i9", comments=connection(comment()))))}
    landed, rejects = read(tmp_path, files | good)
    assert [item.external_id for item in landed["issues"]] == ["i9"]
    assert [item.external_id for item in landed["comments"]] == ["c1"]
    assert rejects == [expected]


@pytest.mark.parametrize(
    ("table", "fields"),
    [
        ("issues", {"team": "ENG"}),
        ("issues", {"team": {"id": 1}}),
        ("issues", {"sharedAccess": [], "team": None}),
        ("issues", {"sharedAccess": {"sharedWithUsers": ["u1"]}}),
        ("teams", {"visibility": ["public"], "private": "no"}),
        ("teams", {"key": 7, "name": {}, "updatedAt": "soon"}),
        ("teams", {"members": ["u1"]}),
        ("teams", {"members": 7}),
        ("teams", {"members": {"nodes": ["u1"], "pageInfo": {"hasNextPage": True}}}),
        ("teams", {"members": {"nodes": None}}),
    ],
)
def test_what_says_who_may_read_lands_whatever_it_holds(tmp_path, table, fields):
    given = {"issues": issue(), "teams": {"id": "t1", "key": "ENG", "name": "Engineering"}}[table]
    landed, rejects = read(tmp_path, {f"{table}.jsonl": [given | fields]})
    (item,) = landed[table]
    assert {name: item.payload.get(name) for name in fields} == fields
    assert TABLES[table].hashes(item.payload) and not rejects


def test_a_team_lands_with_the_members_that_are_there(tmp_path):
    def team(*members, goes_on):
        nodes = connection(*({"id": member} for member in members), goes_on=goes_on)
        return {"id": "t1", "key": "ENG", "name": "Engineering", "members": nodes}

    part = answer(teams=connection(team("u2", goes_on=True)))
    landed, rejects = read(tmp_path, {"a.json": part})
    assert [item.payload["members"]["nodes"] for item in landed["teams"]] == [[{"id": "u2"}]]
    assert rejects == [("missing_nodes", "teams", "t1")]


def test_lines_that_cannot_be_read_leave_their_table_in_doubt(tmp_path):
    (tmp_path / "comments.jsonl").write_text('{"id": "c1", "body"\n' + json.dumps(comment("c2")))
    (tmp_path / "issues.jsonl").write_text("")
    paths = [(tmp_path / name, name) for name in ("comments.jsonl", "issues.jsonl")]
    stage = Stage(paths, tmp_path / "stage.sqlite", NOW)
    reasons = [getattr(item, "reason", "") for item in stage.observations("issues")]
    assert reasons == ["broken_json"]
    assert not stage.is_readable("comments") and stage.is_readable("issues")
    assert stage.lists_all("issues"), "an empty list is a list"
    assert not stage.lists_all("labels")


def test_a_list_is_whole_when_its_last_page_is_there(tmp_path):
    def first_page(*comments, goes_on):
        return connection(issue(comments=connection(*comments, goes_on=goes_on)), goes_on=goes_on)

    stage = staged(tmp_path / "a", {"a.json": answer(issues=first_page(comment(), goes_on=True))})
    assert [item.external_id for item in stage.observations("comments")] == ["c1"]
    assert not stage.lists_all("issues")
    assert stage.lists_of_owners("comments").to_pylist() == [
        {"field": "issue", "owner": "i1", "is_whole": False}
    ]
    pages = [answer(issues=first_page(comment(), goes_on=goes_on)) for goes_on in (True, False)]
    stage = staged(tmp_path / "b", {"a.jsonl": pages})
    list(stage.observations("issues"))
    assert stage.lists_all("issues")
    assert stage.lists_of_owners("comments")["is_whole"].to_pylist() == [True]


def test_what_refers_tells_nothing_of_what_it_refers_to():
    resource = TABLES["issues"]
    short = issue(assignee={"id": "u1"}, labels={"nodes": [{"id": "l1"}]}, team={"id": "t1"})
    long = issue(
        assignee={"id": "u1", "name": "Ana", "avatarUrl": "https://a"},
        labels={"nodes": [{"id": "l1", "name": "Bug"}]},
        team={"id": "t1", "key": "ENG"},
        sortOrder=3.5,
        updatedAt=TUESDAY,
    )
    assert resource.hashes(short) == resource.hashes(long)
    assert resource.hashes(short)[0] != resource.hashes(short | {"assignee": {"id": "u2"}})[0]
    moved = resource.hashes(short | {"team": {"id": "t2"}})
    assert moved[0] == resource.hashes(short)[0] and moved[1] != resource.hashes(short)[1]


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("issues.jsonl", "issues"),
        ("issues-2.json", "issues"),
        ("2026/issue_relations_01.jsonl.gz", "relations"),
        ("IssueHistory/1.json", "history"),
        ("labels/more/1.json", "labels"),
        ("answers.json", None),
    ],
)
def test_files_are_named_after_what_they_hold(name, table):
    assert table_of_file(name) == table


def schema_types(text: str) -> dict[str, dict[str, str]]:
    """The fields of each object type of a GraphQL schema with their types, arguments left out."""
    text = re.sub(r'""".*?"""', "", text, flags=re.DOTALL)
    types = {}
    for name, body in re.findall(r"^type (\w+)[^{]*\{\n(.*?)^\}", text, re.DOTALL | re.MULTILINE):
        without_arguments = re.sub(r"\([^()]*\)", "", body)
        types[name] = dict(re.findall(r"^  (\w+): ([\w\[\]!]+)", without_arguments, re.MULTILINE))
    return types


@pytest.fixture
def schema(real_data):
    return schema_types((real_data / "linear" / "schema.graphql").read_text())


def test_every_field_that_is_read_is_in_linears_schema(schema):
    tables = {table: name for name, table in TYPES.items()}
    read = {tables[table]: fields for table, fields in FIELDS.items()} | INNER_FIELDS
    for name in {*read} & {tables[table] for table in FIELDS} & {*INNER_FIELDS}:
        read[name] = FIELDS[TYPES[name]] | INNER_FIELDS[name]
    wrong = {
        f"{name}.{field}": (declared, schema[name].get(field))
        for name, fields in read.items()
        for field, declared in fields.items()
        if schema[name].get(field) != declared
    }
    assert wrong == {}
    assert {*tables} == {*TABLES} == {*FIELDS} == {*WHOLE}
    for table, fields in WHOLE.items():
        assert {*fields} <= {*schema[tables[table]]}


def test_every_connection_that_is_read_is_in_linears_schema(schema):
    tables = {table: name for name, table in TYPES.items()}
    lists = [
        (tables[table], name, nested)
        for table, connections in CONNECTIONS.items()
        for name, nested in connections.items()
    ]
    lists += [
        (tables[table], name, nested)
        for table, members in MEMBERSHIPS.items()
        for name, (nested, _) in members.items()
    ]
    for owner, name, nested in lists:
        listed = tables[nested.table]
        assert schema[owner][name] == f"{listed}Connection!", f"{owner}.{name}"
        if nested.owner:
            assert schema[listed][nested.owner].removesuffix("!") == owner, f"{owner}.{name}"


def test_names_of_query_fields_mean_what_linears_schema_says(schema):
    tables = {table: name for name, table in TYPES.items()}
    wrong = {
        name: schema["Query"][name]
        for name, table in NAMES.items()
        if name in schema["Query"]
        and not re.fullmatch(
            rf"{tables[table]}(SearchPayload|Connection)?!?", schema["Query"][name]
        )
    }
    assert wrong == {}


def test_what_has_a_bin_linears_schema_tells(schema):
    tables = {table: name for name, table in TYPES.items()}
    assert {table for table in tables if "trashed" in schema[tables[table]]} == {
        *HAVE_A_BIN,
        "history",
    }


def test_volatile_fields_and_metadata_are_in_linears_schema(schema):
    for name, table in TYPES.items():
        resource = TABLES[table]
        fields = {path.split(".")[0] for path in (*resource.volatile, *resource.metadata)}
        odd = fields - {*schema[name]} - {"__typename", *ARCHIVED}
        assert not odd, f"{name}: {odd}"
