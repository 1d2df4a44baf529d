"""The same chat calls as other recorders than our gateway write them down."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

Json = dict[str, Any]


def litellm_payload(event: Json, **changes: Any) -> Json:
    """An event `llm.chat.*` as LiteLLM's `StandardLoggingPayload`, with what a proxy adds."""
    data = event["data"]
    request = dict(data["request"])
    start = datetime.fromisoformat(data["started_at"]).timestamp()
    failed = event["type"].endswith("failed")
    headers = {
        f"x-{name.replace('_', '-')}": data[name]
        for name in ("session_id", "theme_id", "parent_turn_id", "branch_kind")
        if data.get(name)
    }
    return {
        "id": f"chatcmpl-{data['turn_id']}",
        "litellm_call_id": data["turn_id"],
        "trace_id": "made-up-for-this-call",
        "session_id": "",
        "call_type": "acompletion",
        "stream": False,
        "cache_hit": None,
        "status": "failure" if failed else "success",
        "custom_llm_provider": "openai",
        "startTime": start,
        "endTime": start + data["duration_ms"] / 1000,
        "completionStartTime": start,
        "model": "openai/" + request["model"],
        "model_group": request.pop("model"),
        "model_map_information": {"model_map_key": "m", "model_map_value": {"mode": "chat"}},
        "metadata": {
            "user_api_key_team_id": data["tenant"],
            "requester_metadata": {"headers": headers | {"user-agent": "x"}, "project": "p"},
            "requester_custom_headers": headers,
        },
        "response_cost": 0.00022,
        "prompt_tokens": data["response"]["usage"]["prompt_tokens"],
        "completion_tokens": data["response"]["usage"]["completion_tokens"],
        "request_tags": ["a"],
        "end_user": "somebody",
        "messages": request.pop("messages"),
        "response": {} if failed else {"id": f"chatcmpl-{data['turn_id']}", **data["response"]},
        "model_parameters": request,
        "error_str": "overloaded" if failed else None,
        "error_information": {"error_code": "529", "error_class": "Overloaded"} if failed else {},
        **changes,
    }


def otlp_export(events: Iterable[Json], *others: Json, service: str = "shop") -> Json:
    """Events `llm.chat.*` as one OTLP export of GenAI spans, beside other spans."""
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": attributes({"service.name": service})},
                "scopeSpans": [
                    {"scope": {"name": "genai"}, "spans": [*map(chat_span, events), *others]}
                ],
            }
        ]
    }


def chat_span(event: Json, *, as_text: bool = True) -> Json:
    """One call as a GenAI client span; content as JSON text, or as OTLP's own values."""
    data, request = event["data"], event["data"]["request"]
    system = [m for m in request["messages"] if m["role"] == "system"]
    said = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": request["model"],
        "gen_ai.conversation.id": data["session_id"],
        "gen_ai.input.messages": [otel_message(m) for m in request["messages"] if m not in system],
        "gen_ai.output.messages": [
            otel_message(c["message"]) | {"finish_reason": "stop"}
            for c in data["response"]["choices"]
        ],
        "gen_ai.usage.input_tokens": data["response"]["usage"]["prompt_tokens"],
        "gen_ai.usage.output_tokens": data["response"]["usage"]["completion_tokens"],
    }
    if system:
        said["gen_ai.system_instructions"] = [{"type": "text", "content": system[0]["content"]}]
    if request.get("temperature") is not None:
        said["gen_ai.request.temperature"] = request["temperature"]
    if request.get("tools"):
        offered = [{"type": "function", **tool["function"]} for tool in request["tools"]]
        said["gen_ai.tool.definitions"] = offered
    if as_text:
        said = {k: json.dumps(v) if isinstance(v, list) else v for k, v in said.items()}
    failed = event["type"].endswith("failed")
    return span(
        f"chat {request['model']}",
        said | ({"error.type": "overloaded"} if failed else {}),
        identity=data["turn_id"],
        start=data["started_at"],
        milliseconds=data["duration_ms"],
        status={"code": 2, "message": "overloaded"} if failed else {},
    )


def span(
    name: str,
    said: Json,
    *,
    identity: str = "s",
    parent: str = "",
    start: str = "2026-10-01T09:00:00+00:00",
    milliseconds: int = 500,
    status: Json | None = None,
) -> Json:
    """A span of one trace, which lasts some milliseconds."""
    began = int(datetime.fromisoformat(start).timestamp() * 1_000_000) * 1000
    return {
        "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
        "spanId": hashlib.sha256(identity.encode()).hexdigest()[:16],
        "parentSpanId": parent,
        "name": name,
        "kind": 3,
        "startTimeUnixNano": str(began),
        "endTimeUnixNano": str(began + milliseconds * 1_000_000),
        "attributes": attributes(said),
        "status": status or {},
    }


def attributes(said: Json) -> list[Json]:
    """Attributes in OTLP's JSON."""
    return [{"key": name, "value": any_value(value)} for name, value in said.items()]


def any_value(value: Any) -> Json:
    """A value in OTLP's JSON: 64-bit integers are texts."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [any_value(item) for item in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": attributes(value)}}
    return {"stringValue": value or ""}


def otel_message(message: Json) -> Json:
    """A chat message as the GenAI conventions write it."""
    if message["role"] == "tool":
        part = {"type": "tool_call_response", "id": message["tool_call_id"]}
        return {"role": "tool", "parts": [part | {"response": message["content"]}]}
    parts = [{"type": "text", "content": message["content"]}] if message["content"] else []
    for call in message.get("tool_calls") or []:
        function = call["function"]
        part = {"type": "tool_call", "id": call["id"], "name": function["name"]}
        parts.append(part | {"arguments": json.loads(function["arguments"])})
    return {"role": message["role"], "parts": parts}
