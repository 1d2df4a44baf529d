"""Freezing datasets, over real models: nothing that happens later changes what was frozen."""

from __future__ import annotations

import json
import random
import shutil
import subprocess

import pyarrow.parquet as pq
import pytest

from loreline.datasets import registry, stored, tracking
from loreline.lake.catalog import load_catalog
from loreline.lake.maintenance import maintain
from loreline.settings import PROJECT_ROOT
from tests.end_to_end.dataset_models import (
    DATASETS,
    HOSTILE,
    TOOLS,
    commit,
    conversations,
    git,
    put_models,
)
from tests.end_to_end.forest import answers_of_trees, requests_for
from tests.end_to_end.lakehouse import replace_in, temporary_lakehouse
from tests.end_to_end.trainers import load

NO_TESTS = ("--exclude-resource-type", "test", "unit_test")
WITH_UPSTREAM = ("build", "--select", "+tag:datasets", *NO_TESTS)
ONLY_DATASETS = ("build", "--select", "tag:datasets", *NO_TESTS)
SFT = "sft_messages_dataset"
NAMES = {name: name.split("_")[0] for name in DATASETS}
SECONDS_OF_A_FREEZE = 3.5


@pytest.fixture(scope="module")
def lakehouse(stack, tmp_path_factory):
    """Datasets that were built once; every test freezes under names of its own."""
    with temporary_lakehouse(stack, tmp_path_factory.mktemp("freeze")) as lakehouse:
        put_models(lakehouse.project)
        lakehouse.land_events(conversations())
        lakehouse.build(*WITH_UPSTREAM)
        yield lakehouse


@pytest.fixture(scope="module")
def frozen(lakehouse, tmp_path_factory):
    """The folder with the files of all four datasets, frozen as sft, dpo, …"""
    folder = tmp_path_factory.mktemp("exports")
    for dataset, name in NAMES.items():
        run(lakehouse, *freezing(lakehouse, dataset, name, folder))
    return folder


def freezing(lakehouse, dataset, name, folder, *others):
    places = ["--exports", str(folder), "--project-dir", str(lakehouse.project)]
    return ["freeze", dataset, "--name", name, *places, *others]


def run(lakehouse, *arguments, exit_code=0):
    done = lakehouse.command(*arguments)
    assert done.exit_code == exit_code, (done.output, done.errors)
    return done.output if exit_code == 0 else done.output + done.errors


def as_json(lakehouse, *arguments):
    return json.loads(run(lakehouse, *arguments, "--json"))


def tags(lakehouse):
    """Every tag of every table, as (table, tag)."""
    catalog, prefix = load_catalog(lakehouse.settings), lakehouse.settings.prefix
    return {
        (name, reference)
        for name in lakehouse.tables()
        for reference in catalog.load_table(prefix + name).refs()
        if reference != "main"
    }


def as_text(lakehouse, name, folder, project):
    """What is said of a dataset that is frozen, and cannot be rebuilt."""
    run(lakehouse, *freezing(lakehouse, SFT, name, folder))
    return run(lakehouse, "freeze", "--rebuild", name, *project, exit_code=1)


def snapshots(lakehouse):
    """Every snapshot of every table, as (table, snapshot id)."""
    prefix = lakehouse.settings.prefix
    return {(prefix + name, one) for name, ids in lakehouse.snapshots().items() for one in ids}


def facts(lakehouse, name):
    return as_json(lakehouse, "dataset", "show", name)


def rows(folder, name):
    return [
        json.loads(line)
        for file in sorted((folder / name / "jsonl").iterdir())
        for line in file.read_text().splitlines()
    ]


# what is frozen


