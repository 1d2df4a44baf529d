"""The forest of conversations: cases made by hand, and real ones of which the tree is known."""

import json
import random
from collections import Counter, defaultdict

import pytest

from loreline.settings import PROJECT_ROOT
from tests.end_to_end.forest import (
    answers_of_list,
    answers_of_trees,
    requests_for,
    sampling_requests,
)
from tests.end_to_end.forest_cases import CASES
from tests.end_to_end.lakehouse import differences, temporary_lakehouse

CONVERSATIONS = (
    "build",
    "--select",
    "+tag:conversations",
    "--exclude-resource-type",
    "unit_test",
)
TABLES = {
    "messages": "*",
    "context_snapshots": "*",
    "request_attributes": "*",
    "llm_chat_turns": "*",
    "conversation_branch_nodes": "*",
    "conversation_sessions": "*",
    "execution_run_records": "*",
    "response_branch_records": "*",
    "taskification_results": "*",
    "flow_nodes": "*",
    "flow_edges": "*",
    "lineage_watermark": "* exclude (processed_at)",
}

# What is no longer so stays, marked, where rows arrived in another order.
CURRENT = {
    "conversation_sessions": "where status <> 'renamed'",
    "taskification_results": "where not is_superseded",
}


@pytest.fixture(scope="module")
def answers(request):
    """The assistants' messages of real conversations, by tenant; empty where they are not there."""
    try:
        real = request.getfixturevalue("real_data") / "openassistant"
    except pytest.skip.Exception:
        return {}
    return {
        "trees": answers_of_trees(real / "trees.jsonl"),
        "list": answers_of_list(real / "messages.json"),
    }


@pytest.fixture(scope="module")
def events(request, answers):
    """Everything, in the order in which it happened."""
    found = [event for case in CASES.values() for event in case.events]
    for tenant, conversation in answers.items():
        found += requests_for(conversation, tenant)
    if answers:
        real = request.getfixturevalue("real_data") / "openassistant"
        found += sampling_requests(real / "sampling_12b.json", "sampling")
    return found


@pytest.fixture(scope="module")
def forest(stack, events, tmp_path_factory):
    """A lakehouse into which all of it came at once."""
    with temporary_lakehouse(stack, tmp_path_factory.mktemp("forest")) as lakehouse:
        lakehouse.land_events(events)
        lakehouse.build(*CONVERSATIONS)
        yield lakehouse


@pytest.fixture(scope="module")
def nodes(forest):
    """Rows of the forest by tenant."""
    found = defaultdict(list)
    for row in rows(
        forest,
        "select * from {lake}conversations.conversation_branch_nodes order by started_at",
    ):
        found[row["tenant"]].append(row)
    return found


def rows(lakehouse, query, *parameters):
    """Rows as dictionaries."""
    with lakehouse.lake() as connection:
        text = query.format(lake=f"lake.{lakehouse.settings.prefix}")
        result = connection.execute(text, parameters or None)
        names = [column[0] for column in result.description]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def named(nodes):
    """The nodes of a tenant under the names that the cases give them."""
    turns = defaultdict(list)
    for node in nodes:
        if node["turn_key"] not in turns[node["turn_id"]]:
            turns[node["turn_id"]].append(node["turn_key"])
    choices = Counter(node["turn_key"] for node in nodes)
    found = {}
    for node in nodes:
        place = turns[node["turn_id"]].index(node["turn_key"])
        name = node["turn_id"] + (f":{place}" if place else "")
        found[name + (f"/{node['choice_index']}" if choices[node["turn_key"]] > 1 else "")] = node
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_forest_of(name, nodes):
    found = named(nodes[name])
    names = {node["branch_node_id"]: known for known, node in found.items()}
    shown = {
        known: (names.get(node["parent_node_id"]), node["branch_kind"], node["match"])
        for known, node in found.items()
    }
    assert shown == CASES[name].nodes


