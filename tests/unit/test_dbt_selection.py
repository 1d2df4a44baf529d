"""What is built on request stays out of every selection that does not ask for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from dbt.cli.main import dbtRunner

from loreline.cli.build import dbt_arguments
from tests.end_to_end.dataset_models import MODELS, put_models
from tests.parsed import copied_project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with datasets in it, one of which has a test."""
    project = copied_project(tmp_path_factory.mktemp("selection") / "project")
    put_models(project)
    (project / "tests" / "dbt").mkdir(parents=True)
    (project / "tests" / "dbt" / "assert_a_dataset_has_its_themes.sql").write_text(
        'select * from {{ ref("sft_messages_dataset") }} where theme_id not in'
        ' (select theme_id from {{ ref("conversation_sessions") }})'
    )
    return project


def listed(project: Path, *selection: str) -> set[str]:
    """Names of the models, seeds and tests that a selection holds; nothing is connected to."""
    places = ["--project-dir", str(project), "--profiles-dir", str(project), "--target", "local"]
    outputs = ["--target-path", str(project / "target"), "--log-path", str(project / "target")]
    arguments = ["--quiet", "ls", "--output", "name", *selection, *places, *outputs]
    done = dbtRunner().invoke(arguments)
    assert done.success, done.exception
    return set(done.result)


def composed(*arguments: str) -> list[str]:
    """The selection that `loreline build` makes of arguments."""
    complete = dbt_arguments(arguments)
    kept = []
    for option in ("--select", "--exclude"):
        for place, argument in enumerate(complete):
            if argument == option:
                kept += [option, complete[place + 1]]
    return kept


DATASETS = set(MODELS) | {"assert_a_dataset_has_its_themes"}


@pytest.mark.parametrize(
    "selection",
    [
        [],
        composed(),
        composed("--full-refresh"),
        composed("--select", "+tag:conversations"),
        composed("--select", "conversation_branch_nodes+"),
        composed("--exclude", "tag:serving"),
        composed("--select", "path:models"),
    ],
    ids=" ".join,
)
def test_ordinary_selections_leave_the_datasets_alone(project: Path, selection: list[str]) -> None:
    found = listed(project, *selection)
    assert "conversation_branch_nodes" in found
    assert not found & DATASETS
    # What else was to be left out still is.
    assert "tag:serving" not in selection or "lineage_copies" not in found


def test_they_are_built_when_asked_for(project: Path) -> None:
    assert listed(project, *composed("datasets")) >= set(MODELS)
    assert "conversation_branch_nodes" not in listed(project, *composed("datasets"))
    assert listed(project, *composed("--select", "dpo_preference_dataset")) == {
        "dpo_preference_dataset"
    }