def test_all_that_a_dataset_was_made_from_is_tagged(lakehouse, frozen):
    shown = facts(lakehouse, "sft")
    prefix = lakehouse.settings.prefix
    read = {one["table"].removeprefix(prefix): one for one in shown["upstream"]}
    assert set(read) == {
        "conversations.context_snapshots",
        "conversations.conversation_branch_nodes",
        "conversations.messages",
        "conversations.request_attributes",
        "datasets.positive_topk_trajectories",
        "seeds.seed_themes",
    }
    assert read["seeds.seed_themes"]["read_by"] == [f"{prefix}datasets.positive_topk_trajectories"]
    catalog = load_catalog(lakehouse.settings)
    for one in [*read.values(), {**shown, "table": shown["dataset"]}]:
        references = catalog.load_table(one["table"]).refs()
        wanted = one.get("snapshot_id") or one["iceberg_snapshot_id"]
        assert references[one["tag"]].snapshot_id == wanted


def test_the_registry_and_mlflow_have_it(lakehouse, frozen):
    [row] = lakehouse.query(
        "select dataset, row_count, status, content_sha256, mlflow_run_id, code_version,"
        " iceberg_snapshot_id, frozen_by"
        " from {lake}datasets.dataset_snapshot_registry where snapshot_name = 'sft'"
    )
    dataset, count, status, content, run_id, code, snapshot, by = row
    assert dataset == f"{lakehouse.settings.prefix}datasets.{SFT}"
    assert (count, status) == (48, "frozen") and by
    commits = subprocess.run(
        ["git", "-C", str(lakehouse.project), "log", "--format=%H"],
        capture_output=True,
        text=True,
    ).stdout.split()
    assert code.partition("+")[2] in commits
    assert snapshot in lakehouse.snapshots()[f"datasets.{SFT}"]
    entry = tracking.run_of(lakehouse.settings, run_id)
    [used] = entry.inputs.dataset_inputs
    assert used.dataset.name == "sft"
    assert content.startswith(used.dataset.digest)
    assert entry.data.tags["loreline.content_sha256"] == content
    assert json.loads(used.dataset.profile) == {"num_rows": 48}


def test_the_files_hold_the_rows_of_the_table(lakehouse, frozen):
    stored_rows = lakehouse.query(f"select example_id, split, score from {{lake}}datasets.{SFT}")
    written = rows(frozen, "sft")
    assert sorted((r["example_id"], r["split"], r["score"]) for r in written) == sorted(stored_rows)
    for file in (frozen / "sft" / "parquet").iterdir():
        table = pq.read_table(file)
        assert set(table["split"].to_pylist()) == {file.stem}
        ids = table["example_id"].to_pylist()
        assert ids == sorted(ids)
        assert not [name for name in table.column_names if name.startswith("_")]


def test_the_two_sides_of_unlearning_are_never_in_one_file(frozen):
    files = sorted((frozen / "unlearning" / "parquet").iterdir())
    assert [file.name for file in files] == ["forget-train.parquet", "retain-train.parquet"]
    for file in files:
        sides = set(pq.read_table(file)["partition"].to_pylist())
        assert sides == {file.name.partition("-")[0]}


def test_the_card_says_what_it_is_and_shows_text_as_text(lakehouse, frozen):
    card = (frozen / "sft" / "README.md").read_text()
    assert "Answers worth learning from." in card
    splits = [row["split"] for row in rows(frozen, "sft") if row["theme_id"] == "theme 1"]
    counts = [splits.count(split) for split in ("train", "validation", "test")]
    assert f"| theme 1 | {' | '.join(map(str, counts))} | 16 |" in card
    assert "seeds.seed_themes" in card
    assert "loreline freeze --rebuild sft" in card
    run(
        lakehouse,
        *freezing(lakehouse, SFT, "hostile-note", frozen, "--note", HOSTILE),
        *("--licence", 'x"\nlicense: mit', "--where", "model <> '|`\n# x'"),
    )
    card = (frozen / "hostile-note" / "README.md").read_text()
    assert "<script>" not in card
    assert not {"\x1b", "\u202e"} & set(card)
    assert "\n# heading" not in card and "\n# x" not in card
    assert "\nlicense: mit" not in card


