"""The dbt project as a whole: it builds from nothing, goes on from what is stored, is tested."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from loreline.lake import duck
from loreline.lake.commits import Writer, append, locked
from loreline.lake.raw import RAW_SCHEMA
from loreline.postgres import connect
from loreline.settings import PROJECT_ROOT, Settings
from tests.end_to_end.forest import assistant, chat, event, system, user
from tests.parsed import carry_parsed, copied_project
from tests.steps import Step

WRITER = Writer("test", "test", "test")
STARTED = datetime(2026, 10, 1)


@dataclass(frozen=True)
class Project:
    """The dbt project over a test's own stores.

    Attributes:
        settings: the stores.
        folder: the project, which a test may have changed a copy of.
        target: where dbt writes what it compiled.
    """

    settings: Settings
    folder: Path
    target: Path

    def dbt(self, *arguments: str, fails: bool = False) -> str:
        """Run dbt in a process of its own, and give what it printed."""
        places = ["--project-dir", self.folder, "--profiles-dir", self.folder]
        outputs = ["--target-path", self.target, "--log-path", self.target, "--no-use-colors"]
        done = Step(
            "dbt",
            os.environ | self.settings.environment(),
            arguments=[*arguments, *map(str, [*places, *outputs])],
        ).result()
        assert (done.exit_code != 0) == fails, done.output
        return done.output

    def artifact(self, name: str) -> dict[str, Any]:
        """A JSON file that dbt wrote."""
        return json.loads((self.target / name).read_text())

    def failures(self) -> set[str]:
        """The nodes of the last run that did not succeed, by the name before their hash."""
        results = self.artifact("run_results.json")["results"]
        return {
            result["unique_id"].split(".")[2]
            for result in results
            if result["status"] not in ("success", "pass", "skipped", "no-op")
        }

    def table(self, name: str) -> str:
        """A lake table as the catalog knows it."""
        return self.settings.prefix + name

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask the lake; `{lake}` and `{pg}` stand before schemas."""
        with duck.connect(self.settings) as connection:
            return connection.execute(self.with_names(statement)).fetchall()

    def change(self, *statements: str) -> None:
        """Write to the lake behind the project's back."""
        with duck.connect(self.settings, read_only=False) as connection:
            for statement in statements:
                connection.execute(self.with_names(statement))

    def with_names(self, statement: str) -> str:
        """A statement with the full names of schemas."""
        prefix = self.settings.prefix
        return statement.replace("{lake}", f"lake.{prefix}").replace("{pg}", f"pg.{prefix}")

    def land(self, table: str, observed_at: datetime, **payloads: dict[str, Any]) -> None:
        """Land one version of each object; `__` and `_` in a name stand for `:` and `.`."""
        rows = [
            {
                "external_id": external_id.replace("__", ":").replace("_", "."),
                "payload": json.dumps(payload),
                "observed_at": observed_at,
                "source_updated_at": observed_at,
                "landed_at": observed_at,
                "is_deleted": isinstance(payload, Deleted),
                "landed_by": "file",
                "_dlt_id": f"{table}/{external_id}/{observed_at:%d%H%M}",
            }
            for external_id, payload in payloads.items()
        ]
        landed = pa.Table.from_pylist(rows, schema=RAW_SCHEMA)
        append(self.settings, self.table(f"raw_{table}"), landed, writer=WRITER)


@pytest.fixture
def project(stack: Settings, settings: Settings, tmp_path: Path) -> Project:
    """The project of this checkout."""
    carry_parsed(stack, settings, PROJECT_ROOT, tmp_path / "target")
    return Project(settings, PROJECT_ROOT, tmp_path / "target")


@pytest.fixture
def changed_project(stack: Settings, settings: Settings, tmp_path: Path) -> Project:
    """A copy of the project, to be changed."""
    copy = copied_project(tmp_path / "project")
    carry_parsed(stack, settings, copy, tmp_path / "target")
    return Project(settings, copy, tmp_path / "target")


class Deleted(dict[str, Any]):
    """The last payload of an object that is gone."""


def page(text: str) -> dict[str, Any]:
    """A Notion page of one paragraph, as landed."""
    paragraph = {"rich_text": [{"type": "text", "plain_text": text}]}
    return {
        "page": {"object": "page", "properties": {}},
        "blocks": [{"type": "paragraph", "paragraph": paragraph}],
    }


def comment(page_id: str, text: str) -> dict[str, Any]:
    """A Notion comment, as landed."""
    rich_text = [{"type": "text", "plain_text": text}]
    return {"parent": {"type": "page_id", "page_id": page_id}, "rich_text": rich_text}


def message(text: str, **others: str) -> dict[str, Any]:
    """A Slack message, as landed."""
    return {"text": text, "user": "U1", **others}