def test_every_node_knows_its_place(nodes):
    every = {node["branch_node_id"]: node for found in nodes.values() for node in found}
    for node in every.values():
        parent = every.get(node["parent_node_id"])
        assert node["is_complete"]
        assert node["is_root"] == (node["parent_node_id"] is None)
        assert node["depth"] == (parent["depth"] + 1 if parent else 0)
        assert (
            node["root_node_id"]
            == (parent or {"root_node_id": node["branch_node_id"]})["root_node_id"]
        )
        assert node["branch_kind"]
        assert node["context_snapshot_id"]
        assert node["node_status"]
        json.loads(node["variant_config"])
    groups = defaultdict(list)
    for node in every.values():
        groups[node["parent_node_id"] or node["tree_group"]].append(node)
    for group in groups.values():
        ordered = sorted(group, key=lambda node: node["sibling_index"])
        assert [node["sibling_index"] for node in ordered] == list(range(len(group)))
        assert [node["variant_of_node_id"] for node in ordered[:1]] == [None]


@pytest.mark.parametrize(
    ("tenant", "turns", "requests", "several", "responses", "roots", "depth", "histories"),
    [("trees", 687, 254, 214, 647, 333, 6, 941), ("list", 265, 181, 77, 161, 96, 11, None)],
)
def test_real_conversations_are_rebuilt_from_histories_alone(
    tenant, turns, requests, several, responses, roots, depth, histories, answers, nodes, forest
):
    if not answers:
        pytest.skip("no real data (set LORELINE_REAL_DATA)")
    found = {node["turn_id"]: node for node in nodes[tenant]}
    names = {node["branch_node_id"]: node["turn_id"] for node in nodes[tenant]}
    original = {answer.identity: answer.parent for answer in answers[tenant]}
    assert {t: names.get(node["parent_node_id"]) for t, node in found.items()} == original
    assert len(nodes[tenant]) == len(found) == turns
    groups = Counter(
        row["branch_group_id"]
        for row in rows(
            forest,
            "select * from {lake}conversations.response_branch_records where tenant = $1",
            tenant,
        )
    )
    assert len(groups) == requests
    assert sum(size > 1 for size in groups.values()) == several
    assert sum(size for size in groups.values() if size > 1) == responses
    assert sum(node["is_root"] for node in found.values()) == roots
    assert max(answer.depth for answer in answers[tenant]) == depth
    if histories:
        contexts = {node["context_snapshot_id"] for node in found.values()}
        after = {node["response_snapshot_id"] for node in found.values()}
        assert len(contexts | after) == histories


def test_samplings_of_one_prompt_are_variants_and_retries(answers, nodes):
    if not answers:
        pytest.skip("no real data (set LORELINE_REAL_DATA)")
    kinds = Counter(node["branch_kind"] for node in nodes["sampling"])
    assert kinds == {"root": 100, "sampling_variant": 300, "retry": 300}
    assert all(node["is_root"] for node in nodes["sampling"])