# bytes


def test_it_verifies_and_every_byte_counts(lakehouse, frozen):
    found = as_json(lakehouse, "freeze", "--verify", "dpo")
    assert found["is_equal"] and found["is_same_content"]
    assert {file["path"] for file in found["files"]} >= {"README.md", "parquet/train.parquet"}
    run(lakehouse, *freezing(lakehouse, "dpo", "spoiled", frozen))
    stored.put(lakehouse.settings, "spoiled", "jsonl/test.jsonl", b"{}\n")
    shown = run(lakehouse, "freeze", "--verify", "spoiled", exit_code=1)
    assert "NOT EQUAL, the same rows" in shown
    refused = run(
        lakehouse, "dataset", "export", "spoiled", "--exports", str(frozen / "x"), exit_code=1
    )
    assert "jsonl/test.jsonl of spoiled is not the file that was stored" in refused
    assert not (frozen / "x" / "spoiled").exists()


def test_another_process_writes_the_same_bytes(lakehouse, frozen, tmp_path):
    run(lakehouse, *freezing(lakehouse, SFT, "sft-again", tmp_path))
    digests = [
        {file["path"]: file["sha256"] for file in facts(lakehouse, name)["writer"]["files"]}
        for name in ("sft", "sft-again")
    ]
    for one in digests:
        del one["README.md"]
    assert digests[0] == digests[1]
    assert (
        facts(lakehouse, "sft")["content_sha256"] == facts(lakehouse, "sft-again")["content_sha256"]
    )


@pytest.mark.soak
def test_real_conversations_are_frozen_and_loaded(real_data, stack, tmp_path):
    answers = answers_of_trees(real_data / "openassistant" / "trees.jsonl")[:200]
    with temporary_lakehouse(stack, tmp_path) as lakehouse:
        put_models(lakehouse.project)
        events = requests_for(answers, "trees")
        lakehouse.land_events(events)
        lakehouse.build(*WITH_UPSTREAM)
        folder = tmp_path / "exports"
        for name in ("sft", "dpo"):
            run(lakehouse, *freezing(lakehouse, name, name, folder))
            run(lakehouse, "freeze", "--verify", name)
            load(folder / name, name, tmp_path)
        project = ["--project-dir", str(lakehouse.project)]
        assert "equal" in run(lakehouse, "freeze", "--rebuild", "dpo", *project)
    said = {row["messages"][-1]["content"] for row in rows(folder, "sft")}
    assert said == {answer.text for answer in answers}


@pytest.mark.parametrize(
    "name",
    [
        *("sft", "dpo"),
        *(pytest.param(name, marks=pytest.mark.soak) for name in ("suppression", "unlearning")),
    ],
)
def test_trainers_load_every_export(lakehouse, frozen, name, tmp_path):
    tools = load(frozen / name, name, tmp_path)
    if name == "sft":
        assert tools == [TOOLS] * 16
        asked = [m for row in rows(frozen, name) for m in row["messages"] if m.get("tool_calls")]
        assert asked
        for message in asked:
            [called] = message["tool_calls"]
            assert json.loads(called["function"]["arguments"]) == {"query": "x"}
    with_text = rows(frozen, name)
    said = json.dumps(with_text)
    assert json.dumps(HOSTILE)[1:-1] in said or json.dumps(json.dumps(HOSTILE))[2:-2] in said


