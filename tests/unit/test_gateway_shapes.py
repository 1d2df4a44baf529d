"""Records of LiteLLM and spans of OpenTelemetry: the same events as our gateway's own."""

import json
from collections import Counter
from datetime import UTC, datetime

import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dlt_sources.gateway.chat import choices, messages
from dlt_sources.gateway.shapes import events, observed, problem_of
from dlt_sources.gateway.values import instant
from dlt_sources.json_files import parse
from dlt_sources.quarantine import Reject
from loreline.contracts.odcs import contract_of
from loreline.conversations.requests import RequestReader
from loreline.settings import Settings
from tests.end_to_end.forest import assistant, call, chat, system, tool, user
from tests.simulators.recorders import (
    any_value,
    attributes,
    chat_span,
    litellm_payload,
    otel_message,
    otlp_export,
    span,
)

NOW = datetime(2026, 10, 1, tzinfo=UTC)
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
CALLS = assistant(None, tool_calls=[call("c1", "look", '{"at":"a"}'), call("c2", "look")])
CONVERSATION = [
    chat(
        "t1", [system("Be brief."), user("Who?")], assistant("Ada."), request={"temperature": 0.5}
    ),
    chat(
        "t2",
        [system("Be brief."), user("Who?"), assistant("Ada."), user("Where?")],
        CALLS,
        at=10,
        request={"tools": TOOLS},
    ),
    chat(
        "t3",
        [
            *(system("Be brief."), user("Who?"), assistant("Ada."), user("Where?"), CALLS),
            *(tool("c2", "nowhere"), tool("c1", "here")),
        ],
        assistant("Here."),
        assistant("Nowhere."),
        at=20,
        request={"tools": TOOLS},
    ),
    chat("t4", [user("Hello?")], at=30, kind="failed"),
]
# What the forest is made of: all that a request says, but for who recorded it and how.
OF_THE_RECORDER = {
    *("raw_dlt_id", "event_key", "event_id", "turn_id", "parameters", "sampling_hash", "error"),
    *("model_snapshot_id", "backend", "tenant"),
}


def read(value, passed_over=None):
    raw = value if isinstance(value, bytes) else orjson.dumps(value)
    return list(observed(raw, "f:1", NOW, passed_over=passed_over))


def requests(recorded):
    """The rows that conversations are made of, by what is said in them."""
    reader = RequestReader()
    rows = reader.table((str(n), "k" * 64, json.dumps(e)) for n, e in enumerate(recorded))
    return [
        {name: value for name, value in row.items() if name not in OF_THE_RECORDER}
        for row in rows.to_pylist()
    ]


def without_choice_order(rows):
    for row in rows:
        for choice in row["choices"]:
            choice.pop("finish_reason")
            choice.pop("tool_calls")
    return rows


def test_a_conversation_is_the_same_whoever_recorded_it():
    told = without_choice_order(requests(CONVERSATION))
    assert len(told) == 4 and not any(row["problem"] for row in told)
    by_litellm = requests(events([litellm_payload(event) for event in CONVERSATION]))
    assert without_choice_order(by_litellm) == told
    by_spans = requests(events(otlp_export(CONVERSATION)))
    assert without_choice_order(by_spans) == told
    export = otlp_export([])
    of_scope = export["resourceSpans"][0]["scopeSpans"][0]
    of_scope["spans"] = [chat_span(event, as_text=False) for event in CONVERSATION]
    assert without_choice_order(requests(events(export))) == told


def test_all_that_litellm_tells_is_kept():
    told = litellm_payload(
        chat("t1", [user("Who?")], assistant("Ada."), theme_id="people", parent_turn_id="t0"),
        cache_hit=True,
        saved_cache_cost=0.1,
        guardrail_information=[{"guardrail_name": "g"}],
    )
    [event] = events(told)
    assert (event["source"], event["type"], event["subject"]) == (
        "litellm",
        "llm.chat.completed",
        "s",
    )
    assert event["time"] == "2026-10-01T09:00:00.500000+00:00"
    data = event["data"]
    expected = {
        "turn_id": "t1",
        "session_id": "s",
        "tenant": "t",
        "theme_id": "people",
        "parent_turn_id": "t0",
        "backend": "openai",
        "started_at": "2026-10-01T09:00:00+00:00",
        "duration_ms": 500,
        "status": "completed",
        "cost": 0.00022,
        "cache_hit": True,
        "tags": ["a"],
        "end_user": "somebody",
        "metadata": {"project": "p"},
    }
    assert {name: data[name] for name in expected} == expected
    assert data["request"]["model"] == "m"
    assert data["response"]["usage"] == {"prompt_tokens": 7, "completion_tokens": 3}
    rest = data["litellm"]
    assert rest["saved_cache_cost"] == 0.1
    assert rest["guardrail_information"] == [{"guardrail_name": "g"}]
    assert rest["model"] == "openai/m"
    assert rest["trace_id"] == "made-up-for-this-call"