class TestAnEmptyStack:
    def test_builds_and_documents_itself(self, project: Project) -> None:
        project.dbt("compile")
        for selection in ([], ["--select", "tag:datasets"]):
            built = project.dbt("build", *selection)
            assert " ERROR=0 " in built
            assert " WARN=0 " in built
        # By itself it leaves out what no build makes unless it is named.
        project.dbt("docs", "generate", "--select", "*", "source:*")
        documented = project.artifact("manifest.json")
        nodes = documented["nodes"] | documented["sources"]
        catalog = project.artifact("catalog.json")
        found = catalog["nodes"] | catalog["sources"]
        tables = [n for n in nodes if n.split(".")[0] in ("model", "seed", "source")]
        assert sorted(found) == sorted(tables)
        for name in tables:
            declared = {
                column["name"]: column["data_type"] for column in nodes[name]["columns"].values()
            }
            there = {
                column["name"]: column["type"].lower() for column in found[name]["columns"].values()
            }
            if name.startswith("source."):
                assert set(declared) == set(there), name
            else:
                assert declared == there, name


class TestContracts:
    def test_a_model_of_another_shape_is_refused_and_its_table_stays(
        self, changed_project: Project
    ) -> None:
        changed_project.dbt("run", "--select", "+people")
        model = changed_project.folder / "models" / "knowledge" / "people.sql"
        model.write_text(model.read_text().replace("    handle,\n    is_deleted\n", "    handle\n"))
        said = changed_project.dbt("run", "--select", "people", fails=True)
        assert "the contract of" in said
        assert "is_deleted: declared BOOLEAN, is missing" in said
        assert changed_project.query("select is_deleted from {lake}knowledge.people") == []


