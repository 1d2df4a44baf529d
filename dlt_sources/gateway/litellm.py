"""LiteLLM's records of calls as events: `StandardLoggingPayload`, and rows of its spend logs.

https://docs.litellm.ai/docs/proxy/logging_spec
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dlt_sources.gateway import chat
from dlt_sources.gateway.values import (
    embedded,
    flag,
    instant,
    mapping,
    milliseconds,
    number,
    text,
    without_nothing,
)

Json = Any

SOURCE = "litellm"

# What the client said of the place of a call in its conversation.
_HEADERS = {
    "x-theme-id": "theme_id",
    "x-parent-turn-id": "parent_turn_id",
    "x-context-anchor-turn-id": "context_anchor_turn_id",
    "x-branch-kind": "branch_kind",
}
# Calls that are no chats: they have no history to go on from.
_CHATS = re.compile(r"a?(text_)?completion|a?responses|anthropic_messages|a?generate_content.*")
_STATUS = {"success": "completed", "failure": "failed"}
_CLIENT_LEFT = "499"
# Content that LiteLLM was told not to record.
_REDACTED = "redacted-by-litellm"
_SECRET = re.compile(r"key|token|secret|auth|cookie|password|credential", re.IGNORECASE)
# A client may name its session within its user, as Claude Code does.
_SESSION_OF_USER = re.compile(r"_session_([\w-]+)$")
# Said elsewhere in the event, or of no call in particular: the list of prices has a thousand words.
_TAKEN = {
    *("id", "request_id", "session_id", "litellm_call_id", "status", "startTime", "endTime"),
    *("model", "model_group", "messages", "response", "model_parameters", "metadata", "stream"),
    *("custom_llm_provider", "error_str", "error_information", "response_cost", "spend"),
    *("cache_hit", "request_tags", "end_user", "model_map_information"),
    *("prompt_tokens", "completion_tokens", "total_tokens", "proxy_server_request", "api_key"),
}
_NOT_SENT = {"messages", "model", "api_key", "extra_headers", "headers", "metadata"}


def is_payload(value: Json) -> bool:
    """Whether a JSON value is one of LiteLLM's records."""
    return (
        isinstance(value, dict)
        and "call_type" in value
        and "startTime" in value
        and "specversion" not in value
    )


def event(payload: Mapping[str, Json]) -> dict[str, Json]:
    """The event of one record. Failed calls are events, too."""
    metadata = mapping(payload.get("metadata"))
    client = mapping(metadata.get("requester_metadata"))
    headers = _headers(payload, metadata, client)
    started, ended = instant(payload.get("startTime")), instant(payload.get("endTime"))
    status = _status(payload)
    call_type = text(payload.get("call_type")) or ""
    session = _session(payload, metadata, client, headers)
    request, unread = _request(payload)
    response, unanswered = _response(payload)
    at = ended or started
    data = {
        # The id of a response repeats where it came from a cache.
        "turn_id": text(payload.get("litellm_call_id")),
        "session_id": session,
        "tenant": text(metadata.get("user_api_key_team_id") or metadata.get("user_api_key_org_id")),
        **{name: headers.get(h) or text(client.get(name)) for h, name in _HEADERS.items()},
        "variant_config": _variant(headers.get("x-variant-config")),
        "is_replay": headers.get("x-replay"),
        "request": request,
        "response": response,
        "backend": text(payload.get("custom_llm_provider")),
        "started_at": started.isoformat() if started else None,
        "duration_ms": milliseconds(started, ended),
        "status": status,
        "error": _error(payload),
        "call_type": call_type,
        "cost": number(payload.get("response_cost", payload.get("spend"))),
        "cache_hit": flag(payload.get("cache_hit")),
        "tags": _texts(payload.get("request_tags")),
        "end_user": text(payload.get("end_user")),
        "metadata": without_nothing({k: v for k, v in client.items() if k != "headers"}),
        "litellm": _rest(payload, metadata) | unread | unanswered,
    }
    kind = "chat" if _CHATS.fullmatch(call_type) else "call"
    return {
        "specversion": "1.0",
        "id": text(payload.get("id") or payload.get("request_id")),
        "source": SOURCE,
        "type": f"llm.{kind}.{status}",
        "time": at.isoformat() if at else None,
        "subject": session,
        "data": without_nothing(data),
    }


def _headers(
    payload: Mapping[str, Json], metadata: Mapping[str, Json], client: Mapping[str, Json]
) -> dict[str, str]:
    """The client's headers, which one or another edition of LiteLLM records."""
    found: dict[str, str] = {}
    for given in (
        mapping(mapping(payload.get("proxy_server_request")).get("headers")),
        mapping(metadata.get("headers")),
        mapping(client.get("headers")),
        mapping(metadata.get("requester_custom_headers")),
    ):
        found |= {name.lower(): said for name, value in given.items() if (said := text(value))}
    return found


