"""Spans of OpenTelemetry's GenAI conventions as events, from OTLP in its JSON encoding.

https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding and
https://github.com/open-telemetry/semantic-conventions-genai
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from dlt_sources.gateway import chat
from dlt_sources.gateway.values import (
    embedded,
    mapping,
    milliseconds,
    number,
    text,
    without_nothing,
)

Json = Any

SOURCE = "opentelemetry"

_CHATS = {"chat", "text_completion", "generate_content"}
_STEPS = {"invoke_workflow": "orchestrator", "invoke_agent": "worker"}
_TOOL = "execute_tool"
_INTERRUPTED = re.compile(r"cancel|disconnect|aborted|^499$", re.IGNORECASE)
_ERROR_STATUS = {2, "2", "STATUS_CODE_ERROR"}
_PARAMETERS = {
    "gen_ai.request.choice.count": "n",
    "gen_ai.request.frequency_penalty": "frequency_penalty",
    "gen_ai.request.max_tokens": "max_tokens",
    "gen_ai.request.presence_penalty": "presence_penalty",
    "gen_ai.request.reasoning.level": "reasoning_effort",
    "gen_ai.request.seed": "seed",
    "gen_ai.request.stop_sequences": "stop",
    "gen_ai.request.stream": "stream",
    "gen_ai.request.temperature": "temperature",
    "gen_ai.request.top_k": "top_k",
    "gen_ai.request.top_p": "top_p",
}
# As instrumentations write it that record the client's headers.
_HEADERS = {
    "x-theme-id": "theme_id",
    "x-parent-turn-id": "parent_turn_id",
    "x-context-anchor-turn-id": "context_anchor_turn_id",
    "x-branch-kind": "branch_kind",
    "x-replay": "is_replay",
}
_CALL = re.compile(r"tool_calls\.(\d{1,4})\.(id|name|arguments)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_TIME = 2**63


@dataclass(frozen=True, slots=True)
class Span:
    """A span of a language model, a tool or an agent.

    Attributes:
        said: the span as received, with its scope and resource.
        attributes: its own, and those of its events that speak of the whole call.
        resource: attributes of what recorded it.
    """

    said: dict[str, Json]
    attributes: dict[str, Json]
    resource: dict[str, Json]

    @property
    def operation(self) -> str:
        """What was done; a span that names a model and does not say so is a chat."""
        return text(self.attributes.get("gen_ai.operation.name")) or "chat"

    @property
    def identity(self) -> str | None:
        """Its trace and itself."""
        span = text(self._span.get("spanId"))
        return f"{self.trace}:{span}" if span and self.trace else span

    @property
    def times(self) -> tuple[datetime | None, datetime | None]:
        """When it began and ended."""
        return _time(self._span.get("startTimeUnixNano")), _time(self._span.get("endTimeUnixNano"))

    @property
    def milliseconds(self) -> int | None:
        """How long it took."""
        return milliseconds(*self.times)

    @property
    def trace(self) -> str | None:
        """Its trace."""
        return text(self._span.get("traceId"))

    @property
    def parent(self) -> str | None:
        """The span around it; none around the first of a trace."""
        return text(self._span.get("parentSpanId"))

    @property
    def _span(self) -> Mapping[str, Json]:
        return self.said["span"]

    def attribute(self, name: str) -> Json:
        """An attribute, of which JSON may be the text."""
        return embedded(self.attributes.get(name))


@dataclass
class Export:
    """The spans of one ExportTraceServiceRequest.

    Attributes:
        spans: those of language models, tools and agents.
        passed_over: how many others there are.
        broken: what is in the place of a span and is none.
    """

    spans: list[Span] = field(default_factory=list)
    passed_over: int = 0
    broken: list[Json] = field(default_factory=list)


def is_export(value: Json) -> bool:
    """Whether a JSON value is an ExportTraceServiceRequest."""
    return isinstance(value, dict) and "resourceSpans" in value


def read(value: Mapping[str, Json]) -> Export:
    """The spans of a request."""
    export = Export()
    for of_resource in _objects(value, "resourceSpans", export):
        described = of_resource.get("resource")
        for of_scope in _objects(of_resource, "scopeSpans", export):
            for span in _objects(of_scope, "spans", export):
                _add(export, span, of_scope.get("scope"), described)
    return export


def events(spans: Sequence[Span]) -> Iterator[dict[str, Json]]:
    """The event of each span."""
    turns = _turns(spans) if any(span.operation == _TOOL for span in spans) else {}
    for span in spans:
        if span.operation in _CHATS:
            yield _event(span, "llm.chat", _chat(span))
        elif span.operation == _TOOL:
            yield _event(span, "llm.tool", _tool(span, turns))
        elif span.operation in _STEPS:
            yield _event(span, "flow.node", _step(span))
        else:
            yield _event(span, "llm.call", {"call_type": span.operation})


def _objects(parent: Mapping[str, Json], name: str, export: Export) -> Iterator[Mapping[str, Json]]:
    """The objects in a list; what is in their place and is none is broken."""
    listed = parent.get(name)
    if listed is None:
        return
    for item in listed if isinstance(listed, list) else [listed]:
        if isinstance(item, dict):
            yield item
        else:
            export.broken.append(item)


def _add(export: Export, span: Mapping[str, Json], scope: Json, resource: Json) -> None:
    attributes = _attributes(span)
    for event in span.get("events") if isinstance(span.get("events"), list) else ():
        of_event = _attributes(event)
        attributes |= {
            name: value
            for name, value in of_event.items()
            if name.startswith(("gen_ai.", "exception.")) and name not in attributes
        }
    if not any(name.startswith("gen_ai.") for name in attributes):
        export.passed_over += 1
        return
    said = {"span": dict(span), "scope": scope, "resource": resource}
    export.spans.append(Span(without_nothing(said), attributes, _attributes(resource)))


def _event(span: Span, kind: str, data: dict[str, Json]) -> dict[str, Json]:
    start, end = span.times
    at = end or start
    status, error = _outcome(span)
    if kind != "llm.chat" and status == "interrupted":
        status = "failed"
    service = text(span.resource.get("service.name"))
    session = _session(span)
    return {
        "specversion": "1.0",
        "id": span.identity,
        "source": f"{SOURCE}/{service}" if service else SOURCE,
        "type": f"{kind}.{status}",
        "time": at.isoformat() if at else None,
        "subject": session,
        "data": without_nothing(
            {
                "session_id": session,
                **data,
                "started_at": start.isoformat() if start else None,
                "duration_ms": span.milliseconds,
                "status": status,
                "error": error,
                "opentelemetry": _rest(span, data),
            }
        ),
    }


def _chat(span: Span) -> dict[str, Json]:
    attribute = span.attribute
    asked = _messages(span)
    instructions = attribute("gen_ai.system_instructions")
    if asked and instructions:
        asked = [{"role": "system", "content": chat.content(_list(instructions))}, *asked]
    model, answered_by = (text(attribute(f"gen_ai.{n}.model")) for n in ("request", "response"))
    request = {
        "model": model or answered_by,
        "messages": asked,
        "tools": [_offered(tool) for tool in _list(attribute("gen_ai.tool.definitions"))] or None,
        **{
            name: value
            for attribute_name, name in _PARAMETERS.items()
            if (value := attribute(attribute_name)) is not None
        },
    }
    usage = {
        "prompt_tokens": _tokens(span, "input", "prompt"),
        "completion_tokens": _tokens(span, "output", "completion"),
    }
    response = {
        "id": text(attribute("gen_ai.response.id")),
        "model": answered_by,
        "choices": _choices(span),
        "usage": without_nothing(usage),
    }
    return {
        "turn_id": span.identity,
        **{name: _header(span, header) for header, name in _HEADERS.items()},
        "request": {"messages": None, **without_nothing(request)},
        "response": without_nothing(response),
        "model_snapshot_id": answered_by if answered_by != model else None,
        "backend": text(attribute("gen_ai.provider.name") or attribute("gen_ai.system")),
    }


def _messages(span: Span) -> list[chat.Message] | None:
    given = span.attribute("gen_ai.input.messages")
    return chat.messages(given if given is not None else _numbered(span, "gen_ai.prompt"))


def _choices(span: Span) -> list[Json]:
    given = span.attribute("gen_ai.output.messages")
    reasons = _list(span.attribute("gen_ai.response.finish_reasons"))
    return chat.answers(
        given if given is not None else _numbered(span, "gen_ai.completion"), reasons
    )


def _numbered(span: Span, prefix: str) -> list[Json] | None:
    """Messages in attributes of their own, as `gen_ai.prompt.0.role`: older than the conventions.

    https://www.traceloop.com/docs/openllmetry/contributing/semantic-conventions
    """
    found: dict[int, dict[str, Json]] = {}
    calls: dict[int, dict[int, dict[str, Json]]] = {}
    for name, value in span.attributes.items():
        if not name.startswith(f"{prefix}."):
            continue
        place, _, key = name.removeprefix(f"{prefix}.").partition(".")
        if not place.isdecimal():
            continue
        message = found.setdefault(int(place), {"role": "assistant"})
        if match := _CALL.fullmatch(key):
            calls.setdefault(int(place), {}).setdefault(int(match[1]), {})[match[2]] = value
        elif key in ("role", "content", "finish_reason", "tool_call_id"):
            message[key] = embedded(value) if key == "content" else text(value)
    for place, of_message in calls.items():
        found[place]["tool_calls"] = [
            chat.call(*(of_message[n].get(key) for key in ("id", "name", "arguments")))
            for n in sorted(of_message)
        ]
    return [found[place] for place in sorted(found)] or None


def _tool(span: Span, turns: Mapping[tuple[str, str], str]) -> dict[str, Json]:
    attribute = span.attribute
    call_id = text(attribute("gen_ai.tool.call.id"))
    return {
        "turn_id": turns.get((span.trace or "", call_id or "")),
        "tool_call_id": call_id,
        "name": text(attribute("gen_ai.tool.name")),
        "arguments": _text_or_object(attribute("gen_ai.tool.call.arguments")),
        "result": attribute("gen_ai.tool.call.result"),
    }


def _step(span: Span) -> dict[str, Json]:
    attribute = span.attribute
    kind = _STEPS[span.operation] if span.parent else "orchestrator"
    return {
        "flow_id": span.trace,
        "node_id": text(span.said["span"].get("spanId")),
        "parent_node_ids": [span.parent] if span.parent else None,
        "kind": kind,
        "name": text(attribute("gen_ai.agent.name") or attribute("gen_ai.workflow.name")),
        "model": text(attribute("gen_ai.request.model")),
    }


def _turns(spans: Sequence[Span]) -> dict[tuple[str, str], str]:
    """Which chat asked for a call of a tool, by trace and call."""
    return {
        (span.trace or "", call["id"]): span.identity
        for span in spans
        if span.operation in _CHATS and span.identity
        for choice in _choices(span)
        for call in choice["message"].get("tool_calls") or ()
        if isinstance(call, dict) and isinstance(call.get("id"), str) and call["id"]
    }


def _outcome(span: Span) -> tuple[str, Json]:
    """How it ended, and the error if it did so with one."""
    status = mapping(span.said["span"].get("status"))
    error = without_nothing(
        {
            "type": text(span.attributes.get("error.type"))
            or text(span.attributes.get("exception.type")),
            "message": text(status.get("message"))
            or text(span.attributes.get("exception.message")),
        }
    )
    if status.get("code") not in _ERROR_STATUS and not span.attributes.get("error.type"):
        return "completed", None
    if any(_INTERRUPTED.search(str(said)) for said in error.values()):
        return "interrupted", error
    return "failed", error or None


def _session(span: Span) -> str | None:
    return (
        _header(span, "x-session-id")
        or text(span.attributes.get("gen_ai.conversation.id"))
        or text(span.attributes.get("session.id"))
    )


def _header(span: Span, name: str) -> str | None:
    given = span.attributes.get(f"http.request.header.{name}")
    return text(given[0]) if isinstance(given, list) and given else text(given)


def _tokens(span: Span, name: str, older_name: str) -> Json:
    given = span.attributes.get(f"gen_ai.usage.{name}_tokens")
    if given is None:
        given = span.attributes.get(f"gen_ai.usage.{older_name}_tokens")
    return number(given)


def _offered(tool: Json) -> Json:
    """A tool on offer as chat completions write it."""
    if not isinstance(tool, dict) or tool.get("type") != "function" or "function" in tool:
        return tool
    return {"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}}


def _rest(span: Span, data: Mapping[str, Json]) -> dict[str, Json]:
    """What else the span says; content that is not understood is among it."""
    said = span.said["span"]
    about = {name: said.get(name) for name in ("traceId", "spanId", "parentSpanId", "name", "kind")}
    scope = mapping(span.said.get("scope"))
    taken = {*_PARAMETERS}
    if mapping(data.get("request")).get("messages"):
        taken |= {"gen_ai.input.messages", "gen_ai.system_instructions"}
    if mapping(data.get("response")).get("choices"):
        taken.add("gen_ai.output.messages")
    return without_nothing(
        {
            **about,
            "scope": text(scope.get("name")),
            "resource": span.resource,
            "attributes": {
                name: value
                for name, value in span.attributes.items()
                if name not in taken and not name.startswith("http.request.header.")
            },
        }
    )


def _text_or_object(value: Json) -> Json:
    return value if value is None or isinstance(value, str | dict) else str(value)


def _list(value: Json) -> list[Json]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _attributes(holder: Json) -> dict[str, Json]:
    """The attributes of a span, an event or a resource as plain values."""
    listed = holder.get("attributes") if isinstance(holder, dict) else None
    return _pairs(listed)


def _pairs(listed: Json) -> dict[str, Json]:
    return {
        pair["key"]: _value(pair.get("value"))
        for pair in (listed if isinstance(listed, list) else ())
        if isinstance(pair, dict) and isinstance(pair.get("key"), str)
    }


def _value(given: Json) -> Json:
    """An AnyValue as a plain one; a 64-bit integer is written as text."""
    if not isinstance(given, dict) or len(given) != 1:
        return given
    [(kind, value)] = given.items()
    if kind == "intValue":
        return _integer(value)
    if kind == "arrayValue":
        return [_value(item) for item in _list(mapping(value).get("values"))]
    if kind == "kvlistValue":
        return _pairs(mapping(value).get("values"))
    return value


def _integer(value: Json) -> Json:
    try:
        return int(value) if isinstance(value, str) and len(value) <= 20 else value
    except ValueError:
        return value


def _time(nanoseconds: Json) -> datetime | None:
    """Nanoseconds of Unix time, which JSON has as text; zero is not known."""
    moment = _integer(nanoseconds)
    if isinstance(moment, bool) or not isinstance(moment, int) or not 0 < moment < _LONGEST_TIME:
        return None
    return _EPOCH + timedelta(microseconds=moment // 1000)
