"""`loreline build --changed`: what is not up to date is run, with what hangs from it.

All tests share a lakehouse: each brings it up to date, lands a source that no other one does, and
leaves the project as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from loreline.cli.build import manifest, selected
from loreline.lake import compaction
from loreline.lake.catalog import load_catalog
from loreline.lake.maintenance import maintain
from loreline.operations.changed import plan
from loreline.settings import PROJECT_ROOT
from tests.end_to_end.lakehouse import NO_TESTS, Lakehouse
from tests.steps import Build

DAY_ONE = PROJECT_ROOT / "sample_workspace" / "day_one"
# What looks at Postgres.
ALWAYS = {"lineage_copies", "review_items", "served_collections", "vector_collections"}


@pytest.fixture
def built(lakehouse: Lakehouse) -> Lakehouse:
    """A lakehouse with documents in it, all of which is up to date."""
    lakehouse.land("incident_reports", DAY_ONE / "incident_reports")
    lakehouse.build()
    assert not planned(lakehouse)
    return lakehouse


def planned(lakehouse: Lakehouse) -> set[str]:
    """The names of the models and seeds that would be run, without what always is."""
    settings, folder = lakehouse.settings, lakehouse.project
    project = manifest(settings, folder)
    within = selected(settings, folder, project, [*NO_TESTS, "--exclude", "tag:manual+"])
    found = plan(settings, folder, project, within, with_always=False)
    return {project.nodes[name].name for name in found.nodes}


def run_in(build: Build) -> set[str]:
    """The nodes that a build ran, without what dbt runs at its beginning and end."""
    return {name for name in build.messages if not name.startswith("loreline-on-run")}


@contextmanager
def edited(lakehouse: Lakehouse, file: str, old: str, new: str) -> Iterator[None]:
    """Have another text in a file of the project for a while."""
    place = lakehouse.project / file
    text = place.read_text()
    assert old in text
    place.write_text(text.replace(old, new, 1))
    yield
    place.write_text(text)


def test_only_what_reads_something_new_is_run(built: Lakehouse) -> None:
    snapshots = built.snapshots()
    assert run_in(built.build()) == ALWAYS
    # Nor was anything left undone.
    assert len(run_in(built.build("build", *NO_TESTS))) > 100
    assert built.snapshots() == snapshots

    built.land("slack", DAY_ONE / "slack")
    run = run_in(built.build())
    assert {"stg_slack__messages", "documents", "chunks", "vector_manifest"} <= run
    assert not {name for name in run if "linear" in name and name.startswith("stg_")}
    assert "conversation_branch_nodes" not in run
    snapshots = built.snapshots()
    built.build("build", *NO_TESTS)
    assert built.snapshots() == snapshots
    built.check_contents()


@pytest.mark.soak
def test_what_is_new_itself_is_run(built: Lakehouse) -> None:
    with edited(built, "seeds/stop_words.csv", "\n", "\nlorem\n"):
        assert "stop_words" in planned(built) and "documents" not in planned(built)
        built.build()
        assert not planned(built)
    with edited(built, "models/knowledge/people.sql", "", "-- Edited.\n"):
        assert "people" in planned(built) and "documents" not in planned(built)
    # A macro may be used anywhere, and so may a variable.
    with edited(built, "macros/portable/ratio.sql", "{% endmacro %}", "{# #}{% endmacro %}"):
        assert {"people", "documents"} <= planned(built)
    with edited(built, "dbt_project.yml", "slack_gap_minutes: 30", "slack_gap_minutes: 31"):
        assert {"people", "documents"} <= planned(built)


def test_what_failed_or_was_dropped_is_run_again(built: Lakehouse) -> None:
    model = "models/knowledge/documents_current.sql"
    with edited(built, model, "select", "select no_such_column,"):
        with pytest.raises(AssertionError, match="no_such_column"):
            built.build()
        assert "documents_current" in planned(built)
    load_catalog(built.settings).drop_table(f"{built.settings.prefix}knowledge.people")
    assert "people" in planned(built)
    built.build()
    assert not planned(built)


def test_a_compaction_is_nothing_new(built: Lakehouse, monkeypatch) -> None:
    monkeypatch.setattr(compaction, "FEW_FILES", 1)
    assert maintain(built.settings, kinds=["compact"])
    assert not planned(built)


@pytest.mark.soak
def test_what_others_wrote_meanwhile_is_new(built: Lakehouse) -> None:
    built.land("linear", DAY_ONE / "linear")
    # It writes, and does not say that all is up to date.
    built.build("build", "--select", "+documents", *NO_TESTS)
    assert {"stg_linear__issues", "documents", "chunks"} <= planned(built)
    built.build()
    assert not planned(built)


def test_it_keeps_to_what_is_selected(built: Lakehouse) -> None:
    built.land("google_docs", DAY_ONE / "google_docs")
    run = run_in(built.build("--changed", "--select", "+documents", *NO_TESTS))
    assert {"stg_google_docs__documents", "documents"} <= run
    assert not run & {"chunks", "stg_linear__issues", "documents_current"}
    assert {"chunks", "documents_current"} <= planned(built)
    refused = built.command("build", "--changed", "--full-refresh")
    assert (refused.exit_code, refused.errors.count("\n")) == (2, 1)
    assert "--changed does not go with --full-refresh" in refused.errors


def test_tests_are_run_where_what_they_read_is_new(built: Lakehouse) -> None:
    project = str(built.project)
    build = ("build", "--changed", "--project-dir", project, "--profiles-dir", project)
    said = built.command(*build)
    assert said.exit_code == 0, said.output
    assert "assert_versions_count_without_gaps" in said.output
    again = built.command(*build)
    assert "assert_versions_count_without_gaps" not in again.output
    # What looks at Postgres is looked at each time.
    assert "assert_the_vector_store_holds_exactly_the_manifest" in again.output
    assert "Nothing changed" in again.output