# names and conditions


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "", ".", "..", "a..b", "A", "x" * 65, "a b", "-a", "a\n", "é", "a@2"]
)
def test_a_name_that_could_mean_another_place_is_refused(lakehouse, tmp_path, name):
    refused = run(lakehouse, *freezing(lakehouse, SFT, name, tmp_path / "out"), exit_code=1)
    assert "is no name for a frozen dataset" in refused
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("true) union all select * from lake.x.y --", "DuckDB cannot read it"),
        ("true) union all (select * from dataset where true", "more than a condition"),
        ("true) order by (1", "more than a condition"),
        ("true); drop table x; select (1", "DuckDB cannot read it"),
        ("true); select (1", "more than a condition"),
        ("true) limit 1 --", "DuckDB cannot read it"),
        ("example_id in (select id from lake.a.b)", "another query"),
        ("exists (from read_csv('/etc/passwd'))", "another query"),
        ("random() < 0.5", "random() may not give the same"),
        ("now() > '2020-01-01'", "now() may not give the same"),
        ("current_date > '2020-01-01'", "no column current_date"),
        ("current_setting('threads') = '1'", "current_setting() may not"),
        ("nextval('s') > 1", "nextval() may not"),
        ("secret = 1", "no column secret"),
        ("split = $1", "parameter"),
        ("split = ", "DuckDB cannot read it"),
    ],
)
def test_a_condition_is_no_more_than_that(lakehouse, tmp_path, where, why):
    before = lakehouse.snapshots(), tags(lakehouse)
    refused = run(
        lakehouse, *freezing(lakehouse, SFT, "bad", tmp_path, "--where", where), exit_code=1
    )
    assert why in refused
    assert (lakehouse.snapshots(), tags(lakehouse)) == before


def test_a_condition_chooses_rows(lakehouse, tmp_path):
    where = "split = 'train' and (model like 'm_' -- those with tools\n or theme_id is null)"
    run(lakehouse, *freezing(lakehouse, SFT, "chosen", tmp_path, "--where", where))
    chosen = rows(tmp_path, "chosen")
    assert chosen
    assert {(row["split"], row["model"] in ("m0", "m1")) for row in chosen} == {("train", True)}
    assert facts(lakehouse, "chosen")["parameters"]["where"] == where
    run(lakehouse, "freeze", "--verify", "chosen")
    none = run(
        lakehouse, *freezing(lakehouse, SFT, "none", tmp_path, "--where", "false"), exit_code=1
    )
    assert "no row is left to freeze" in none
    assert not [tag for tag in tags(lakehouse) if tag[1].startswith("frozen-none")]
    assert "none" not in stored.drafts(lakehouse.settings)


def test_what_is_no_dataset_is_refused(lakehouse, tmp_path):
    for given in ("messages", "positive_topk_trajectories", "nothing"):
        refused = run(lakehouse, *freezing(lakehouse, given, "not-one", tmp_path), exit_code=1)
        assert "dataset" in refused
    assert "not-one" not in [one.snapshot_name for one in registry.read(lakehouse.settings)]


# once and for all


def test_a_second_freeze_under_a_name_fails(lakehouse, frozen, tmp_path):
    before = facts(lakehouse, "sft"), tags(lakehouse)
    refused = run(lakehouse, *freezing(lakehouse, "dpo", "sft", tmp_path), exit_code=1)
    assert "sft is frozen already" in refused
    assert (facts(lakehouse, "sft"), tags(lakehouse)) == before
    run(lakehouse, "freeze", "--verify", "sft")


def test_of_two_at_once_one_fails(lakehouse, tmp_path):
    steps = [
        lakehouse.start(
            "command", arguments=freezing(lakehouse, dataset, "at-once", tmp_path / dataset)
        )
        for dataset in (SFT, "dpo")
    ]
    done = [step.result() for step in steps]
    assert sorted(one.exit_code for one in done) == [0, 1]
    assert "at-once is frozen already" in "".join(one.errors for one in done)
    run(lakehouse, "freeze", "--verify", "at-once")
    kept = [tag for tag in tags(lakehouse) if tag[1].startswith("frozen-at-once")]
    assert len(kept) == len(facts(lakehouse, "at-once")["upstream"]) + 1


def test_two_names_at_once_are_both_frozen(lakehouse, tmp_path):
    names = ["one", "other"]
    steps = [
        lakehouse.start("command", arguments=freezing(lakehouse, "unlearning", name, tmp_path))
        for name in names
    ]
    assert [step.result().exit_code for step in steps] == [0, 0]
    for name in names:
        run(lakehouse, "freeze", "--verify", name)


