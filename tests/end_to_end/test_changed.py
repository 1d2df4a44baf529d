"""`loreline build --changed`: what is not up to date is run, with what hangs from it."""

from __future__ import annotations

import pytest

from loreline.cli.build import manifest, selected
from loreline.lake.catalog import load_catalog
from loreline.operations.changed import plan
from loreline.settings import PROJECT_ROOT
from tests.end_to_end.lakehouse import NO_TESTS, Lakehouse, replace_in
from tests.steps import Build

DAY_ONE = PROJECT_ROOT / "sample_workspace" / "day_one"
ALWAYS = {
    "lineage_copies",
    "review_items",
    "sentence_embeddings",
    "served_collections",
    "text_embeddings",
    "vector_collections",
}


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


@pytest.fixture
def built(own_lakehouse: Lakehouse) -> Lakehouse:
    """A lakehouse with documents in it, all of which is up to date."""
    own_lakehouse.land("incident_reports", DAY_ONE / "incident_reports")
    own_lakehouse.build()
    assert not planned(own_lakehouse)
    return own_lakehouse


def test_only_what_reads_something_new_is_run(built: Lakehouse) -> None:
    snapshots = built.snapshots()
    assert run_in(built.build()) == ALWAYS
    # Nor was anything left undone.
    whole = built.build("build", *NO_TESTS)
    assert len(whole.messages) > 100
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


def test_what_is_new_itself_is_run(built: Lakehouse) -> None:
    seed = built.project / "seeds" / "stop_words.csv"
    seed.write_text(seed.read_text() + "lorem\n")
    assert "stop_words" in planned(built) and "documents" not in planned(built)
    built.build()
    assert not planned(built)

    model = built.project / "models" / "knowledge" / "people.sql"
    model.write_text("-- Edited.\n" + model.read_text())
    assert "people" in planned(built) and "documents" not in planned(built)
    # A macro may be used anywhere, and so may a variable.
    macro = built.project / "macros" / "portable" / "ratio.sql"
    macro.write_text(macro.read_text().replace("{% endmacro %}", "{# #}{% endmacro %}"))
    assert "documents" in planned(built)
    built.build("--changed", "--select", "+people", *NO_TESTS)
    assert "people" not in planned(built)
    replace_in(built.project / "dbt_project.yml", "slack_gap_minutes: 30", "slack_gap_minutes: 31")
    assert "people" in planned(built)


def test_what_failed_is_run_again(built: Lakehouse) -> None:
    model = built.project / "models" / "knowledge" / "documents_current.sql"
    text = model.read_text()
    model.write_text(text.replace("select", "select no_such_column,", 1))
    with pytest.raises(AssertionError, match="no_such_column"):
        built.build()
    assert "documents_current" in planned(built)
    model.write_text(text)
    built.build()
    assert not planned(built)
    # So is what somebody has dropped.
    load_catalog(built.settings).drop_table(f"{built.settings.prefix}knowledge.people")
    assert "people" in planned(built)
    built.build()
    assert not planned(built)


def test_what_others_wrote_meanwhile_is_new(built: Lakehouse) -> None:
    # A build of these alone writes, and does not say that all is up to date.
    built.land("slack", DAY_ONE / "slack")
    built.build("build", "--select", "+documents", *NO_TESTS)
    assert {"stg_slack__messages", "documents", "chunks"} <= planned(built)
    built.build()
    assert not planned(built)


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


def test_it_keeps_to_what_is_selected(built: Lakehouse) -> None:
    built.land("slack", DAY_ONE / "slack")
    run = run_in(built.build("--changed", "--select", "+documents", *NO_TESTS))
    assert {"stg_slack__messages", "documents"} <= run
    assert not run & {"chunks", "stg_linear__issues", "documents_current"}
    assert {"chunks", "documents_current"} <= planned(built)
    refused = built.command("build", "--changed", "--full-refresh")
    assert (refused.exit_code, refused.errors.count("\n")) == (2, 1)
    assert "--changed does not go with --full-refresh" in refused.errors