@pytest.mark.parametrize(
    ("metadata", "others", "session"),
    [
        ({"requester_custom_headers": {"X-Session-Id": "h"}}, {"session_id": "p"}, "h"),
        ({"requester_metadata": {"headers": {"x-session-id": "h"}}}, {}, "h"),
        ({}, {"session_id": "p"}, "p"),
        ({"requester_custom_headers": {"x-litellm-session-id": "l"}}, {}, "l"),
        ({"requester_metadata": {"session_id": "c"}}, {}, "c"),
        ({"spend_logs_metadata": {"session_id": "c"}}, {}, "c"),
        ('{"session_id": "c"}', {}, "c"),
        ({}, {"end_user": "user_1_account_2_session_0a-b"}, "0a-b"),
        ({}, {"trace_id": "t"}, None),
    ],
)
def test_a_session_is_found_wherever_litellm_puts_it(metadata, others, session):
    told = litellm_payload(CONVERSATION[0], metadata=metadata, **others)
    [event] = events(told)
    assert event["subject"] == event["data"].get("session_id") == session


def test_replays_are_told_by_their_headers():
    headers = {
        "x-replay": "run",
        "x-variant-config": '{"model":"b"}',
        "x-context-anchor-turn-id": "a",
    }
    [event] = events(
        litellm_payload(CONVERSATION[0], metadata={"requester_custom_headers": headers})
    )
    data = event["data"]
    assert (data["is_replay"], data["context_anchor_turn_id"]) == ("run", "a")
    assert data["variant_config"] == {"model": "b"}


def test_failed_and_interrupted_calls_are_events():
    [failed] = events(litellm_payload(CONVERSATION[3]))
    assert failed["type"] == "llm.chat.failed"
    assert failed["data"]["error"] == {
        "error_code": "529",
        "error_class": "Overloaded",
        "error_str": "overloaded",
    }
    left = {"error_code": "499", "error_message": "Client disconnected the request"}
    [interrupted] = events(
        litellm_payload(CONVERSATION[0], status="failure", error_information=left)
    )
    assert interrupted["type"] == "llm.chat.interrupted"
    assert interrupted["data"]["response"]["choices"]
    of_spans = events(otlp_export(CONVERSATION))
    assert [event["type"].rpartition(".")[2] for event in of_spans] == [
        *["completed"] * 3,
        "failed",
    ]
    assert of_spans[3]["data"]["error"] == {"type": "overloaded", "message": "overloaded"}
    cut = chat_span(CONVERSATION[0])
    cut["attributes"] += attributes({"error.type": "asyncio.CancelledError"})
    assert events(otlp_export([], cut))[0]["type"] == "llm.chat.interrupted"


def test_calls_that_are_no_chats_have_no_history():
    [event] = events(litellm_payload(CONVERSATION[0], call_type="aembedding"))
    assert event["type"] == "llm.call.completed"
    assert event["data"]["call_type"] == "aembedding"
    embedding = span("embeddings m", {"gen_ai.operation.name": "embeddings"})
    assert events(otlp_export([], embedding))[0]["type"] == "llm.call.completed"


def test_ids_may_repeat_or_be_missing():
    same = litellm_payload(CONVERSATION[0], id=None, litellm_call_id=None)
    later = same | {"startTime": same["startTime"] + 1, "endTime": same["endTime"] + 1}
    first, second = read([same, later])
    assert first.external_id != second.external_id
    assert first.payload["data"].get("turn_id") is None
    [again] = read(same)
    assert again.external_id == first.external_id, "by itself or in a list"