class TestGoingOn:
    """What incremental models make of rows that arrive later."""

    @pytest.mark.soak
    def test_documents_and_conversations(self, project: Project) -> None:
        models = ("+documents_current", "+document_links")
        build = ("build", "--select", *models, "--exclude", "test_type:unit")
        address = "https://acme.slack.com/archives/C1/p1790848860000001"
        kept = f"kept, see <{address}>"
        project.land("slack.channels", STARTED, C1={"name": "till", "kind": "public"})
        project.land("slack.users", STARTED, U1={"name": "ana"})
        project.land("notion.pages", STARTED, p1=page("A"), p2=page(kept), p3=page("C"))
        project.land(
            "slack.messages",
            STARTED,
            C1__1790848800_000001=message("Till is down"),
            C1__1790848860_000001=message("Looking"),
        )
        project.dbt(*build)
        assert leads_to(project, address) == "slack:C1:1790848800.000001"

        later = STARTED + timedelta(days=1)
        reply = message("Restarted", thread_ts="1790848860.000001")
        project.land("notion.pages", later, p1=page("B"))
        project.land("notion.comments", later, c1=comment("p3", "Why?"))
        project.land("slack.messages", later, C1__1790935200_000001=reply)
        project.dbt(*build)
        # The link is older than the thread.
        assert leads_to(project, address) == "slack:C1:1790848860.000001"

        later += timedelta(days=1)
        project.land("notion.pages", later, p1=page("A"))
        project.land("notion.comments", later, c1=Deleted(comment("p3", "Why?")))
        project.land(
            "slack.messages", later, C1__1790848800_000001=Deleted(message("Till is down"))
        )
        project.dbt(*build)

        versions = project.query(
            "select doc_id, version_number, body, is_deleted from {lake}knowledge.documents"
            " order by doc_id, version_number"
        )
        assert versions == [
            ("notion:p1", 1, "A", False),
            ("notion:p1", 2, "B", False),
            ("notion:p1", 3, "A", False),
            ("notion:p2", 1, kept, False),
            ("notion:p3", 1, "C", False),
            ("notion:p3", 2, "C\n\n# Comments\n\n**somebody:**\n\nWhy?", False),
            ("notion:p3", 3, "C", False),
            ("slack:C1:1790848800.000001", 1, "**ana:** Till is down\n\n**ana:** Looking", False),
            ("slack:C1:1790848800.000001", 2, "**ana:** Till is down", False),
            ("slack:C1:1790848800.000001", 3, "", True),
            ("slack:C1:1790848860.000001", 1, "**ana:** Looking\n\n**ana:** Restarted", False),
        ]
        current = project.query(
            "select external_id, version_number from {lake}knowledge.documents_current order by all"
        )
        assert [number for _, number in current] == [3, 1, 3, 1, 3]

        commits = "select count(*) from {pg}operations.commits"
        before = project.query(commits)
        project.dbt(*build)
        assert project.query(commits) == before

        # A channel that is gone takes with it what was said there.
        later += timedelta(days=1)
        lost = Deleted({"name": "till", "kind": "public"})
        project.land("slack.channels", later, C1=lost)
        project.dbt(*build)
        left = (
            "select doc_id from {lake}knowledge.documents_current where not is_deleted order by 1"
        )
        assert project.query(left) == [("notion:p1",), ("notion:p2",), ("notion:p3",)]

    @pytest.mark.soak
    def test_issues_and_what_names_them(self, project: Project) -> None:
        build = ("build", "--select", "+document_links", "--exclude", "test_type:unit")
        team = {"key": "ENG", "private": False}
        i1 = {"identifier": "ENG-1", "title": "Till", "team": {"id": "t1"}, "url": "u"}
        i1 |= {"labels": {"nodes": [{"id": "l1"}]}, "assignee": {"id": "u1"}}
        i2 = {"identifier": "ENG-2", "title": "Scales", "team": {"id": "t1"}}
        blocks = {"issue": {"id": "i1"}, "relatedIssue": {"id": "i2"}, "type": "blocks"}
        address = "<https://linear.app/acme/issue/OPS-9/till>"
        project.land("notion.pages", STARTED, p1=page(f"See ENG-1, ENG-2, UTF-8 and {address}"))
        project.land("linear.teams", STARTED, t1=team)
        project.land("linear.users", STARTED, u1={"name": "Ana"}, u2={"name": "Bo"})
        project.land("linear.labels", STARTED, l1={"name": "Bug"})
        project.land("linear.issues", STARTED, i1=i1)
        project.land("linear.comments", STARTED, c1={"issue": {"id": "i1"}, "body": "Looking"})
        project.dbt(*build)
        before = "- **Issue:** ENG-1\n- **Assignee:** Ana\n- **Labels:** Bug"
        comments = "\n\n# Comments\n\n**somebody:**\n\nLooking"
        assert issues(project) == {("i1", 1): before + comments}
        assert links(project) == {"ENG-1": "linear:i1", "ENG-2": None, "UTF-8": None, "OPS-9": None}

        # ENG-2 comes, ENG-1 blocks it, and the label and the user are called something else.
        later = STARTED + timedelta(days=1)
        project.land("linear.issues", later, i2=i2)
        project.land("linear.relations", later, r1=blocks)
        project.land("linear.labels", later, l1={"name": "Defect"})
        project.land("linear.users", later, u1={"name": "Ana F"}, u2={"name": "Bodil"})
        project.dbt(*build)
        after = "- **Issue:** ENG-1\n- **Assignee:** Ana F\n- **Labels:** Defect"
        blocked = "- **Issue:** ENG-2\n- **Blocked by:** "
        assert issues(project) == {
            ("i1", 1): before + comments,
            ("i1", 2): f"{after}\n- **Blocks:** ENG-2{comments}",
            ("i2", 1): f"{blocked}ENG-1",
        }
        assert links(project) == {
            "ENG-1": "linear:i1",
            "ENG-2": "linear:i2",
            "UTF-8": None,
            "OPS-9": None,
        }
        assert project.query(
            "select from_doc.doc_id, from_doc.version_number, to_doc_id"
            " from {lake}knowledge.document_links inner join {lake}knowledge.documents as from_doc"
            " on from_document_version_id = document_version_id where kind = 'relation'"
            " order by all"
        ) == [("linear:i1", 2, "linear:i2"), ("linear:i2", 1, "linear:i1")]

        # It moves, is called by both names, and its comment is deleted; then it goes to the bin.
        later += timedelta(days=1)
        moved = i1 | {"identifier": "OPS-9", "previousIdentifiers": ["ENG-1"]}
        project.land("linear.issues", later, i1=moved)
        project.land(
            "linear.comments", later, c1=Deleted({"issue": {"id": "i1"}, "body": "Looking"})
        )
        project.dbt(*build)
        assert links(project) == {
            "ENG-1": "linear:i1",
            "ENG-2": "linear:i2",
            "UTF-8": None,
            "OPS-9": "linear:i1",
        }
        now = issues(project)
        assert now[("i1", 3)] == after.replace("ENG-1", "OPS-9") + "\n- **Blocks:** ENG-2"
        assert now[("i2", 2)] == f"{blocked}OPS-9"

        later += timedelta(days=1)
        project.land("linear.issues", later, i1=Deleted(moved))
        project.dbt(*build)
        now = issues(project)
        assert (now[("i1", 4)], now[("i2", 3)]) == ("", "- **Issue:** ENG-2")

        commits = "select count(*) from {pg}operations.commits"
        before_the_last = project.query(commits)
        project.dbt(*build)
        assert project.query(commits) == before_the_last

    def test_the_manifest(self, project: Project) -> None:
        state = ManifestInputs(project)
        state.write(version="v1", chunks={"k1": "h1"}, embedded=["h1"])
        assert state.manifest() == {("c1", "k1"): "public"}

        state.write(version="v2", chunks={"k2": "h1", "k3": "h3"}, readers=["slack:U1"])
        assert state.manifest() == {("c1", "k1"): "slack:U1"}, "not ready: old text, new readers"

        state.write(version="v2", readers=["slack:U1"], embedded=["h3"])
        assert state.manifest() == {("c1", "k2"): "slack:U1", ("c1", "k3"): "slack:U1"}

        state.write(version="v2", readers=["public"], collections=["c1", "c2"])
        assert state.manifest() == {
            (collection, chunk): "public" for collection in ("c1", "c2") for chunk in ("k2", "k3")
        }

        state.write(version="v3", is_deleted=True, collections=["c2"])
        assert state.manifest() == {}
        assert state.forgotten() == {("c1", "k1"), *state.pairs("c1"), *state.pairs("c2")}


