"""What a change rebuilds: the tables from where it begins, and of a node only what is below it."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import chain

import pytest

from tests.end_to_end.forest import (
    Json,
    assistant,
    chat,
    event,
    recorded_again,
    user,
)
from tests.end_to_end.forest_cases import CASES
from tests.end_to_end.lakehouse import temporary_lakehouse
from tests.end_to_end.test_forest import CONVERSATIONS, rows

# What lands an event changes these in any case.
LANDED = {
    "raw_gateway.events",
    "staging.stg_gateway__events",
    "staging.stg_gateway__chat_requests",
}
TOLD = {"raw_gateway.events", "staging.stg_gateway__events", "staging.stg_gateway__tasks"}
PATTERNS = {"lines": '"- ([^\\n]+)"', "sentences": '"([^.!?\\n]+[.!?]?)"'}


class Forest:
    """A lakehouse to which events are added, and what of it was changed by that."""

    def __init__(self, lakehouse):
        self.lakehouse = lakehouse

    def land(self, *events: Json) -> None:
        """Land events."""
        self.lakehouse.land_events(events)

    def add(self, *events: Json) -> None:
        """Land events and build."""
        self.land(*events)
        self.build()

    def build(self) -> None:
        """Build the conversations."""
        self.lakehouse.build(*CONVERSATIONS)

    def cut_by(self, active: str, **patterns: str) -> None:
        """Let one rule cut prompts into tasks, with another pattern if it is given."""
        file = self.lakehouse.project / "seeds" / "taskify_rules.csv"
        header = file.read_text().splitlines()[0]
        lines = [
            f"{version},{pattern},{str(version == active).lower()},for a test"
            for version, pattern in (PATTERNS | patterns).items()
        ]
        file.write_text("\n".join([header, *lines]) + "\n")
        self.build()

    def changed_since(self, before: dict[str, list[int]]) -> set[str]:
        """The tables that got a snapshot since."""
        now = self.lakehouse.snapshots()
        return {table for table in now if now[table] != before[table]}

    def table(self, name: str, key: str) -> dict[str, Json]:
        """The rows of a table of conversations by their key, `_batch` included."""
        found = rows(self.lakehouse, f"select * from {{lake}}conversations.{name}")
        return {row[key]: row for row in found}


@pytest.fixture(scope="module")
def forest(stack, tmp_path_factory):
    """All cases, built; tests add a tenant each."""
    with temporary_lakehouse(stack, tmp_path_factory.mktemp("rules")) as lakehouse:
        forest = Forest(lakehouse)
        forest.add(*(event for case in CASES.values() for event in case.events))
        yield forest


def test_nothing_changed_rebuilds_nothing(forest):
    before = forest.lakehouse.snapshots()
    forest.build()
    assert forest.changed_since(before) == set()


def test_another_rule_rebuilds_from_the_tasks_on(forest):
    forest.cut_by("lines")
    forest.add(chat("before", [SAID], assistant("ok"), tenant="rules"))
    assert tasks_of(forest, "before") == {"lines": [WHOLE]}
    before, tasks = forest.lakehouse.snapshots(), forest.table(*TASKS)

    forest.cut_by("sentences")
    assert forest.changed_since(before) == {
        "seeds.taskify_rules",
        "conversations.taskification_results",
    }
    assert tasks_of(forest, "before") == {"lines": [WHOLE], "sentences": SENTENCES}
    found = forest.table(*TASKS)
    assert {key: found[key] for key in tasks} == tasks, "what another rule found stays"
    new = {row["branch_node_id"] for key, row in found.items() if key not in tasks}
    asked = {row["branch_node_id"] for row in tasks.values() if row["told_by"] == "rule"}
    assert new == asked, "every node that no gateway told the tasks of"


@pytest.mark.soak
def test_a_rule_that_comes_back_is_asked_about_what_came_meanwhile(forest):
    forest.cut_by("lines")
    forest.cut_by("sentences")
    forest.add(chat("meanwhile", [SAID], assistant("ok"), tenant="rules", session="later"))
    assert tasks_of(forest, "meanwhile") == {"sentences": SENTENCES}
    forest.cut_by("lines")
    assert tasks_of(forest, "meanwhile") == {"lines": [WHOLE], "sentences": SENTENCES}


def test_what_an_edited_rule_no_longer_finds_is_superseded(forest):
    forest.cut_by("sentences")
    forest.add(chat("edited", [SAID], assistant("ok"), tenant="rules", session="edited"))
    forest.cut_by("sentences", sentences='"never (.)"')
    assert tasks_of(forest, "edited") == {"sentences": [WHOLE]}


@pytest.mark.soak
def test_the_last_plan_that_a_gateway_told_counts_and_as_a_whole(forest):
    forest.cut_by("lines")
    listed = user("Please:\n- read\n- find\n- write")
    forest.add(chat("listed", [listed], assistant("ok"), tenant="rules", session="told"))
    assert tasks_of(forest, "listed") == {"lines": ["read", "find", "write"]}
    forest.add(plan("listed", 1, "look", "tell"))
    assert tasks_of(forest, "listed") == {"": ["look", "tell"]}
    before = forest.lakehouse.snapshots()
    forest.add(plan("listed", 1.5, "look", "tell"))
    assert forest.changed_since(before) == TOLD
    forest.add(plan("listed", 2, "tell"))
    assert tasks_of(forest, "listed") == {"": ["tell"]}
    forest.add(plan("listed", 3, "read", "write", taskify_rule_version="lines"))
    assert tasks_of(forest, "listed") == {"": ["tell"], "lines": ["read", "write"]}


TASKS = ("taskification_results", "taskification_id")
WHOLE = "Read the log. Find the cause."
SENTENCES = ["Read the log.", "Find the cause."]
SAID = user(WHOLE)


def plan(turn, at, *tasks, tenant="rules", **data):
    """What a gateway tells of the tasks of a turn."""
    numbered = [{"index": n, "sub_prompt": task} for n, task in enumerate(tasks)]
    return event("taskification.completed", at, turn_id=turn, tenant=tenant, tasks=numbered, **data)


def tasks_of(forest, turn):
    """The sub-prompts of a turn by the rule that found them, in their order."""
    found: dict[str, list[str]] = {}
    for row in rows(
        forest.lakehouse,
        "select tasks.* from {lake}conversations.taskification_results as tasks"
        " inner join {lake}conversations.conversation_branch_nodes using (branch_node_id)"
        " where tenant = 'rules' and turn_id = $1 and not is_superseded"
        " order by taskify_rule_version, task_index",
        turn,
    ):
        found.setdefault(row["taskify_rule_version"], []).append(row["sub_prompt"])
    return found


@pytest.mark.soak
def test_another_model_snapshot_rebuilds_from_the_executions_on(forest):
    original = [
        chat(
            f"t{n}",
            [user(f"question {n}")],
            assistant("ok"),
            at=n,
            tenant="snapshots",
            model_snapshot_id="m@1",
        )
        for n in range(6)
    ]
    forest.add(*original)
    before, runs = forest.lakehouse.snapshots(), forest.table(*RUNS)

    forest.land(*(recorded_again(event, 60, model_snapshot_id="m@2") for event in original))
    planned = json.loads(forest.lakehouse.command("replay", "--plan", "--json").output)["rebuilt"]
    assert (
        "execution_run_records",
        "6 events have landed: known attempts, as under another model_snapshot_id",
    ) in [(each["start"], each["reason"]) for each in planned]
    forest.build()
    # The watermark of a session names the last event that was built in.
    assert forest.changed_since(before) == LANDED | {
        "conversations.execution_run_records",
        "conversations.lineage_watermark",
    }
    found = forest.table(*RUNS)
    assert found.keys() == runs.keys()
    changed = {key for key in found if found[key] != runs[key]}
    assert {found[key]["tenant"] for key in changed} == {"snapshots"}
    assert len(changed) == len(original)
    for key in changed:
        assert found[key]["model_snapshot_id"] == "m@2"
        assert {name for name in found[key] if found[key][name] != runs[key][name]} == {
            *("model_snapshot_id", "event_at", "event_key", "raw_dlt_id", "_batch"),
        }


RUNS = ("execution_run_records", "execution_id")


U1, U2, U3, U4 = (user(text) for text in ("one", "two", "three", "four"))
A1, A2, A3, A4 = (assistant(text) for text in ("first", "second", "third", "fourth"))


@dataclass(frozen=True)
class Change:
    """What a node learns late.

    Attributes:
        turn: the node's turn.
        replaced: events by the turn that they tell of, instead of those of `CONVERSATION`.
        late: what comes when everything is built.
        moved: the turns whose nodes are other ones then.
    """

    turn: str
    late: list[Json]
    moved: set[str]
    replaced: dict[str, list[Json]] = field(default_factory=dict)


# t1 ─ aside ─ below, and t1 ─ t2 ─ t3 ─ t4.
CONVERSATION = {
    "t1": [chat("t1", [U1], A1)],
    "t2": [chat("t2", [U1, A1, U2], A2, at=2)],
    "t3": [chat("t3", [U1, A1, U2, A2, U3], A3, at=4)],
    "t4": [chat("t4", [U1, A1, U2, A2, U3, A3, U4], A4, at=6)],
    "aside": [chat("aside", [U1, A1, U4], A2, at=1)],
    "below": [chat("below", [U1, A1, U4, A2, U3], A3, at=10)],
    "other": [chat("other", [U1], A1, at=12, session="another")],
}
ASKED = [U1, A1, U2, A2, U3]
REPLAY = {"is_replay": True, "replay_run_id": "run"}
CHANGES = {
    "the turn itself comes late": Change(
        "t2", CONVERSATION["t2"], {"t2", "t3", "t4"}, replaced={"t2": []}
    ),
    "a later attempt names another parent": Change(
        "t3",
        [chat("t3", ASKED, A3, at=5, parent_turn_id="t1")],
        {"t3", "t4"},
        replaced={"t3": [chat("t3", ASKED, A3, at=4, kind="interrupted")]},
    ),
    "a later attempt asks another model": Change(
        "t3",
        [chat("t3", ASKED, A3, at=5, request={"model": "m2"})],
        {"t3", "t4"},
        replaced={"t3": [chat("t3", ASKED, at=4, kind="failed")]},
    ),
    "its plan is told": Change(
        "t2",
        [plan("t2", 9, "look")],
        {"t2"},
    ),
    "it is replayed with tools, and the replay goes on": Change(
        "r2",
        [
            chat("r2", [U1, A1, U2], A3, at=20, request={"tools": [{"type": "x"}]}, **REPLAY),
            chat("r3", [U1, A1, U2, A3, U3], A4, at=22, parent_turn_id="r2", **REPLAY),
        ],
        {"r2", "r3"},
    ),
}
OF_TURNS = (
    *("llm_chat_turns", "conversation_links", "conversation_branch_nodes"),
    *("taskification_results", "execution_run_records", "response_branch_records"),
)
OF_SESSIONS = ("conversation_sessions", "lineage_watermark")


def test_the_condition_of_a_node_changes_its_subtree_alone(forest):
    there = {name: CONVERSATION | change.replaced for name, change in CHANGES.items()}
    forest.add(*(event for name in there for event in of(name, *chain(*there[name].values()))))
    before = everything(forest)
    forest.add(*(event for name in CHANGES for event in of(name, *CHANGES[name].late)))
    after = everything(forest)

    changed = {
        table: {key for key in after[table] if after[table][key] != before[table].get(key)}
        for table in after
    }
    for table in after:
        assert {tenant for tenant, _ in changed[table]} <= CHANGES.keys(), table
    for table in OF_TURNS:
        assert before[table].keys() <= after[table].keys(), table
    for name, change in CHANGES.items():
        of_this = {table: {key for key in changed[table] if key[0] == name} for table in changed}
        assert of_this["conversation_branch_nodes"] == {(name, turn) for turn in change.moved}
        subtree = {(name, turn) for turn in turns_below(change.turn, name, forest)}
        for table in OF_TURNS:
            assert of_this[table] <= subtree, (name, table)
        for table in OF_SESSIONS:
            assert of_this[table] <= {(name, "s")}, (name, table)
    for table, known in before.items():
        kept = {key for key, content in known.items() if same(content, after[table][key])}
        assert not kept & changed[table], f"{table}: written anew, though nothing changed"


@pytest.mark.soak
def test_a_late_sibling_changes_what_compares_the_others_and_nothing_below_them(forest):
    name = "a late sibling"
    there = {turn: events for turn, events in CONVERSATION.items() if turn != "aside"}
    forest.add(*of(name, *chain.from_iterable(there.values())))
    before = everything(forest)["conversation_branch_nodes"]
    forest.add(*of(name, *CONVERSATION["aside"]))
    after = everything(forest)["conversation_branch_nodes"]

    (was,), (now,) = before[name, "t2"], after[name, "t2"]
    assert (was["branch_kind"], now["branch_kind"]) == ("continuation", "prompt_variant")
    assert {column for column in was if was[column] != now[column]} == {
        *("sibling_index", "branch_kind", "branch_reason", "variant_of_node_id"),
        *("variant_config", "_batch"),
    }
    changed = {key for key in after if after[key] != before.get(key)}
    assert changed == {(name, turn) for turn in ("aside", "below", "t2")}


def of(tenant, *events):
    """Events as those of a tenant."""
    return [event | {"data": event["data"] | {"tenant": tenant}} for event in events]


def everything(forest):
    """Of each table its rows, `_batch` included, by tenant and turn or session."""
    found = {}
    for table in (*OF_TURNS, *OF_SESSIONS):
        key = "session_id" if table in OF_SESSIONS else "turn_id"
        source = f"{{lake}}conversations.{table}"
        if table == "taskification_results":
            nodes = "{lake}conversations.conversation_branch_nodes"
            source = (
                f"(select tasks.*, nodes.tenant, nodes.turn_id from {source} as tasks"
                f" inner join {nodes} as nodes using (branch_node_id))"
            )
        found[table] = defaultdict(list)
        for row in rows(forest.lakehouse, f"select * from {source} order by all"):
            found[table][row["tenant"], row[key]].append(row)
    return found


def same(one, other):
    """Whether rows say the same, whenever they were written."""
    return [content(row) for row in one] == [content(row) for row in other]


def content(row):
    return {name: value for name, value in row.items() if not name.startswith("_")}


def turns_below(turn, tenant, forest):
    """A turn and all that went on from it."""
    nodes = rows(
        forest.lakehouse,
        "select turn_id, branch_node_id, parent_node_id"
        " from {lake}conversations.conversation_branch_nodes where tenant = $1 order by depth",
        tenant,
    )
    below = {node["branch_node_id"] for node in nodes if node["turn_id"] == turn}
    for node in nodes:
        if node["parent_node_id"] in below:
            below.add(node["branch_node_id"])
    return {node["turn_id"] for node in nodes if node["branch_node_id"] in below}