def test_redacted_content_makes_no_history():
    redacted = [{"role": "user", "content": "redacted-by-litellm"}]
    answer = {"choices": [{"message": {"role": "assistant", "content": "redacted-by-litellm"}}]}
    [event] = events(litellm_payload(CONVERSATION[0], messages=redacted, response=answer))
    assert event["data"]["request"].get("messages") is None
    assert event["data"]["response"]["choices"] == []
    assert event["data"]["litellm"]["messages"] == redacted


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Hi", [user("Hi")]),
        ('[{"role": "user", "content": "Hi"}]', [user("Hi")]),
        ({"messages": [user("Hi")]}, [user("Hi")]),
        (user("Hi"), [user("Hi")]),
        (["Hi"], [user("Hi")]),
        ([], None),
        ("", None),
        ({}, None),
        (None, None),
        (7, None),
        ([user("Hi"), 7], None),
        ([user("Hi"), {"content": "no role"}], None),
        # OpenAI's Responses API.
        (
            [
                {
                    "type": "message",
                    "role": "user",
                    "content": [{"type": "input_text", "text": "Hi"}],
                },
                {"type": "reasoning", "summary": []},
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "Wait."}],
                },
                {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
                {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "1"},
            ],
            [
                user("Hi"),
                assistant("Wait.", tool_calls=[call("c1", "f"), call("c2", "g")]),
                tool("c1", "1"),
            ],
        ),
        # Anthropic's blocks.
        (
            [
                user([{"type": "text", "text": "Hi"}]),
                assistant(
                    [
                        {"type": "text", "text": "Wait."},
                        {"type": "tool_use", "id": "c1", "name": "f", "input": {}},
                    ]
                ),
                user(
                    [
                        {
                            "type": "tool_result",
                            "tool_use_id": "c1",
                            "content": [{"type": "text", "text": "1"}],
                        },
                        {"type": "text", "text": "And?"},
                    ]
                ),
            ],
            [
                user([{"type": "text", "text": "Hi"}]),
                assistant("Wait.", tool_calls=[call("c1", "f")]),
                tool("c1", "1"),
                user("And?"),
            ],
        ),
        # OpenTelemetry's parts.
        (
            [
                {
                    "role": "user",
                    "parts": [
                        {"type": "text", "content": "What is it?"},
                        {"type": "uri", "modality": "image", "uri": "https://e.org/a.png"},
                        {
                            "type": "blob",
                            "modality": "image",
                            "mime_type": "image/png",
                            "content": "QQ",
                        },
                        {"type": "file", "file_id": "f1"},
                    ],
                },
                {
                    "role": "assistant",
                    "parts": [
                        {"type": "reasoning", "content": "Hm."},
                        {"type": "tool_call", "id": "c1", "name": "f", "arguments": {}},
                    ],
                },
                {
                    "role": "tool",
                    "parts": [{"type": "tool_call_response", "id": "c1", "result": {"a": 1}}],
                },
            ],
            [
                user(
                    [
                        {"type": "text", "text": "What is it?"},
                        {"type": "image_url", "image_url": {"url": "https://e.org/a.png"}},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ"}},
                        {"type": "file", "file": {"file_id": "f1"}},
                    ]
                ),
                assistant([{"type": "reasoning", "content": "Hm."}], tool_calls=[call("c1", "f")]),
                tool("c1", '{"a":1}'),
            ],
        ),
    ],
)
def test_messages_of_every_vendor_are_chat_messages(value, expected):
    assert messages(value) == expected


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("Ada.", ["Ada."]),
        ({"choices": [{"message": {"content": "Ada."}}, {"text": "Eve."}]}, ["Ada.", "Eve."]),
        ([{"message": assistant("Ada.")}], ["Ada."]),
        ({"message": assistant("Ada."), "done_reason": "stop"}, ["Ada."]),
        ({"role": "assistant", "content": [{"type": "text", "text": "Ada."}]}, ["Ada."]),
        (
            {
                "output": [
                    {"type": "reasoning"},
                    {
                        "type": "message",
                        "role": "assistant",
                        "content": [{"type": "output_text", "text": "Ada."}],
                    },
                ]
            },
            ["Ada."],
        ),
        ({"choices": ["Ada."]}, ["Ada."]),
        ({}, []),
        (None, []),
        ("", []),
        (7, []),
        ({"error": "x"}, []),
    ],
)
def test_responses_of_every_vendor_have_choices(value, texts):
    found = choices(value)
    said = [choice["message"]["content"] for choice in found]
    assert [s if isinstance(s, str) else s[0]["text"] for s in said] == texts
    assert all(choice["message"]["role"] == "assistant" for choice in found)