def issues(project: Project) -> dict[tuple[str, int], str]:
    """What the versions of Linear's documents say."""
    rows = project.query(
        "select external_id, version_number, body from {lake}knowledge.documents"
        " where source = 'linear'"
    )
    return {(external_id, number): body for external_id, number, body in rows}


def leads_to(project: Project, address: str) -> str | None:
    """The document that the only link with this address leads to."""
    rows = project.query(
        f"select to_doc_id from {{lake}}knowledge.document_links where to_url = '{address}'"
    )
    ((doc_id,),) = rows
    return doc_id


def links(project: Project) -> dict[str, str | None]:
    """Where the links of the only page lead, by the issue that they name."""
    rows = project.query(
        "select to_identifier, to_doc_id from {lake}knowledge.document_links"
        " inner join {lake}knowledge.documents on from_document_version_id = document_version_id"
        " where source = 'notion' and to_identifier is not null"
    )
    return dict(rows)


@dataclass
class ManifestInputs:
    """Tables that `vector_manifest` reads, written as a test wants them."""

    project: Project
    batches: int = 0

    def write(
        self,
        *,
        version: str,
        chunks: dict[str, str] | None = None,
        embedded: list[str] | None = None,
        readers: list[str] | None = None,
        collections: list[str] | None = None,
        is_deleted: bool = False,
    ) -> None:
        """Add chunks (id → text hash) and vectors; say what the document and collections are."""
        self._replace(
            "serving.served_collections",
            [
                {
                    "vector_collection": c,
                    "chunking_config_hash": "cc",
                    "embedding_config_hash": "ec",
                    "storage": "vector",
                }
                for c in collections or ["c1"]
            ],
        )
        self._add(
            "knowledge.chunks",
            [
                {
                    "chunk_id": chunk_id,
                    "doc_id": "d1",
                    "document_version_id": version,
                    "config_hash": "cc",
                    "text_hash": text_hash,
                    "shown_text_hash": text_hash,
                }
                for chunk_id, text_hash in (chunks or {}).items()
            ],
        )
        self._add(
            "embedding.text_embeddings",
            [
                {"text_hash": t, "config_hash": "ec", "vector_sha256": f"sha of {t}"}
                for t in embedded or []
            ],
        )
        self._replace(
            "knowledge.documents_current",
            [
                {
                    "doc_id": "d1",
                    "document_version_id": version,
                    "is_deleted": is_deleted,
                    "is_blank": is_deleted,
                    "allowed_principals": readers or ["public"],
                }
            ],
        )
        self.project.dbt("run", "--select", "vector_manifest")

    def manifest(self) -> dict[tuple[str, str], str]:
        """Who may read each live (collection, chunk)."""
        rows = self.project.query(
            "select vector_collection, chunk_id, array_to_string(allowed_principals, ',')"
            " from {lake}serving.vector_manifest where not is_deleted"
        )
        return {(collection, chunk): readers for collection, chunk, readers in rows}

    def forgotten(self) -> set[tuple[str, str]]:
        """(collection, chunk) that are marked as deleted."""
        rows = self.project.query(
            "select vector_collection, chunk_id from {lake}serving.vector_manifest where is_deleted"
        )
        return set(rows)

    def pairs(self, collection: str) -> Iterator[tuple[str, str]]:
        """The chunks of the second version in a collection."""
        return ((collection, chunk) for chunk in ("k2", "k3"))

    def _add(self, table: str, rows: list[dict[str, Any]]) -> None:
        columns = {
            "knowledge.chunks": [
                "chunk_id",
                "doc_id",
                "document_version_id",
                "config_hash",
                "text_hash",
                "shown_text_hash",
            ],
            "embedding.text_embeddings": [
                "text_hash",
                "config_hash",
                "vector_sha256",
                "halfvec_sha256",
            ],
        }[table]
        schema = pa.schema([(name, pa.string()) for name in columns])
        # An empty table is a table too: the model reads it.
        with locked(self.project.settings, self.project.table(table)) as held:
            if rows or not self.batches:
                held.append(pa.Table.from_pylist(rows, schema=schema), WRITER)

    def _replace(self, table: str, rows: list[dict[str, Any]]) -> None:
        with locked(self.project.settings, self.project.table(table)) as held:
            held.overwrite(pa.Table.from_pylist(rows), WRITER)


