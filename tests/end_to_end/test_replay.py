"""`loreline replay` and `session new`, against an OpenAI-compatible server."""

import dataclasses
import json
import time
from collections import Counter

import pytest

from tests.end_to_end.forest import assistant, call, chat, event, system, tool, user
from tests.end_to_end.lakehouse import replace_in, temporary_lakehouse
from tests.simulators.chat_completions import Refusal, called, chat_completions, last_text, said

BUILD = (
    *(
        "--changed",
        "--select",
        "+tag:conversations",
        "lineage_copies",
        "model_prices",
        "seed_themes",
    ),
    *("--exclude-resource-type", "unit_test"),
)
TOOLS = [{"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}]
CALL = call("call_1", "search", '{"query": "owner"}')
# Each test has a session of its own.
SESSIONS = [
    *("beside", "changed", "same tools", "no tools", "other tools", "many", "failing", "costly"),
    *("killed", "recorded", "denied", "hostile\nsession: ünïcode", "alone", "odd", "lost"),
]


def conversation(session, theme=None):
    """Five turns: a tool call, its result, two questions more, and another answer to the first."""
    about = {"session": session, "theme_id": theme, "tenant": "t"}
    settings = {"tools": TOOLS, "temperature": 0.2, "n": 1, "seed": 7}
    asked = [system("Be brief."), user(f"{session}: who owns it?")]
    looked = [*asked, assistant(None, tool_calls=[CALL]), tool("call_1", "Ada")]
    told = [*looked, assistant("Ada does."), user("Since when?")]
    ended = [*told, assistant("Since May."), user("Thanks!")]
    for turn, (messages, answer) in enumerate(
        [
            (asked, assistant(None, tool_calls=[CALL])),
            (looked, assistant("Ada does.")),
            (told, assistant("Since May.")),
            (ended, assistant("You are welcome.")),
            (told, assistant("Since June.")),
        ]
    ):
        yield chat(f"{session}-{turn}", messages, answer, at=turn, request=settings, **about)


def branches():
    """A question that was answered twice, by calls for different things."""
    about = {"session": "branches", "tenant": "t"}
    yield chat("branches", [user("hello")], assistant("hi"), **about)
    asked = [user("hello"), assistant("hi"), user("find it")]
    for number, name in enumerate(["one", "two"], start=1):
        looked = call("c", "search", json.dumps({"query": name}))
        answer = assistant(None, tool_calls=[looked])
        yield chat(f"branches-{number}", asked, answer, at=number, **about)
        found = [*asked, answer, tool("c", f"found {name}")]
        yield chat(f"branches-{number}-on", found, assistant("done"), at=10 + number, **about)


@pytest.fixture(scope="module")
def built(stack, tmp_path_factory):
    events = [event for session in SESSIONS for event in conversation(session)]
    events += branches()
    events += [event for n in range(2) for event in conversation(f"themed-{n}", "plans")]
    with temporary_lakehouse(stack, tmp_path_factory.mktemp("replay")) as lakehouse:
        replace_in(
            lakehouse.project / "seeds" / "model_prices.csv",
            "qwen2.5-7b-instruct,0.05,0.1",
            "priced,1000,2000",
        )
        lakehouse.land_events(events)
        lakehouse.build(*BUILD)
        yield lakehouse


@pytest.fixture
def model():
    """A server, which a test makes answer as it needs."""
    with chat_completions() as simulator:
        yield simulator


@pytest.fixture
def lakehouse(built, model):
    settings = dataclasses.replace(
        built.settings, gateway_url=model.url, gateway_api_key="secret-key"
    )
    return dataclasses.replace(built, settings=settings)


def nodes(lakehouse, session):
    """The nodes of a session, originals by their turn's number, replays in their order."""
    names = ["branch_node_id", "turn_id", "branch_kind", "is_replay", "parent_node_id", "match"]
    names += ["sibling_index", "model", "request_hash", "node_status", "depth", "_batch"]
    rows = lakehouse.query(
        f"select {', '.join(names)} from {{lake}}conversations.conversation_branch_nodes"
        f" where session_id = '{session}' order by is_replay, started_at, turn_id"
    )
    return [dict(zip(names, row, strict=True)) for row in rows]


def replay(lakehouse, node, *arguments, exit_code=0):
    """Run the command for a node; gives what it printed as JSON."""
    done = lakehouse.command(
        "replay", "--node", node["branch_node_id"], *arguments, "--json", "--concurrency", "1"
    )
    assert done.exit_code == exit_code, done
    return json.loads(done.output) if done.output else done.errors


def called_for(requests):
    """The calls of requests; their keys end in the number of the attempt."""
    return [request.headers["idempotency-key"].rpartition("-")[0] for request in requests]


def contents_of(request):
    return [message["content"] for message in request.body["messages"]]


def test_answers_stand_beside_the_original_in_one_group(lakehouse, model):
    originals = nodes(lakehouse, "beside")
    done = replay(lakehouse, originals[2], "--model", "other", "-n", "2")
    assert done["calls"] == {"completed": 2}
    assert done["landed"] == 2

    for request in model.requests:
        assert request.headers["authorization"] == "Bearer secret-key"
        assert request.headers["x-session-id"] == "beside"
        assert request.headers["x-parent-turn-id"] == "beside-1"
        assert request.headers["x-context-anchor-turn-id"] == "beside-2"
        assert json.loads(request.headers["x-variant-config"]) == {"model": "other"}
        assert request.headers["x-replay"].startswith("replay-")
        settings = {k: v for k, v in request.body.items() if k not in ("messages", "tools")}
        assert settings.pop("seed") in (7, 8), "another answer is not the same one again"
        assert settings == {"model": "other", "temperature": 0.2, "n": 1}
        assert request.body["tools"] == TOOLS
        assert contents_of(request) == [
            *("Be brief.", "beside: who owns it?", None, "Ada", "Ada does.", "Since when?")
        ]
        offered = request.body["messages"][2]["tool_calls"][0]
        assert json.loads(offered["function"]["arguments"]) == {"query": "owner"}
        assert request.body["messages"][3]["tool_call_id"] == offered["id"]
    assert len({request.headers["x-replay"] for request in model.requests}) == 2

    lakehouse.build(*BUILD)
    found = nodes(lakehouse, "beside")
    assert found[:5] == originals, "a replay changes nothing of the originals"
    for replayed in found[5:]:
        assert replayed["is_replay"]
        assert replayed["parent_node_id"] == originals[2]["parent_node_id"]
        assert replayed["match"] == "explicit"
        assert replayed["request_hash"] == originals[2]["request_hash"]
        assert replayed["model"] == "other"
    # The first has another model than what it repeats; the second is nearest to the first.
    assert [n["branch_kind"] for n in found[5:]] == ["sampling_variant", "retry"]
    group = lakehouse.query(
        "select branch_index, is_original, model from {lake}conversations.response_branch_records"
        " where branch_group_id = (select branch_group_id"
        "   from {lake}conversations.response_branch_records"
        f"   where branch_node_id = '{originals[2]['branch_node_id']}')"
        " order by branch_index"
    )
    assert group == [(0, True, "m"), (1, True, "m"), (2, False, "other"), (3, False, "other")]
    lakehouse.check_contents()


def test_what_is_asked_otherwise(lakehouse, model, tmp_path):
    (tmp_path / "system.txt").write_text("Be long.")
    (tmp_path / "tools.json").write_text(json.dumps([{"type": "function", "name": "other"}]))
    node = nodes(lakehouse, "changed")[0]
    replay(lakehouse, node, "--temperature", "0.9", "--top-p", "0.5", "--max-tokens", "40")
    replay(lakehouse, node, "--tools", str(tmp_path / "tools.json"))
    replay(lakehouse, node, "--system", str(tmp_path / "system.txt"))
    sampled, offered, told = model.requests
    assert (sampled.body["temperature"], sampled.body["top_p"]) == (0.9, 0.5)
    assert (sampled.body["max_tokens"], sampled.body["model"]) == (40, "m")
    assert offered.body["tools"] == [{"type": "function", "name": "other"}]
    assert contents_of(told) == ["Be long.", "changed: who owns it?"]
    anchors = [request.headers.get("x-context-anchor-turn-id") for request in model.requests]
    assert anchors == ["changed-0", "changed-0", None], "with another system's text, no anchor"

    lakehouse.build(*BUILD)
    kinds = [n["branch_kind"] for n in nodes(lakehouse, "changed") if n["is_replay"]]
    assert kinds == ["sampling_variant", "tool_variant", "prompt_variant"]


def test_later_turns_follow_with_the_same_results_of_the_same_calls(lakehouse, model):
    def answer(body):
        if last_text(body).endswith("who owns it?"):
            return called("search", query="owner")
        return said(f"new answer to {last_text(body)}")

    model.answer = answer
    originals = nodes(lakehouse, "same tools")
    done = replay(lakehouse, originals[0], "--subtree")
    # The question that was asked twice is asked once.
    assert done["calls"] == {"completed": 4}
    assert [contents_of(request)[2:] for request in model.requests] == [
        [],
        [None, "Ada"],
        [None, "Ada", "new answer to Ada", "Since when?"],
        [
            *(None, "Ada", "new answer to Ada", "Since when?"),
            *("new answer to Since when?", "Thanks!"),
        ],
    ]
    headers = [request.headers for request in model.requests]
    assert [h.get("x-context-anchor-turn-id") for h in headers] == ["same tools-0"] + [None] * 3

    lakehouse.build(*BUILD)
    replays = [n for n in nodes(lakehouse, "same tools") if n["is_replay"]]
    assert [n["depth"] for n in replays] == [0, 1, 2, 3]
    ids = [n["branch_node_id"] for n in replays]
    assert [n["parent_node_id"] for n in replays] == [None, *ids[:-1]]
    # Nothing is asked again, also now that the answers are part of the forest.
    assert replay(lakehouse, originals[0], "--subtree")["calls"] == {"known": 4}
    assert len(model.requests) == 4


def test_where_no_tool_is_called_the_next_question_follows(lakehouse, model):
    done = replay(lakehouse, nodes(lakehouse, "no tools")[0], "--subtree")
    assert done["calls"] == {"completed": 3}
    assert [contents_of(request)[-1] for request in model.requests] == [
        *("no tools: who owns it?", "Since when?", "Thanks!")
    ]


def test_where_other_tools_are_called_it_stops(lakehouse, model):
    model.answer = lambda body: called("search", query="something else")
    done = replay(lakehouse, nodes(lakehouse, "other tools")[0], "--subtree")
    assert done["calls"] == {"completed": 1}
    assert done["stopped"] == {"an answer calls tools, and what they would give is not known": 3}


def test_each_branch_goes_on_with_the_results_of_its_own_calls(lakehouse, model):
    """Two answers to one question, which looked for different things, each with what it found."""
    model.answer = lambda body: (
        called("search", query="two") if "find it" in last_text(body) else said("done")
    )
    done = replay(lakehouse, nodes(lakehouse, "branches")[0], "--subtree")
    assert done["calls"] == {"completed": 3}
    assert done["stopped"] == {"an answer calls tools, and what they would give is not known": 1}
    assert contents_of(model.requests[2])[-1] == "found two"


def test_what_is_named_twice_is_asked_once(lakehouse, model):
    node = nodes(lakehouse, "odd")[0]
    arguments = ["--model", "twice", "--model", "twice", "--node", node["branch_node_id"]]
    assert replay(lakehouse, node, *arguments)["calls"] == {"completed": 1}


@pytest.mark.soak
def test_odd_answers_are_kept_and_end_nothing(lakehouse, model):
    node = nodes(lakehouse, "odd")[1]

    def asked(name, answer, exit_code=0):
        model.answer = lambda body: answer
        return replay(lakehouse, node, "--model", name, exit_code=exit_code)

    deep = json.loads("[" * 300 + "]" * 300)
    assert asked("roleless", {"content": "hm"})["calls"] == {"completed": 1}
    assert asked("not a number", {**said("hm"), "p": float("nan")})["calls"] == {"completed": 1}
    for name, answer in (("nothing", None), ("deep", called("search", query=deep))):
        done = asked(name, answer, exit_code=1)
        assert done["calls"] == {"failed": 1}
        assert "gave no answer" in next(iter(done["errors"]))
        assert done["tokens"] > 0, "it was paid for"
    forbidden = asked("forbidden", Refusal(403, "not this model"), exit_code=1)
    assert forbidden["calls"] == {"failed": 1}


@pytest.mark.soak
def test_nothing_is_asked_with_half_of_its_context(lakehouse, model):
    node = nodes(lakehouse, "lost")[2]
    lakehouse.execute(
        "delete from {lineage}.context_snapshots where depth = 1 and context_snapshot_id in ("
        " select history.context_snapshot_id from {lineage}.conversation_branch_nodes as nodes,"
        " lateral {lineage}.history(nodes.context_snapshot_id) as history"
        " where nodes.branch_node_id = %s)",
        node["branch_node_id"],
    )
    assert "Postgres lacks messages of history" in replay(lakehouse, node, exit_code=1)
    assert not model.requests
    lakehouse.build("build", "--select", "lineage_copies", "--full-refresh")
    assert replay(lakehouse, node)["calls"] == {"completed": 1}


@pytest.mark.soak
def test_so_many_answers_there_should_be_and_so_many_calls_at_once(lakehouse, model):
    model.delay = 0.2
    node = nodes(lakehouse, "many")[1]["branch_node_id"]

    def ask(n):
        done = lakehouse.command("replay", "--node", node, "-n", str(n), "--concurrency", "3")
        assert done.exit_code == 0, done
        return len(model.requests)

    assert [ask(2), ask(2), ask(8), ask(8)] == [2, 2, 8, 8]
    assert 1 < model.most_at_once <= 3


@pytest.mark.soak
def test_failures_that_pass_are_retried_and_others_recorded(lakehouse, model):
    node = nodes(lakehouse, "failing")[1]
    busy = iter([Refusal(429, "slow down", {"retry-after": "0"}), Refusal(500, "oops")])
    model.answer = lambda body: next(busy, said("here"))
    assert replay(lakehouse, node)["calls"] == {"completed": 1}
    assert len(model.requests) == 3
    assert len({request.headers["idempotency-key"] for request in model.requests}) == 1

    model.answer = lambda body: Refusal(400, "too long")
    done = replay(lakehouse, node, "--model", "short", exit_code=1)
    assert done["calls"] == {"failed": 1}
    assert "too long" in next(iter(done["errors"]))
    model.answer = lambda body: said("after all")
    assert replay(lakehouse, node, "--model", "short")["calls"] == {"completed": 1}

    lakehouse.build(*BUILD)
    attempts = lakehouse.query(
        "select attempt, status, response_text from {lake}conversations.execution_run_records"
        " where model = 'short' order by attempt"
    )
    assert attempts == [(1, "failed", None), (2, "completed", "after all")]
    (replayed,) = (n for n in nodes(lakehouse, "failing") if n["model"] == "short")
    assert replayed["node_status"] == "completed"


def test_a_budget_is_kept_before_and_while_it_runs(lakehouse, model):
    node = nodes(lakehouse, "costly")[1]
    # 7 tokens were read and 3 written: 13 thousandths of a dollar.
    for limit in (["--budget", "0.012"], ["--token-budget", "9"]):
        said_so = replay(lakehouse, node, "--model", "priced", *limit, exit_code=1)
        assert "more than" in said_so
        assert limit[0] in said_so
    unpriced = replay(lakehouse, node, "--model", "unknown", "--budget", "1", exit_code=1)
    assert "nobody knows what unknown costs: add it to seeds/model_prices.csv" in unpriced
    assert not model.requests
    # The first answer takes more than all three were expected to.
    model.answer = lambda body: said("long " * 100)
    done = replay(lakehouse, node, "--model", "priced", "-n", "3", "--budget", "0.04", exit_code=1)
    assert done["calls"] == {"completed": 1, "over_budget": 2}
    assert done["cost"] > 0.04
    assert len(model.requests) == 1

    planned = replay(lakehouse, node, "--model", "priced", "-n", "3", "--dry-run")["called"]
    assert [call["reason"] for call in planned] == ["answered before", "replayed", "replayed"]
    assert [call["cost"] for call in planned] == [0.013] * 3
    assert len(model.requests) == 1


def test_killed_it_goes_on_without_paying_again(lakehouse, model):
    model.delay = 0.3
    node = nodes(lakehouse, "killed")[0]["branch_node_id"]
    arguments = ["replay", "--node", node, "--subtree", "-n", "5", "--concurrency", "3"]
    step = lakehouse.start("command", arguments=arguments)
    while len(model.requests) < 7:
        time.sleep(0.01)
    assert step.kill(0)
    answered = {
        key for (key,) in lakehouse.execute("select call_id from {operations}.replay_calls")
    }
    before = called_for(model.requests)
    assert 0 < len(answered & set(before)) < len(before)

    done = lakehouse.command(*arguments)
    assert done.exit_code == 0, done
    after = called_for(model.requests[len(before) :])
    assert not answered & set(after), "what was answered is not asked again"
    assert Counter(after).most_common(1)[0][1] == 1
    assert len(set(before + after)) == 15, "three turns of five trajectories"
    lakehouse.build(*BUILD)
    replays = [n for n in nodes(lakehouse, "killed") if n["is_replay"]]
    assert Counter(n["depth"] for n in replays) == {0: 5, 1: 5, 2: 5}


def test_a_gateway_that_records_is_told_the_place_and_nothing_lands_from_here(lakehouse, model):
    model.turn_ids = True
    settings = dataclasses.replace(lakehouse.settings, gateway_records="true")
    records = dataclasses.replace(lakehouse, settings=settings)
    done = replay(records, nodes(lakehouse, "recorded")[1], "--subtree")
    assert done["calls"] == {"completed": 3}
    assert done["landed"] == 0
    parents = [request.headers["x-parent-turn-id"] for request in model.requests]
    assert parents == ["recorded-0", "turn-1", "turn-2"]


def test_who_cannot_be_asked(lakehouse, model):
    node = nodes(lakehouse, "denied")[1]
    model.answer = lambda body: Refusal(401, "who are you")
    said_so = replay(lakehouse, node, exit_code=1)
    assert "refused the credentials" in said_so
    assert "check LORELINE_GATEWAY_API_KEY" in said_so
    assert "secret-key" not in said_so
    nowhere = dataclasses.replace(lakehouse.settings, gateway_url="http://127.0.0.1:9/v1")
    missing = dataclasses.replace(lakehouse.settings, gateway_url="")
    for settings, complaint in ((nowhere, "nothing answers at"), (missing, "LORELINE_GATEWAY_URL")):
        other = dataclasses.replace(lakehouse, settings=settings)
        assert complaint in replay(other, node, "--retries", "0", exit_code=1)
    assert "no node x to replay" in lakehouse.command("replay", "--node", "x").errors
    assert "give --node ID" in lakehouse.command("replay").errors
    model.answer = lambda body: said("now")
    assert replay(lakehouse, node)["calls"] == {"completed": 1}


def test_ids_from_outside_cannot_add_headers(lakehouse, model):
    replay(lakehouse, nodes(lakehouse, "hostile\nsession: ünïcode")[0])
    (request,) = model.requests
    assert request.headers["x-session-id"] == "hostile%0Asession: %C3%BCn%C3%AFcode"
    assert "session" not in request.headers


def test_a_set_of_themes(lakehouse, model, tmp_path):
    (tmp_path / "set.yaml").write_text(
        "themes: [plans]\nnodes: leaves\nmodels: [a, b]\n"
        "parameters: [{temperature: 0}, {temperature: 1}]\n"
    )
    arguments = ["replay", "--set", str(tmp_path / "set.yaml"), "--json"]
    planned = json.loads(lakehouse.command(*arguments, "--dry-run").output)["called"]
    # Each of the two sessions ends in two nodes: the last turn, and the other answer.
    assert len(planned) == 2 * 2 * 2 * 2
    done = lakehouse.command(*arguments)
    assert json.loads(done.output)["calls"] == {"completed": 16}
    asked = Counter((r.body["model"], r.body["temperature"]) for r in model.requests)
    assert asked == {("a", 0): 4, ("a", 1): 4, ("b", 0): 4, ("b", 1): 4}
    assert {r.headers["x-theme-id"] for r in model.requests} == {"plans"}


def test_only_one_replay_at_a_time(lakehouse, model):
    model.delay = 1.0
    node = nodes(lakehouse, "alone")[1]
    first = lakehouse.start("command", arguments=["replay", "--node", node["branch_node_id"]])
    while not model.requests:
        time.sleep(0.01)
    assert "another replay is running" in replay(lakehouse, node, exit_code=1)
    assert first.result().exit_code == 0


def test_what_postgres_holds_is_compared_and_mended(lakehouse):
    lakehouse.execute("update {lineage}.messages set content = 'a lie' where content = 'Ada'")
    lakehouse.execute("delete from {lineage}.context_snapshots where depth = 1")
    drifted = {each.name: each for each in lakehouse.contents() if each.has_drifted}
    assert drifted.keys() == {"lineage.messages", "lineage.context_snapshots"}
    assert drifted["lineage.messages"].different == 1
    shown = lakehouse.command("contents")
    assert shown.exit_code == 1
    assert "--select lineage_copies --full-refresh" in shown.output
    lakehouse.build("build", "--select", "lineage_copies", "--full-refresh")
    lakehouse.check_contents()


@pytest.mark.soak
def test_what_would_be_rebuilt(lakehouse):
    def planned():
        done = lakehouse.command("replay", "--plan", "--json")
        assert done.exit_code == 0, done
        rebuilt = json.loads(done.output)["rebuilt"]
        # This lakehouse holds nothing but conversations.
        return {each["start"]: each for each in rebuilt if "seeds/" not in each["reason"]}

    lakehouse.build(*BUILD)
    known = next(conversation("alone"))
    known["data"]["model_snapshot_id"] = "another"
    tasks = event("taskification.completed", 0, turn_id="alone-0", tasks=[{"sub_prompt": "x"}])
    lakehouse.land_events([known, tasks])
    found = planned()
    assert found.keys() == {"execution_run_records", "stg_gateway__tasks"}
    assert {"conversation_branch_nodes", "taskification_results"} <= set(
        found["stg_gateway__tasks"]["models"]
    )
    assert "known attempts" in found["execution_run_records"]["reason"]
    assert "messages" not in found["execution_run_records"]["models"]
    lakehouse.build(*BUILD)
    assert planned() == {}


def test_a_session_is_begun_under_a_theme(lakehouse):
    done = lakehouse.command("session", "new", "--theme", "support-drafts", "--json")
    headers = json.loads(done.output)
    assert headers["x-theme-id"] == "support-drafts"
    again = json.loads(
        lakehouse.command("session", "new", "--theme", "support-drafts", "--json").output
    )
    assert again["x-session-id"] != headers["x-session-id"]
    printed = lakehouse.command("session", "new", "--theme", "support-drafts").output.splitlines()
    assert [line.split(": ")[0] for line in printed] == ["x-session-id", "x-theme-id"]
    unknown = lakehouse.command("session", "new", "--theme", "nothing")
    assert unknown.exit_code == 1
    assert "there is no active theme nothing" in unknown.errors