def test_spans_of_tools_and_agents():
    chats = CONVERSATION[1]
    asked = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "look"}
    answered = asked | {
        "gen_ai.tool.call.id": "c1",
        "gen_ai.tool.call.arguments": '{"at":"a"}',
        "gen_ai.tool.call.result": "here",
    }
    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "guide"}
    passed_over = Counter()
    export = otlp_export(
        [chats],
        span("execute_tool look", answered, identity="x", parent="a1"),
        span("invoke_agent guide", agent, identity="y"),
        span("invoke_agent guide", agent, identity="z", parent="a1", status={"code": 2}),
        span("GET /", {"http.request.method": "GET"}),
    )
    found = [item.payload for item in read(export, passed_over)]
    assert passed_over == {"spans": 1}
    assert [event["type"] for event in found] == [
        "llm.chat.completed",
        "llm.tool.completed",
        "flow.node.completed",
        "flow.node.failed",
    ]
    used, begun, worked = (event["data"] for event in found[1:])
    assert used["turn_id"] == found[0]["data"]["turn_id"], "the chat that asked for it"
    assert (used["tool_call_id"], used["name"], used["result"]) == ("c1", "look", "here")
    assert used["arguments"] == {"at": "a"}
    assert begun["kind"] == "orchestrator" and "parent_node_ids" not in begun
    assert worked["kind"] == "worker" and worked["parent_node_ids"] == ["a1"]


def test_content_may_be_in_an_event_of_the_span_or_in_numbered_attributes():
    of_call = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
    content = {
        "gen_ai.input.messages": json.dumps([otel_message(user("Who?"))]),
        "gen_ai.output.messages": json.dumps([otel_message(assistant("Ada."))]),
    }
    in_event = span("chat m", of_call) | {
        "events": [
            {"name": "gen_ai.client.inference.operation.details", "attributes": attributes(content)}
        ]
    }
    numbered = span(
        "chat m",
        of_call
        | {
            "gen_ai.prompt.0.role": "user",
            "gen_ai.prompt.0.content": "Who?",
            "gen_ai.completion.0.content": "Ada.",
            "gen_ai.completion.0.finish_reason": "stop",
            "gen_ai.usage.prompt_tokens": 3,
        },
    )
    for event in events(otlp_export([], in_event, numbered)):
        data = event["data"]
        assert data["request"]["messages"] == [user("Who?")]
        assert [c["message"]["content"] for c in data["response"]["choices"]] == ["Ada."]
    assert data["response"]["usage"] == {"prompt_tokens": 3}


def test_what_is_in_the_place_of_a_span_and_is_none_is_set_aside():
    export = {"resourceSpans": [7, {"scopeSpans": [{"spans": ["x", chat_span(CONVERSATION[0])]}]}]}
    found = read(export)
    assert sorted(type(item).__name__ for item in found) == ["Observation", "Reject", "Reject"]


def test_a_body_may_be_lines():
    lines = [orjson.dumps(CONVERSATION[0]), b"", b"broken", orjson.dumps(CONVERSATION[1])]
    found = read(b"\n".join(lines))
    assert [type(item).__name__ for item in found] == ["Observation", "Reject", "Observation"]
    assert [found[0].raw, found[1].raw] == [lines[0], b"broken"]
    [whole] = read(json.dumps(CONVERSATION[0], indent=2).encode())
    assert whole.external_id == found[0].external_id


def test_lists_are_told_apart_item_by_item():
    mixed = [CONVERSATION[0], litellm_payload(CONVERSATION[1]), otlp_export(CONVERSATION[2:]), 7]
    found = read(mixed)
    assert [type(item).__name__ for item in found] == [*["Observation"] * 4, "Reject"]
    [alone] = read(CONVERSATION[0])
    assert alone.external_id == found[0].external_id


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1790683200.5, datetime(2026, 9, 29, 12, 0, 0, 500000, tzinfo=UTC)),
        ("1790683200.5", datetime(2026, 9, 29, 12, 0, 0, 500000, tzinfo=UTC)),
        ("2025-01-24 09:20:46.847371", datetime(2025, 1, 24, 9, 20, 46, 847371, tzinfo=UTC)),
        ("2025-01-24T09:20:46+02:00", datetime(2025, 1, 24, 7, 20, 46, tzinfo=UTC)),
        ("noon", None),
        (1e300, None),
        (-1e300, None),
        (True, None),
        (None, None),
        ([], None),
    ],
)
def test_times_are_seconds_or_words(value, expected):
    assert instant(value) == expected