def _session(
    payload: Mapping[str, Json],
    metadata: Mapping[str, Json],
    client: Mapping[str, Json],
    headers: Mapping[str, str],
) -> str | None:
    """The session; `trace_id` is not one, being made up for each call where nobody gives it."""
    of_user = _SESSION_OF_USER.search(text(payload.get("end_user")) or "")
    return (
        headers.get("x-session-id")
        or text(payload.get("session_id"))
        or headers.get("x-litellm-session-id")
        or text(client.get("session_id"))
        or text(metadata.get("session_id"))
        or text(mapping(metadata.get("spend_logs_metadata")).get("session_id"))
        or (of_user[1] if of_user else None)
    )


def _status(payload: Mapping[str, Json]) -> str:
    error = mapping(payload.get("error_information"))
    details = mapping(payload.get("metadata"))
    left = text(error.get("error_code")) == _CLIENT_LEFT or details.get("client_disconnected")
    if left:
        return "interrupted"
    told = _STATUS.get(text(payload.get("status")) or "")
    return told or ("failed" if _error(payload) else "completed")


def _request(payload: Mapping[str, Json]) -> tuple[dict[str, Json], dict[str, Json]]:
    """The request, and what of it could not be read."""
    parameters = mapping(payload.get("model_parameters"))
    asked = mapping(payload.get("proxy_server_request"))
    given = payload.get("messages")
    if not embedded(given):
        given = asked.get("messages") or mapping(asked.get("body")).get("messages")
    messages = None if _is_redacted(given) else chat.messages(given)
    instructions = parameters.get("system") or parameters.get("instructions")
    if messages and instructions:
        messages = [{"role": "system", "content": chat.content(instructions)}, *messages]
    request = {
        "model": text(payload.get("model_group")) or text(payload.get("model")),
        "messages": messages,
        **{
            name: value
            for name, value in parameters.items()
            if name not in _NOT_SENT and not _is_secret(name)
        },
    }
    if flag(payload.get("stream")) is not None:
        request["stream"] = flag(payload.get("stream"))
    return request, {} if messages or not given else {"messages": given}


def _response(payload: Mapping[str, Json]) -> tuple[dict[str, Json], dict[str, Json]]:
    """The response, and what of it could not be read."""
    given = embedded(payload.get("response"))
    answered = [] if _is_redacted(given) else chat.choices(given)
    said = given if isinstance(given, dict) else {}
    usage = {
        **{name: number(payload.get(name)) for name in ("prompt_tokens", "completion_tokens")},
        **mapping(said.get("usage")),
    }
    response = {
        **{name: said[name] for name in ("id", "created", "system_fingerprint") if said.get(name)},
        "model": text(said.get("model")),
        "choices": answered,
        "usage": without_nothing(usage),
    }
    return response, {} if answered or not given else {"response": given}


def _is_redacted(given: Json) -> bool:
    """Whether all content is the word that LiteLLM puts in its place: histories would be equal."""
    if isinstance(given, list):
        said = [item.get("content") for item in given if isinstance(item, dict)]
        return bool(said) and all(content == _REDACTED for content in said)
    if isinstance(given, dict):
        listed = given.get("choices")
        choices = listed if isinstance(listed, list) else []
        said = [choice.get("message") for choice in choices if isinstance(choice, dict)]
        return given.get("text") == _REDACTED or _is_redacted(said)
    return given == _REDACTED


def _error(payload: Mapping[str, Json]) -> Json:
    told = without_nothing(mapping(payload.get("error_information")))
    said = text(payload.get("error_str"))
    if said and said != told.get("error_message"):
        told["error_str"] = said
    return told or None


def _variant(header: str | None) -> dict[str, Json] | None:
    if not header:
        return None
    said = embedded(header)
    return said if isinstance(said, dict) else {"header": header}


def _texts(value: Json) -> list[str] | None:
    value = embedded(value)
    return [said for tag in value if (said := text(tag))] if isinstance(value, list) else None


def _rest(payload: Mapping[str, Json], metadata: Mapping[str, Json]) -> dict[str, Json]:
    """What else the record says, as it says it."""
    prices = mapping(payload.get("model_map_information"))
    about = {k: v for k, v in metadata.items() if k not in ("requester_metadata", "headers")}
    headers = mapping(about.pop("requester_custom_headers", None))
    return without_nothing(
        {
            **{k: v for k, v in payload.items() if k not in _TAKEN},
            "model": text(payload.get("model")),
            "model_map_key": prices.get("model_map_key"),
            "metadata": without_nothing(about),
            "headers": {k: v for k, v in headers.items() if not _is_secret(k)},
        }
    )


def _is_secret(name: str) -> bool:
    return bool(_SECRET.search(name))