@pytest.mark.soak
def test_a_killed_freeze_leaves_nothing_half_registered(lakehouse, tmp_path):
    chance = random.Random(40)
    killed = 0
    for number in range(40):
        name = f"killed-{number}"
        arguments = freezing(lakehouse, "dpo", name, tmp_path)
        step = lakehouse.start("command", arguments=arguments)
        step.wait_until_started()
        killed += step.kill(chance.uniform(0, SECONDS_OF_A_FREEZE))
        registered = {one.snapshot_name for one in registry.read(lakehouse.settings)}
        if name in registered:
            # Killed behind its commit point: it is whole.
            run(lakehouse, "freeze", "--verify", name)
            run(lakehouse, *arguments, exit_code=1)
        else:
            assert not (tmp_path / name).exists()
            run(lakehouse, *arguments)
            run(lakehouse, "freeze", "--verify", name)
        own = [tag for _, tag in tags(lakehouse) if tag.partition("@")[0] == f"frozen-{name}"]
        assert len(own) == len(facts(lakehouse, name)["upstream"]) + 1
        assert name not in stored.drafts(lakehouse.settings)
    assert killed
    listed = as_json(lakehouse, "datasets")
    assert len({one["snapshot_name"] for one in listed["frozen"]}) == len(listed["frozen"])
    assert listed["unfinished"] == []


def test_an_unfinished_freeze_is_listed_and_can_be_discarded(lakehouse, tmp_path, monkeypatch):
    from loreline.datasets.freeze import Request, freeze

    def lost(*_, **__):
        raise OSError("no connection")

    with monkeypatch.context() as patch:
        patch.setattr(tracking, "record_run", lost)
        patch.setattr(tracking, "forget_runs", lost)
        with pytest.raises(OSError, match="no connection"):
            freeze(lakehouse.settings, Request("dpo", "lost"))
    assert as_json(lakehouse, "datasets")["unfinished"] == ["lost"]
    run(lakehouse, "freeze", "--discard", "lost")
    assert as_json(lakehouse, "datasets")["unfinished"] == []
    assert not [tag for tag in tags(lakehouse) if tag[1].startswith("frozen-lost")]
    assert "nothing was left" in run(lakehouse, "freeze", "--discard", "lost", exit_code=1)


def test_a_frozen_dataset_is_revoked_and_stays_as_it_was(lakehouse, tmp_path):
    for name in ("old", "new"):
        run(lakehouse, *freezing(lakehouse, SFT, name, tmp_path))
    before = facts(lakehouse, "old")
    run(lakehouse, "freeze", "--revoke", "old", "--successor", "nobody", exit_code=1)
    run(lakehouse, "freeze", "--revoke", "old", "--successor", "new")
    after = facts(lakehouse, "old")
    assert (after["status"], after["successor"]) == ("revoked", "new")
    changed = {"status", "successor", "recorded_at", "recorded_by"}
    assert {k: v for k, v in after.items() if k not in changed} == {
        k: v for k, v in before.items() if k not in changed
    }
    run(lakehouse, "freeze", "--verify", "old")
    assert "was revoked" in run(lakehouse, "freeze", "--revoke", "old", exit_code=1)
    assert "is frozen already" in run(
        lakehouse, *freezing(lakehouse, SFT, "old", tmp_path / "x"), exit_code=1
    )
    count = "select count(*) from {lake}datasets.dataset_snapshot_registry where snapshot_name = $1"
    assert lakehouse.query(count, "old") == [(2,)]


def test_it_is_not_clear_what_to_do(lakehouse):
    for arguments in ([], ["sft"], ["--name", "x"], ["sft", "--name", "x", "--verify", "y"]):
        assert "not clear" in run(lakehouse, "freeze", *arguments, exit_code=2)
    assert "no dataset is frozen as" in run(lakehouse, "freeze", "--verify", "nothing", exit_code=1)


