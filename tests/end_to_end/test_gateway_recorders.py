"""Conversations recorded by a real LiteLLM proxy, and by three recorders at once."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
from contextlib import contextmanager

import httpx2
import openai
import pytest
import uvicorn

from loreline.inbox.work import Worker, land
from loreline.web.app import create_app
from tests.end_to_end.forest import assistant, chat, user
from tests.end_to_end.lakehouse import temporary_lakehouse
from tests.end_to_end.litellm import KEY, litellm_proxy
from tests.end_to_end.test_replay import BUILD
from tests.simulators.recorders import litellm_payload, otlp_export
from tests.unit.test_gateway_shapes import CONVERSATION

ANSWER = "Ada, says the mock."
ASKED = [user("Who owns it?"), assistant(ANSWER), user("Since when?")]
CALLS = 5
TOKEN = "the-events-token"
POSTED_WITH = {"Authorization": f"Bearer {TOKEN}"}
POSTED = (
    "select coalesce(sum(jsonb_array_length(convert_from(body, 'UTF8')::jsonb)), 0)"
    " from {operations}.inbox"
)


@pytest.fixture(scope="module")
def lakehouse(stack, tmp_path_factory):
    """What the proxy posted, and one conversation by each recorder; built once."""
    folder = tmp_path_factory.mktemp("recorders")
    with temporary_lakehouse(stack, folder) as made:
        settings = dataclasses.replace(
            made.settings, events_token=TOKEN, event_inbox_table="pipeline_event_inbox"
        )
        lakehouse = dataclasses.replace(made, settings=settings)
        regenerated = chat(
            "t5", CONVERSATION[1]["data"]["request"]["messages"], assistant("Nowhere."), at=40
        )
        conversation = [*CONVERSATION, regenerated]
        mock = {"mock": {"mock_response": ANSWER}}
        with service(settings) as address:
            with litellm_proxy(folder, mock, f"{address}/events", POSTED_WITH) as url:
                converse(url, lakehouse)
            posted = httpx2.post(
                f"{address}/v1/traces", json=otlp_export(conversation), headers=POSTED_WITH
            )
            assert posted.status_code == 200
        by_litellm = [event | {"data": event["data"] | {"tenant": "u"}} for event in conversation]
        lakehouse.land_events([*conversation, *map(litellm_payload, by_litellm)])
        assert Worker(settings, land).step()
        lakehouse.build(*BUILD)
        yield lakehouse


@contextmanager
def service(settings):
    """`loreline serve`, which stores what is posted; gives its address."""
    app = create_app(settings, [])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def converse(url, lakehouse):
    """A first turn, a second one twice, one that streams, and one that fails.

    Each is waited for: what LiteLLM records while it posts is lost to it.
    """
    headers = {"x-session-id": "live", "x-theme-id": "owners"}
    with openai.OpenAI(base_url=url, api_key=KEY, default_headers=headers, max_retries=0) as client:
        ask = client.chat.completions.create
        ask(model="mock", messages=ASKED[:1], temperature=0.5)
        wait_for_records(lakehouse, 1)
        for records in (2, 3):
            ask(model="mock", messages=ASKED)
            wait_for_records(lakehouse, records)
        streamed = [*ASKED, assistant(ANSWER), user("And before?")]
        said = ask(model="mock", messages=streamed, stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in said if c.choices) == ANSWER
        wait_for_records(lakehouse, 4)
        with pytest.raises(openai.APIStatusError):
            ask(model="nobody", messages=ASKED[:1])
        wait_for_records(lakehouse, CALLS)


def wait_for_records(lakehouse, count):
    until = time.monotonic() + 60
    while (posted := lakehouse.execute(POSTED)[0][0]) < count:
        assert time.monotonic() < until, f"LiteLLM posted {posted} records"
        time.sleep(0.1)


def test_what_a_real_proxy_posts_is_one_event_a_call(lakehouse):
    rows = lakehouse.query(
        "select event_type, session_id, count(distinct turn_id) from {lake}staging"
        ".stg_gateway__events where event_source = 'litellm' and session_id = 'live'"
        " group by all order by all"
    )
    assert rows == [("llm.chat.completed", "live", 4), ("llm.chat.failed", "live", 1)]
    assert lakehouse.command("ingest", "gateway").exit_code == 0
    assert lakehouse.query("select count(*) from {lake}raw_gateway.events") == [(CALLS + 15,)]


def test_its_calls_become_a_conversation(lakehouse):
    rows = lakehouse.query(
        "select depth, branch_kind, theme_id, model, node_status from"
        " {lake}conversations.conversation_branch_nodes where session_id = 'live'"
        " and not is_replay order by depth, started_at"
    )
    assert [row[:2] for row in rows if row[4] != "failed"] == [
        (0, "root"),
        (1, "continuation"),
        (1, "retry"),
        (2, "continuation"),
    ]
    assert {row[2:] for row in rows if row[4] != "failed"} == {("owners", "mock", "completed")}
    answers = lakehouse.query(
        "select runs.status, runs.response_text, runs.prompt_tokens > 0, runs.completion_tokens > 0"
        " from {lake}conversations.execution_run_records as runs"
        " inner join {lake}conversations.conversation_branch_nodes as nodes"
        " on runs.branch_node_id = nodes.branch_node_id"
        " where nodes.session_id = 'live' group by all order by all"
    )
    assert ("completed", ANSWER, True, True) in answers
    assert "failed" in {status for status, *_ in answers}


def test_three_recorders_of_a_conversation_make_the_same_forest(lakehouse):
    forests = {
        tenant: lakehouse.query(
            "select nodes.depth, nodes.choice_index, nodes.branch_kind, nodes.sibling_index,"
            " nodes.match, nodes.request_hash, parents.request_hash"
            " from {lake}conversations.conversation_branch_nodes as nodes"
            " left join {lake}conversations.conversation_branch_nodes as parents"
            " on nodes.parent_node_id = parents.branch_node_id"
            " where nodes.session_id = 's' and nodes.tenant = $1"
            " order by nodes.started_at, nodes.choice_index",
            tenant,
        )
        for tenant in ("t", "u", "")
    }
    assert len(forests["t"]) >= 5
    assert forests["u"] == forests["t"]
    assert forests[""] == forests["t"]