def test_a_message_is_stored_once(forest):
    (counted,) = rows(
        forest,
        "select count(*) as messages, count(distinct message_hash) as hashes,"
        " count(distinct coalesce(role, '') || '|' || coalesce(content, '') || '|'"
        " || coalesce(name, '') || '|' || coalesce(tool_calls, '') || '|'"
        " || coalesce(tool_call_id, '')) as texts"
        " from {lake}conversations.messages",
    )
    assert counted["messages"] == counted["hashes"] == counted["texts"]
    (missing,) = rows(
        forest,
        "select count(*) as snapshots from {lake}conversations.context_snapshots as snapshots"
        " anti join {lake}conversations.messages as messages using (message_hash)",
    )
    assert missing["snapshots"] == 0


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_any_order_and_any_number_of_builds_make_the_same_forest(
    seed, stack, events, forest, tmp_path
):
    shuffled = [*events, *random.Random(seed).sample(events, len(events) // 5)]
    random.Random(seed).shuffle(shuffled)
    parts = [shuffled[n::3] for n in range(3)]
    with temporary_lakehouse(stack, tmp_path) as lakehouse:
        for part in parts:
            lakehouse.land_events(part)
            lakehouse.build(*CONVERSATIONS)
        assert not differences(tables(lakehouse), tables(forest))
        before = lakehouse.snapshots()
        lakehouse.build(*CONVERSATIONS)
        assert lakehouse.snapshots() == before


def tables(lakehouse):
    """What the conversation models hold, without what tells when and in which load it came."""
    found = {}
    for table, columns in TABLES.items():
        names = rows(lakehouse, f"describe select {columns} from {{lake}}conversations.{table}")
        kept = ", ".join(
            row["column_name"]
            for row in names
            if not row["column_name"].startswith("_") and row["column_name"] != "raw_dlt_id"
        )
        condition = CURRENT.get(table, "")
        found[table] = lakehouse.query(
            f"select {kept} from {{lake}}conversations.{table} {condition} order by all"
        )
    return found


def test_replays_of_one_context_are_one_group_whatever_their_turn_ids(nodes, forest):
    """An earlier system grouped responses by their own turn: every replay was a group of one."""
    group = rows(
        forest,
        "select turn_id, branch_group_id, branch_index, is_original"
        " from {lake}conversations.response_branch_records"
        " where tenant = 'replays of one context' and turn_id <> 't2' order by branch_index",
    )
    assert len({row["branch_group_id"] for row in group}) == 1
    assert [(row["turn_id"], row["branch_index"]) for row in group] == [
        ("t1", 0),
        ("later original", 1),
        ("r1", 2),
        ("r2", 3),
        ("r3", 4),
    ]
    assert [row["is_original"] for row in group] == [True, True, False, False, False]


def test_originals_have_all_that_was_recorded_of_them(forest):
    """An earlier system left model, backend, usage, status, trace and text of originals empty."""
    (run,) = rows(
        forest,
        "select * from {lake}conversations.execution_run_records"
        " where tenant = 'replays of one context' and turn_id = 't1'",
    )
    assert (run["model"], run["backend"], run["model_snapshot_id"]) == ("m", "vllm-a", "m@1")
    assert (run["prompt_tokens"], run["completion_tokens"], run["duration_ms"]) == (7, 3, 500)
    assert (run["status"], run["error"], run["response_text"]) == ("completed", None, "first")
    (trace,) = json.loads(run["tool_trace"])
    assert (trace["tool_call_id"], trace["result"], trace["status"]) == ("c1", "42", "completed")
    (failed,) = rows(
        forest,
        "select * from {lake}conversations.execution_run_records"
        " where tenant = 'an interrupted stream and its retry' and status = 'failed'",
    )
    assert json.loads(failed["error"]) == {"message": "busy"}


def test_a_replay_does_not_take_the_place_of_the_next_original(nodes):
    """An earlier system gave a replay the turn index of the original's next turn."""
    found = named(nodes["replays of one context"])
    assert found["t2"]["depth"] == 1
    assert found["t2"]["sibling_index"] == 0
    assert found["t2"]["branch_kind"] == "continuation"
    originals = [found["t1"], found["later original"]]
    replays = [found["r1"], found["r2"], found["r3"]]
    assert [node["sibling_index"] for node in originals] == [0, 1]
    assert [node["sibling_index"] for node in replays] == [2, 3, 4]
    assert not {n["branch_node_id"] for n in replays} & {n["variant_of_node_id"] for n in originals}


def test_sessions_and_nodes_are_whole(nodes, forest):
    """An earlier system had neither depth nor kind, snapshot, variant or status."""
    sessions = rows(forest, "select * from {lake}conversations.conversation_sessions")
    for session in sessions:
        members = [
            node for node in nodes[session["tenant"]] if node["session_id"] == session["session_id"]
        ]
        assert session["turn_count"] == len({node["turn_key"] for node in members}) > 0
        assert session["root_node_ids"] == sorted(
            node["branch_node_id"] for node in members if node["is_root"]
        )
        assert session["status"] in ("completed", "interrupted", "failed")
    retried = named(nodes["an interrupted stream and its retry"])
    assert retried["t1"]["node_status"] == "interrupted"
    assert retried["f"]["node_status"] == "completed"


def test_attempts_under_one_id_are_one_turn(forest):
    attempts = rows(
        forest,
        "select attempt, status from {lake}conversations.execution_run_records"
        " where tenant = 'an interrupted stream and its retry' and turn_id = 'f' order by attempt",
    )
    assert [(row["attempt"], row["status"]) for row in attempts] == [
        (1, "failed"),
        (2, "completed"),
    ]
    (twice,) = rows(
        forest,
        "select count(*) as runs from {lake}conversations.execution_run_records"
        " where tenant = 'a record delivered twice'",
    )
    assert twice["runs"] == 1


def test_the_latest_record_of_an_attempt_counts_and_what_is_known_before_what_is_not(forest):
    runs = rows(
        forest,
        "select turn_id, attempt, model_snapshot_id from {lake}conversations.execution_run_records"
        " where tenant = 'records that were mended later' order by turn_id",
    )
    assert [tuple(run.values()) for run in runs] == [("t1", 1, "m@2"), ("t2", 1, "m@4")]


def test_what_varies_is_told(nodes):
    found = named(nodes["what differs says the kind"])
    names = {node["branch_node_id"]: name for name, node in found.items()}
    nearest = {name: names.get(node["variant_of_node_id"]) for name, node in found.items()}
    assert nearest == {
        "t1": None,
        "seed": "t1",
        "warm": "seed",
        "other": "warm",
        "tools": "seed",
        "system": "seed",
        "named": "warm",
    }
    seeded = json.loads(found["seed"]["variant_config"])
    assert seeded == {
        "parameters": {"from": {"temperature": 0.2}, "to": {"seed": 5, "temperature": 0.2}}
    }
    assert json.loads(found["other"]["variant_config"])["model"] == {"from": "m", "to": "m2"}
    assert json.loads(found["named"]["variant_config"])["declared"] == {"why": "asked"}
    assert found["seed"]["branch_reason"] == "the same request again"
    assert found["warm"]["branch_reason"] == "differs in sampling"


def test_tasks_are_told_or_found_by_the_rule(forest):
    told = rows(
        forest,
        "select sub_prompt, depends_on, assigned_model, taskify_rule_version, told_by"
        " from {lake}conversations.taskification_results as tasks"
        " inner join {lake}conversations.conversation_branch_nodes as nodes"
        " using (branch_node_id)"
        " where tenant = 'plans' and turn_id = $1 order by task_index",
        "told",
    )
    assert [row["sub_prompt"] for row in told] == ["look", "write"]
    assert told[1]["depends_on"] == ["0"]
    assert {(row["taskify_rule_version"], row["told_by"]) for row in told} == {("v7", "gateway")}
    found = rows(
        forest,
        "select sub_prompt, told_by from {lake}conversations.taskification_results as tasks"
        " inner join {lake}conversations.conversation_branch_nodes as nodes"
        " using (branch_node_id)"
        " where tenant = 'plans' and turn_id = $1 order by task_index",
        "listed",
    )
    assert [row["sub_prompt"] for row in found] == ["read the log", "find the cause"]
    assert {row["told_by"] for row in found} == {"rule"}


def test_flows_are_nodes_and_edges(forest):
    steps = rows(
        forest,
        "select node_id, kind, status from {lake}conversations.flow_nodes"
        " where tenant = 'flows' order by node_id",
    )
    assert [tuple(step.values()) for step in steps] == [
        ("boss", "orchestrator", "completed"),
        ("lookup", "tool", "failed"),
        ("writer", "worker", "started"),
    ]
    edges = rows(
        forest,
        "select from_node_id, to_node_id, kind from {lake}conversations.flow_edges"
        " where tenant = 'flows' order by to_node_id",
    )
    assert [tuple(edge.values()) for edge in edges] == [
        ("boss", "lookup", "tool_call"),
        ("boss", "writer", "delegation"),
    ]


def test_the_sessions_of_the_sample(stack, tmp_path):
    """As somebody worked out by hand, after the day on which a first turn came late."""
    sample = PROJECT_ROOT / "sample_workspace"
    lines = (sample / "expected_branches.jsonl").read_text().splitlines()
    expected = {link["turn_id"]: link for link in map(json.loads, lines)}
    with temporary_lakehouse(stack, tmp_path) as lakehouse:
        for day in ("day_one", "day_two"):
            lakehouse.land("gateway", sample / day / "gateway")
            lakehouse.build(*CONVERSATIONS)
        found = rows(
            lakehouse,
            "select nodes.turn_id, parents.turn_id as parent_turn_id,"
            " parents.choice_index as parent_choice_index, nodes.branch_kind"
            " from {lake}conversations.conversation_branch_nodes as nodes"
            " left join {lake}conversations.conversation_branch_nodes as parents"
            " on nodes.parent_node_id = parents.branch_node_id"
            " where nodes.choice_index = 0",
        )
    names = ("parent_turn_id", "branch_kind")
    shown = {row["turn_id"]: [row[name] for name in names] for row in found}
    assert shown == {turn: [link[name] for name in names] for turn, link in expected.items()}
    choices = {r["turn_id"]: r["parent_choice_index"] for r in found if r["parent_turn_id"]}
    assert choices == {
        turn: link["parent_choice_index"]
        for turn, link in expected.items()
        if link["parent_turn_id"]
    }