class TestDataTests:
    """Every data test passes after a build, and fails when its rule is broken."""

    def test_each_fails_when_its_rule_is_broken(self, project: Project) -> None:
        build_a_little(project)
        project.change(*BREACHES)
        project.dbt("test", "--exclude", "test_type:unit", fails=True)
        nodes = project.artifact("manifest.json")["nodes"]
        every = {n.split(".")[2] for n in nodes if n.startswith("test.")}
        assert project.failures() == every

    @pytest.mark.soak
    def test_drift_of_the_vector_store_is_counted(self, project: Project) -> None:
        build_a_little(project)
        with connect(project.settings, autocommit=True) as connection:
            schema = f"{project.settings.prefix}serving"
            (table,) = connection.execute(
                f"select {schema}.chunk_table(table_number) from {schema}.collections"
                " where is_default"
            ).fetchone()
            one, two = connection.execute(
                f"select chunk_id from {table} order by chunk_id limit 2"
            ).fetchall()
            connection.execute(f"update {table} set text = text || '!' where chunk_id = %s", one)
            connection.execute(f"update {table} set chunk_id = 'extra' where chunk_id = %s", two)
        store = "assert_the_vector_store_holds_exactly_the_manifest"
        said = project.dbt("test", "--select", store, fails=True)
        assert "Got 3 results" in said, "one different, one missing, one extra"
        project.dbt("build", "--select", store, fails=True)


def build_a_little(project: Project) -> None:
    """Build pages, a deleted one, a public and a private conversation, and an issue."""
    channels = {
        "C1": {"name": "till", "kind": "public"},
        "C2": {"name": "board", "kind": "private", "members": ["U1"]},
    }
    project.land("slack.channels", STARTED, **channels)
    project.land("slack.users", STARTED, U1={"name": "ana"})
    said = message("Till is down, see <https://example.com>")
    project.land("slack.messages", STARTED, C1__1790848800_000001=said, C2__1790848800_000001=said)
    project.land("notion.users", STARTED, u1={"name": "Ana", "type": "person"})
    project.land("notion.pages", STARTED, p1=page("A"), p2=page("B"), p3=page("C"))
    project.land("notion.pages", STARTED + timedelta(days=1), p3=Deleted(page("C")))
    project.land("notion.comments", STARTED, c1=comment("p2", "Why?"))
    project.land("google_docs.documents", STARTED, d1={"documentId": "d1", "title": "Plan"})
    shared = [{"type": "user", "emailAddress": "ana@example.com", "displayName": "Ana"}]
    project.land("google_docs.files", STARTED, d1={"name": "Plan", "permissions": shared})
    for table, payload in LINEAR.items():
        project.land(f"linear.{table}", STARTED, o1=payload)
    project.land("log_files.lines", STARTED, f__0=LOG_BLOCK)
    project.land("incident_reports.reports", STARTED, i1=INCIDENT)
    project.land("github.issues", STARTED, i1=GITHUB_ISSUE)
    project.land("gateway.events", STARTED, **GATEWAY_EVENTS)
    project.land("review.labels", STARTED, l1=LABEL)
    project.land("evaluation.items", STARTED, s__1=ITEM)
    project.land("judge.judgements", STARTED, j1=JUDGEMENT)
    built = project.dbt("build", "--exclude", "test_type:unit")
    assert " ERROR=0 " in built