def test_recorded_payloads_of_litellm(real_data):
    for name in ("standard_logging_payload", "spend_logs_payload"):
        [found] = read((real_data / "gateway" / f"{name}.json").read_bytes())
        event = found.payload
        assert event["type"] == "llm.chat.completed"
        assert event["data"]["started_at"] == "2025-01-24T09:20:46.847371+00:00"
        assert event["data"]["response"]["usage"]["completion_tokens"] == 20
        if name == "standard_logging_payload":
            assert event["data"]["request"]["messages"] == [user("Hello, world!")]
            assert not requests([event])[0]["problem"]
        else:
            assert event["subject"] == "1234567890"


FIELDS = sorted({*litellm_payload(CONVERSATION[0]), "error_information", "cache_hit", "spend"})
NAMES = [
    *("role", "content", "type", "parts", "tool_calls", "id", "name", "choices", "output"),
    *("message", "messages", "key", "value", "stringValue", "arrayValue", "values", "a"),
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["[", "{}", '[{"role":"user"}]', '{"a":"\\u0000"}', "completed", "message"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES) | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
GEN_AI = st.sampled_from(
    [
        *("gen_ai.operation.name", "gen_ai.input.messages", "gen_ai.output.messages"),
        *("gen_ai.system_instructions", "gen_ai.tool.call.id", "gen_ai.prompt.0.role"),
        *("gen_ai.completion.1.tool_calls.0.name", "gen_ai.response.finish_reasons"),
        *("gen_ai.usage.x", "error.type", "session.id"),
    ]
)
SPANS = st.fixed_dictionaries(
    {},
    optional={
        "traceId": JSON,
        "spanId": JSON,
        "parentSpanId": JSON,
        "startTimeUnixNano": JSON,
        "endTimeUnixNano": JSON,
        "status": JSON,
        "events": JSON,
        "attributes": JSON
        | st.dictionaries(GEN_AI, JSON, max_size=5).map(
            lambda said: [{"key": k, "value": any_value(v)} for k, v in said.items()]
        ),
    },
)


@hypothesis_settings(max_examples=300)
@given(changes=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6))
def test_no_record_of_litellm_is_lost(changes):
    found = read(litellm_payload(CONVERSATION[0], **changes))
    assert_events(found, 1)


@hypothesis_settings(max_examples=300)
@given(spans=st.lists(SPANS | JSON, max_size=3))
def test_no_span_is_lost(spans):
    passed_over = Counter()
    found = read(otlp_export([], *spans), passed_over)
    assert_events(found, len(spans) - passed_over["spans"])


def assert_events(found, count):
    """Each is an event that our contract and the reader of requests take, or set aside."""
    if len(found) == 1 and isinstance(found[0], Reject) and found[0].reason == "nul_byte":
        return
    assert len(found) == count
    # What it is made into could have been landed as it is.
    kept = [landable(item.payload) for item in found if not isinstance(item, Reject)]
    assert not any(map(problem_of, kept))
    for event in kept:
        for name, kinds in TYPES.items():
            value = event["data"].get(name)
            assert value is None or isinstance(value, kinds), (name, value)
    chats = [event for event in kept if event["type"].startswith("llm.chat.")]
    assert len(requests(chats)) == len(chats)


def landable(payload):
    """Parsed once more; only what is nested too deep is left to the landing to set aside."""
    try:
        return parse(orjson.dumps(payload))
    except TypeError:
        return payload


def _types():
    kinds = {
        "string": (str,),
        "object": (dict,),
        "array": (list,),
        "integer": (int,),
        "number": (int, float),
        "boolean": (bool,),
    }
    contract = contract_of(Settings(), "gateway", "events")
    assert contract is not None
    told = yaml.safe_load(contract.file.read_text())
    data = next(p for p in told["schema"][0]["properties"] if p["name"] == "data")
    found = {}
    for each in data["properties"]:
        custom = {c["property"]: c["value"] for c in each.get("customProperties", [])}
        names = custom.get("jsonTypes", [each["logicalType"]])
        found[each["name"]] = tuple(kind for name in names for kind in kinds[name])
    return found


TYPES = _types()