# what happens later


@pytest.mark.soak
def test_nothing_that_happens_later_changes_it(stack, tmp_path):
    with temporary_lakehouse(stack, tmp_path) as lakehouse:
        put_models(lakehouse.project)
        lakehouse.land_events(conversations())
        lakehouse.build(*WITH_UPSTREAM)
        run(lakehouse, *freezing(lakehouse, SFT, "before", tmp_path))
        project = ["--project-dir", str(lakehouse.project)]

        # Other rows, another seed, another code; what was is compacted, and expires.
        lakehouse.land_events(conversations(24, 30))
        replace_in(
            lakehouse.project / "models" / "datasets" / f"{SFT}.sql",
            "    model,",
            "    'x' as model,",
        )
        themes = lakehouse.project / "seeds" / "seed_themes.csv"
        *_, last = themes.read_text().splitlines()
        themes.write_text(themes.read_text() + f"theme 1,{last.partition(',')[2]}\n")
        commit(lakehouse.project)
        lakehouse.build(*WITH_UPSTREAM)
        lakehouse.build(*WITH_UPSTREAM, "--full-refresh")
        shown = facts(lakehouse, "before")
        kept = {(one["table"], one["snapshot_id"]) for one in shown["upstream"]}
        before = snapshots(lakehouse)
        for days in (40, 80):
            lakehouse.start("maintain", days_later=days).result()
        assert before - snapshots(lakehouse), "nothing has expired"
        assert kept <= snapshots(lakehouse)

        verified = as_json(lakehouse, "freeze", "--verify", "before")
        assert verified["is_equal"]
        rebuilt = as_json(lakehouse, "freeze", "--rebuild", "before", *project)
        assert rebuilt["is_equal"]
        assert [model["table"].rsplit(".", 1)[-1] for model in rebuilt["models"]] == [
            SFT,
            "positive_topk_trajectories",
        ]
        assert all(model["is_same_sql"] and model["rows"] == 48 for model in rebuilt["models"])

        # What was built since is another dataset.
        run(lakehouse, *freezing(lakehouse, SFT, "after", tmp_path))
        found = as_json(lakehouse, "dataset", "diff", "before", "after")
        assert found["rows"] == [48, 108]
        assert (found["added"], found["removed"], found["changed"]) == (60, 0, 48)
        assert found["columns_changed"] == {"model": 48}
        assert found["counts"]["split"]["train"][0] == 22
        assert found["counts"]["model"]["x"] == [0, 108]
        assert "code_version" in found["settings"]
        assert f"snapshot of {lakehouse.settings.prefix}seeds.seed_themes" in found["settings"]
        shown = run(lakehouse, "dataset", "diff", "before", "after")
        assert "added" in shown

        # A tag that somebody removes is missed.
        table = load_catalog(lakehouse.settings).load_table(
            f"{lakehouse.settings.prefix}seeds.seed_themes"
        )
        table.manage_snapshots().remove_tag("frozen-before").commit()
        assert "tag frozen-before of" in run(lakehouse, "freeze", "--verify", "before", exit_code=1)