LINEAR = {
    "teams": {"key": "HR", "private": True, "members": {"nodes": [{"id": "o1"}]}},
    "users": {"name": "Ana"},
    "labels": {"name": "Bug"},
    "projects": {"name": "Till"},
    "cycles": {"number": 7},
    "issues": {"identifier": "HR-1", "title": "Till is down", "team": {"id": "o1"}},
    "comments": {"issue": {"id": "o1"}, "body": "Looking"},
    "relations": {"issue": {"id": "o1"}, "relatedIssue": {"id": "o2"}, "type": "blocks"},
    "attachments": {"issue": {"id": "o1"}, "title": "Log", "url": "https://example.com"},
}
LOG_BLOCK = {
    "file": "till.log",
    "start": 0,
    "end": 60,
    "continues": False,
    "text": "no time\n2026-10-01T11:42:03Z WARN  till [r1] attempt 2 failed\n",
}
INCIDENT = {
    "file": "i1.md",
    "fields": {"started_at": "2026-10-01T11:40:00Z"},
    "body": "## Timeline\n\n- 11:42 UTC – seen",
}
GITHUB_ISSUE = {
    "repository": {"full_name": "acme/till", "private": False},
    "issue": {"id": 1, "number": 1, "title": "Till is down"},
    "comments": [{"user": {"login": "ana"}, "body": "Looking"}],
}
TASK = {"index": 0, "sub_prompt": "look"}
LABEL = {
    "kind": "trajectory",
    "queue_item_id": "q1",
    "leaf_node_ids": ["leaf"],
    "reviewer": "ann",
    "verdict": {"score": 3},
}
JUDGEMENT = {
    "kind": "trajectory",
    "subject_id": "leaf",
    "leaf_node_ids": ["leaf"],
    "judge": "categories",
    "labeller_version": "categories 0123abcd",
    "verdicts": [{"categories": ["overlong"], "confidences": [0.5], "reasons": ["long"]}],
}
ASKED_TWICE = [user("which is better?")]
STEP = {"flow_id": "f", "node_id": "n", "parent_node_ids": ["m"], "kind": "worker"}
GATEWAY_EVENTS = {
    "k1": chat(
        "t1", [system("Help."), user("a")], assistant("b"), request={"tools": [{"name": "look"}]}
    ),
    "k2": event("llm.tool.completed", 1, turn_id="t1", tool_call_id="c"),
    "k3": event("taskification.completed", 1, turn_id="t1", tasks=[TASK]),
    "k4": event("flow.node.started", 1, **STEP),
    "k5": chat("t5", ASKED_TWICE, assistant("the first")),
    "k6": chat("t6", ASKED_TWICE, assistant("the second"), at=1),
    "k7": event("feedback.ranked", 2, tenant="t", turn_id="t5", rank=0),
    "k8": event("feedback.ranked", 2, tenant="t", turn_id="t6", rank=1),
}


def again(table: str, replaced: str = "", condition: str = "true") -> str:
    """A statement that adds one of a table's rows a second time, with some values replaced."""
    changes = f" replace ({replaced})" if replaced else ""
    return (
        f"insert into {{lake}}{table} by name"
        f" (select *{changes} from {{lake}}{table} where {condition} limit 1)"
    )


