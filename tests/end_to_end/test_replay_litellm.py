"""`loreline replay` through a real LiteLLM proxy, killed and gone on with."""

import dataclasses
import time
from collections import Counter

import pytest

from tests.end_to_end.forest import assistant, chat, system, user
from tests.end_to_end.lakehouse import temporary_lakehouse
from tests.end_to_end.litellm import KEY, litellm_proxy
from tests.end_to_end.test_replay import BUILD, nodes

ANSWERS = 6


@pytest.fixture(scope="module")
def lakehouse(stack, tmp_path_factory):
    folder = tmp_path_factory.mktemp("litellm")
    asked = [system("Be brief."), user("Who owns it?")]
    went_on = [*asked, assistant("Ada does."), user("Since when?")]
    events = [
        chat("one", asked, assistant("Ada does.")),
        chat("two", went_on, assistant("Since May."), at=1),
    ]
    models = {
        "slow": {"mock_response": "Ada, says the slow one.", "mock_delay": 0.4},
        "quick": {"mock_response": "Ada, says the quick one."},
    }
    with (
        litellm_proxy(folder, models) as url,
        temporary_lakehouse(stack, folder) as lakehouse,
    ):
        settings = dataclasses.replace(lakehouse.settings, gateway_url=url, gateway_api_key=KEY)
        lakehouse = dataclasses.replace(lakehouse, settings=settings)
        lakehouse.land_events(events)
        lakehouse.build(*BUILD)
        yield lakehouse


@pytest.mark.soak
def test_a_subtree_is_replayed_by_two_models_in_spite_of_a_kill(lakehouse):
    first = nodes(lakehouse, "s")[0]["branch_node_id"]
    arguments = ["replay", "--node", first, "--subtree", "-n", str(ANSWERS), "--concurrency", "2"]
    arguments += ["--model", "slow", "--model", "quick"]
    step = lakehouse.start("command", arguments=arguments)
    while len(calls(lakehouse)) < 4:
        time.sleep(0.05)
    assert step.kill(0)
    before = calls(lakehouse)

    done = lakehouse.command(*arguments)
    assert done.exit_code == 0, done
    after = calls(lakehouse)
    assert len(after) == 2 * 2 * ANSWERS
    assert before.items() <= after.items(), "what was answered before was not asked again"

    lakehouse.build(*BUILD)
    replays = [node for node in nodes(lakehouse, "s") if node["is_replay"]]
    assert Counter((node["model"], node["depth"]) for node in replays) == {
        (model, depth): ANSWERS for model in ("slow", "quick") for depth in (0, 1)
    }
    said = lakehouse.query(
        "select distinct model, response_text from"
        " {lake}conversations.execution_run_records where is_replay order by model"
    )
    assert said == [
        ("quick", "Ada, says the quick one."),
        ("slow", "Ada, says the slow one."),
    ]
    lakehouse.check_contents()


@pytest.mark.soak
def test_what_the_proxy_does_not_know_is_a_failed_call(lakehouse):
    node = nodes(lakehouse, "s")[0]["branch_node_id"]
    done = lakehouse.command("replay", "--node", node, "--model", "nobody")
    assert done.exit_code == 1
    assert "nobody" in done.output
    refused = dataclasses.replace(lakehouse.settings, gateway_api_key="wrong")
    done = dataclasses.replace(lakehouse, settings=refused).command(
        "replay", "--node", node, "--model", "quick", "-n", str(ANSWERS + 1)
    )
    assert done.exit_code == 1


def calls(lakehouse):
    """Attempt and time of each call that was answered, by its id."""
    rows = lakehouse.execute(
        "select call_id, attempt, called_at from {operations}.replay_calls"
        " where status = 'completed'"
    )
    return {call_id: (attempt, called_at) for call_id, attempt, called_at in rows}