@pytest.mark.soak
def test_code_that_is_not_the_recorded_one_is_noticed(stack, tmp_path):
    with temporary_lakehouse(stack, tmp_path) as lakehouse:
        put_models(lakehouse.project)
        lakehouse.land_events(conversations())
        lakehouse.build(*WITH_UPSTREAM)
        project = ["--project-dir", str(lakehouse.project)]

        # Built from files that no commit holds: verified, but not rebuilt.
        model = lakehouse.project / "models" / "datasets" / f"{SFT}.sql"
        replace_in(model, "    model,", "    'y' as model,")
        lakehouse.build(*ONLY_DATASETS)
        run(lakehouse, *freezing(lakehouse, SFT, "dirty", tmp_path))
        assert facts(lakehouse, "dirty")["code_version"].endswith(".changed")
        run(lakehouse, "freeze", "--verify", "dirty")
        refused = run(lakehouse, "freeze", "--rebuild", "dirty", *project, exit_code=1)
        assert "was built from files that differ from commit" in refused

        # Committed and built again it gives the same rows, and no snapshot: the commit is noted.
        before = lakehouse.snapshots()
        commit(lakehouse.project)
        lakehouse.build(*ONLY_DATASETS)
        assert lakehouse.snapshots() == before
        run(lakehouse, *freezing(lakehouse, SFT, "clean", tmp_path))
        run(lakehouse, "freeze", "--rebuild", "clean", *project)

        # Where the commit holds the package as well, it is the commit's that runs.
        package = lakehouse.project / "loreline"
        shutil.copytree(
            PROJECT_ROOT / "loreline", package, ignore=shutil.ignore_patterns("__pycache__")
        )
        replace_in(
            package / "datasets" / "rerun.py",
            "    settings = Settings.load()\n",
            "    sys.exit('the code of the commit')\n",
        )
        commit(lakehouse.project)
        shutil.rmtree(package)
        lakehouse.build(*ONLY_DATASETS)
        assert "differ from commit" in as_text(lakehouse, "unclean", tmp_path, project)
        git(lakehouse.project, "checkout", "--", ".")
        lakehouse.build(*ONLY_DATASETS)
        assert "the code of the commit" in as_text(lakehouse, "own", tmp_path, project)

        # A repository without the commit cannot run it.
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        refused = run(
            lakehouse, "freeze", "--rebuild", "clean", "--project-dir", str(elsewhere), exit_code=1
        )
        assert "whose code built the dataset, is not in" in refused


@pytest.mark.soak
def test_upstream_that_moves_without_other_rows_is_what_is_tagged(stack, tmp_path):
    """What the first build read may expire, though its rows are still what is built."""
    with temporary_lakehouse(stack, tmp_path) as lakehouse:
        put_models(lakehouse.project)
        lakehouse.land_events(conversations())
        lakehouse.build(*WITH_UPSTREAM)
        run(lakehouse, *freezing(lakehouse, SFT, "first", tmp_path))
        dataset = lakehouse.snapshots()[f"datasets.{SFT}"]
        lakehouse.build("build", "--select", "messages", "--full-refresh", *NO_TESTS)
        lakehouse.build(*ONLY_DATASETS)
        assert lakehouse.snapshots()[f"datasets.{SFT}"] == dataset
        lakehouse.start("maintain", days_later=40).result()
        run(lakehouse, *freezing(lakehouse, SFT, "moved", tmp_path))
        read = {one["table"]: one["snapshot_id"] for one in facts(lakehouse, "moved")["upstream"]}
        messages = f"{lakehouse.settings.prefix}conversations.messages"
        assert read[messages] == lakehouse.snapshots()["conversations.messages"][-1]
        # What has expired, and was not read again since, is said.
        lakehouse.build("build", "--select", "messages", "--full-refresh", *NO_TESTS)
        table = load_catalog(lakehouse.settings).load_table(messages)
        table.manage_snapshots().remove_tag("frozen-moved").commit()
        lakehouse.start("maintain", days_later=80).result()
        refused = run(lakehouse, *freezing(lakehouse, SFT, "expired", tmp_path), exit_code=1)
        # What was noted since, and has expired, is not what the first was made from.
        project = ["--project-dir", str(lakehouse.project)]
        run(lakehouse, "freeze", "--rebuild", "first", *project)
        assert f"of {messages}, which" in refused and "has expired" in refused


def test_maintenance_keeps_the_registry(lakehouse, frozen):
    before = registry.read(lakehouse.settings)
    maintain(lakehouse.settings, tables=[f"{lakehouse.settings.prefix}{registry.TABLE}"])
    assert registry.read(lakehouse.settings) == before