A_PAGE = "doc_id = 'notion:p1'"
ITEM = {"evaluation_set": "s", "item_id": "1", "texts": ["Where does the till stand now?"]}
BREACHES = [
    again("raw_notion.pages", "'lost' as _dlt_id"),
    again("raw_notion.users", "'lost' as _dlt_id"),
    again("raw_notion.comments", "'lost' as _dlt_id"),
    again("raw_google_docs.documents", "'lost' as _dlt_id"),
    again("raw_google_docs.files", "'lost' as _dlt_id"),
    again("raw_slack.channels", "'lost' as _dlt_id"),
    again("raw_slack.messages", "'lost' as _dlt_id"),
    again("raw_slack.users", "'lost' as _dlt_id"),
    *(again(f"raw_linear.{table}", "'lost' as _dlt_id") for table in LINEAR),
    again("raw_log_files.lines", "'lost' as _dlt_id"),
    again("raw_incident_reports.reports", "'lost' as _dlt_id"),
    again("raw_github.issues", "'lost' as _dlt_id"),
    again("raw_gateway.events", "'lost' as _dlt_id"),
    again("raw_review.labels", "'lost' as _dlt_id"),
    again("raw_evaluation.items", "'lost' as _dlt_id"),
    again("raw_judge.judgements", "'lost' as _dlt_id"),
    again("staging.stg_notion__pages", "null as page_id"),
    again("staging.stg_notion__users"),
    again("staging.stg_notion__comments"),
    again("staging.stg_google_docs__documents"),
    again("staging.stg_google_docs__files"),
    again("staging.stg_google_docs__accounts"),
    again("staging.stg_slack__channels", "'odd' as kind"),
    again("staging.stg_slack__messages", "null as anchor_day"),
    again("staging.stg_slack__users"),
    *(again(f"staging.stg_linear__{table}") for table in LINEAR),
    again("staging.stg_log_files__line_counts", "null as service, 'odd' as config_hash"),
    again("staging.stg_incident_reports__reports", "null as incident_id"),
    again("staging.stg_github__issues", "null as external_id"),
    again("staging.stg_gateway__events", "null as event_key"),
    again("staging.stg_gateway__chat_requests", "'odd' as problem"),
    again("staging.stg_gateway__tool_calls"),
    again("staging.stg_gateway__tasks"),
    again("staging.stg_gateway__flow_steps"),
    again("staging.stg_gateway__feedback"),
    again("staging.stg_review__labels"),
    again("staging.stg_evaluation__items"),
    again("staging.stg_judge__judgements"),
    again("evaluation.human_eval_labels", "'odd' as kind, 'odd' as preferred"),
    again("evaluation.model_eval_labels", "'odd' as kind, 'odd' as preferred"),
    again("evaluation.trajectory_units", "'odd' as outcome"),
    again("evaluation.trajectory_features"),
    again(
        "evaluation.cluster_category_labels",
        "'odd' as subject_kind, 'odd' as category, 'odd' as labeller",
    ),
    again("evaluation.candidate_preference_pairs", "'odd' as reason"),
    again("evaluation.preference_labels", "'odd' as labeller, 'odd' as preferred"),
    again("evaluation.preference_consensus", "'odd' as preferred"),
    again("evaluation.human_sample_queue", "'odd' as kind, 'odd' as status"),
    again("evaluation.label_agreement"),
    again("conversations.messages"),
    again("conversations.context_snapshots"),
    again("conversations.request_attributes", "'odd' as kind"),
    again("conversations.llm_chat_turns"),
    again("conversations.conversation_links", "'odd' as match"),
    again(
        "conversations.conversation_branch_nodes",
        "'odd' as match, 'odd' as branch_kind, 'nobody' as parent_node_id, false as is_complete",
    ),
    again("conversations.conversation_sessions"),
    again("conversations.execution_run_records"),
    again("conversations.response_branch_records"),
    again("conversations.response_feedback"),
    again("conversations.taskification_results", "'odd' as told_by"),
    again("conversations.flow_nodes"),
    again("conversations.flow_edges", "'odd' as kind"),
    again("conversations.lineage_watermark"),
    again("seeds.seed_themes"),
    again("seeds.taskify_rules"),
    again("seeds.model_prices", "null as input_price, null as output_price"),
    again("seeds.chunking_strategies", "'odd' as status, 'odd' as algorithm"),
    again("seeds.embedding_models", "'odd' as status, 'odd' as storage"),
    again("seeds.chunking_strategies", "'odd' as status, 'odd' as algorithm, 'odd' as context"),
    again("seeds.embedding_models", "'odd' as status"),
    again("seeds.slack_message_rules"),
    again("seeds.log_formats", "'odd' as kind"),
    again("seeds.log_formats"),
    again("seeds.log_levels", "'odd' as level"),
    again("seeds.log_masks"),
    again("seeds.source_freshness"),
    again("seeds.preference_settings"),
    again("seeds.preference_labellers"),
    again("seeds.label_rules"),
    again("seeds.label_rules", "'odd' as category, 'odd' as measure"),
    again("seeds.review_queue", "'odd' as kind"),
    again("seeds.review_queue", "'odd' as reason"),
    again("seeds.judges", "'odd' as kind, 'odd' as which"),
    again("seeds.label_categories", "'odd' as polarity"),
    again("knowledge.google_docs_documents"),
    again("knowledge.slack_conversations"),
    again("knowledge.slack_message_places"),
    again("knowledge.linear_issues"),
    again("knowledge.linear_identifiers"),
    again("knowledge.notion_comments"),
    again("knowledge.log_windows"),
    again("knowledge.log_unread_lines"),
    again("knowledge.log_templates"),
    "insert into {lake}knowledge.log_bursts (service, window_start, level, template_id, kind)"
    " values ('s', now(), 'l', 't', 'odd'), ('s', now(), 'l', 't', 'odd')",
    again("knowledge.log_documents"),
    again("knowledge.incidents"),
    again("knowledge.incident_timeline"),
    again("knowledge.people"),
    again("knowledge.chunking_configurations"),
    again("embedding.embedding_configurations"),
    again("serving.served_collections"),
    again("serving.vector_collections"),
    again("serving.vector_collections", "null as vector_collection"),
    again("serving.lineage_copies"),
    again("serving.review_items"),
    again("serving.lineage_copies", "null as table_name"),
    # A version that repeats the one before, under a number that leaves a gap.
    again("knowledge.documents", "'v9' as document_version_id, 9 as version_number", A_PAGE),
    again("knowledge.documents", "'fax' as source, 'secret' as visibility", A_PAGE),
    again("knowledge.documents_current", "'v9' as document_version_id", A_PAGE),
    again("knowledge.documents_current", "'v0' as document_version_id, 'd0' as doc_id"),
    again("knowledge.document_links", "'odd' as kind, 'v0' as from_document_version_id"),
    again("knowledge.document_links"),
    # Not in the body, too long, and never embedded.
    again("knowledge.chunks", "'?' as text, 'h9' as text_hash, 9999 as token_count"),
    again("knowledge.chunks", "'v0' as document_version_id"),
    # Of a current version, embedded, and not in the manifest.
    again("knowledge.chunks", "'k8' as chunk_id", A_PAGE),
    again("embedding.text_embeddings", "[]::float[] as embedding"),
    "insert into {lake}embedding.sentence_embeddings (text_hash, config_hash)"
    " values ('h', 'e'), ('h', 'e')",
    again("seeds.trajectory_text_settings"),
    again("seeds.clustering_configurations", "'odd' as status, 'odd' as embedding_model"),
    again("seeds.stop_words"),
    again("evaluation.trajectory_texts"),
    again("evaluation.trajectory_texts", "'h9' as text_hash"),
    again("evaluation.trajectory_embeddings"),
    again("evaluation.clustering_variants"),
    again("evaluation.clustering_runs"),
    # Of one trajectory there are no clusters, whatever is said of one.
    again("evaluation.trajectory_clusters", "'odd' as assigned_by, 'c0' as cluster_id"),
    "insert into {lake}evaluation.cluster_events (event_id, event)"
    " values ('e', 'odd'), ('e', 'odd')",
    "insert into {lake}evaluation.cluster_names (cluster_id) values ('c'), ('c')",
    again("seeds.selection_weights", "'odd' as given_by"),
    again("seeds.selection_weights"),
    again("seeds.selection_rules"),
    # Holds of nothing.
    again(
        "seeds.selection_rules",
        "'odd' as negative_type, 'odd' as given_by, 0 as at_least, 0 as at_most",
    ),
    again("seeds.selection_sizes"),
    again("seeds.dataset_settings", "'odd' as setting"),
    again("seeds.dataset_settings"),
    again("seeds.dataset_splits"),
    again("seeds.redaction_rules"),
    again("datasets.trajectory_scores"),
    "insert into {lake}datasets.positive_topk_trajectories (trajectory_id) values ('t'), ('t')",
    "insert into {lake}datasets.negative_bottomk_trajectories (trajectory_id) values ('t'), ('t')",
    "insert into {lake}datasets.dataset_examples"
    " (example_id, dataset, partition, tree_groups, prompt_hashes)"
    " values ('e', 'odd', 'odd', ['t'], ['h']), ('f', 'sft', null, ['t'], ['h']),"
    " ('e', 'sft', null, ['t'], ['h'])",
    again("datasets.training_text_variants"),
    "insert into {lake}datasets.training_messages (message_hash, part, config_hash)"
    " values ('h', 0, 'c'), ('h', 0, 'c')",
    "insert into {lake}datasets.contaminated_messages"
    " (message_hash, evaluation_set, item_id, text_index)"
    " values ('h', 's', 'i', 1), ('h', 's', 'i', 1)",
    "insert into {lake}datasets.example_states (example_id, problem)"
    " values ('e', 'odd'), ('e', 'odd')",
    "insert into {lake}datasets.example_groups (example_id, split_group, duplicate_kind)"
    " values ('e', 'g', 'odd'), ('e', 'g', 'odd')",
    "insert into {lake}datasets.example_decisions (example_id, split_group, split, exclusion)"
    " values ('e', 'g', 'train', 'odd'), ('e', 'g', 'train', null), ('f', 'g', 'test', null)",
    # A tree in two splits, and a group on both sides.
    "insert into {lake}datasets.sft_messages_dataset (example_id, split)"
    " values ('e', 'train'), ('f', 'test'), ('f', 'test'), ('x', 'train')",
    "insert into {lake}datasets.dpo_preference_dataset (example_id, split)"
    " values ('e', 'train'), ('e', 'train')",
    "insert into {lake}datasets.suppression_dataset (example_id, split)"
    " values ('e', 'train'), ('e', 'train')",
    "insert into {lake}datasets.unlearning_dataset (example_id, split, partition)"
    " values ('e', 'train', 'odd'), ('e', 'train', 'forget'), ('f', 'test', 'retain')",
    # Another version, readers who may no longer read it, no such chunk, not in the store.
    again(
        "serving.vector_manifest",
        "'k0' as chunk_id, 'v9' as document_version_id, ['slack:U9'] as allowed_principals",
        A_PAGE,
    ),
    again("serving.vector_manifest", "'notion:p3' as doc_id"),
    "update {lake}knowledge.documents_current set allowed_principals = ['public']"
    " where external_id like 'C2:%' or source = 'linear'",
]
