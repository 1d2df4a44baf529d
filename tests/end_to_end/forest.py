"""Chat requests as a gateway records them, written by hand or made of real conversations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

Json = dict[str, Any]

START = datetime(2026, 10, 1, 9, 0, tzinfo=UTC)
ROLES = {"prompter": "user", "assistant": "assistant"}


def user(text: str) -> Json:
    """A user's message."""
    return {"role": "user", "content": text}


def assistant(text: str | None, **others: Any) -> Json:
    """An assistant's message."""
    return {"role": "assistant", "content": text, **others}


def system(text: str) -> Json:
    """A system's message."""
    return {"role": "system", "content": text}


def tool(call_id: str, text: str) -> Json:
    """A tool's result."""
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def call(call_id: str, name: str, arguments: str = "{}") -> Json:
    """A tool call of an assistant's message."""
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def chat(
    turn_id: str | None,
    messages: list[Json],
    *answers: Json,
    at: float = 0,
    lasts: float = 0.5,
    session: str | None = "s",
    tenant: str = "t",
    kind: str = "completed",
    finish_reason: str | None = None,
    request: Json | None = None,
    source: str = "test",
    **data: Any,
) -> Json:
    """An event `llm.chat.*`.

    Args:
        turn_id: of the gateway; None where it gives none.
        messages: of the request.
        answers: messages of the choices; none for a request that failed.
        at: seconds after `START` at which it began.
        lasts: seconds until it ended.
        session: that the client named.
        tenant: whose request it is.
        kind: completed, interrupted or failed.
        finish_reason: of every choice.
        request: further fields of the request.
        source: the gateway.
        data: further fields of the event's data.
    """
    begun = START + timedelta(seconds=at)
    ends = {"finish_reason": finish_reason} if finish_reason else {}
    choices = [{"index": n, "message": answer, **ends} for n, answer in enumerate(answers)]
    content = {
        "turn_id": turn_id,
        "session_id": session,
        "tenant": tenant,
        "request": {"model": "m", "messages": messages, **(request or {})},
        "response": {"choices": choices, "usage": {"prompt_tokens": 7, "completion_tokens": 3}},
        "started_at": begun.isoformat(),
        "duration_ms": int(lasts * 1000),
        "status": kind,
        **data,
    }
    return {
        "specversion": "1.0",
        "id": hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16],
        "source": source,
        "type": f"llm.chat.{kind}",
        "time": (begun + timedelta(seconds=lasts)).isoformat(),
        "subject": session,
        "data": content,
    }


def recorded_again(recorded: Json, after: float, **changes: Any) -> Json:
    """An event as a gateway records it once more, with some of its data replaced.

    Args:
        recorded: the event.
        after: seconds after it was recorded first.
        changes: what it says otherwise.
    """
    time = datetime.fromisoformat(recorded["time"]) + timedelta(seconds=after)
    return recorded | {"time": time.isoformat(), "data": recorded["data"] | changes}


def event(event_type: str, at: float, **data: Any) -> Json:
    """An event of any other type.

    Args:
        event_type: its type.
        at: seconds after `START`.
        data: what it says.
    """
    identity = hashlib.sha256(json.dumps([event_type, at, data]).encode()).hexdigest()[:16]
    return {
        "specversion": "1.0",
        "id": identity,
        "source": "test",
        "type": event_type,
        "time": (START + timedelta(seconds=at)).isoformat(),
        "data": data,
    }


@dataclass(frozen=True)
class Answer:
    """An assistant's message of a real conversation.

    Attributes:
        identity: its id.
        conversation: the id of the whole.
        path: the messages before it, from the first one on.
        text: what it says.
        parent: the id of the assistant's message before it on the path, if there is one.
    """

    identity: str
    conversation: str
    path: tuple[Json, ...]
    text: str
    parent: str | None

    @property
    def depth(self) -> int:
        """How many messages the path and the answer have."""
        return len(self.path) + 1


def answers_of_trees(file: Path) -> list[Answer]:
    """The assistants' messages of `openassistant/trees.jsonl`, parents first."""
    found: list[Answer] = []
    for line in file.read_text().splitlines():
        tree = json.loads(line)
        found += _answers(tree["message_tree_id"], tree["prompt"], (), None)
    return found


def _answers(
    conversation: str, message: Json, path: tuple[Json, ...], parent: str | None
) -> Iterator[Answer]:
    role, text = ROLES[message["role"]], message["text"]
    if role == "assistant":
        yield Answer(message["message_id"], conversation, path, text, parent)
        parent = message["message_id"]
    here = (*path, {"role": role, "content": text})
    for reply in message.get("replies", []):
        yield from _answers(conversation, reply, here, parent)


def answers_of_list(file: Path) -> list[Answer]:
    """The assistants' messages of `openassistant/messages.json`, parents first."""
    messages = json.loads(file.read_text())
    replies: dict[str | None, list[Json]] = {}
    for message in messages:
        replies.setdefault(message["parent_message_id"], []).append(message)

    def tree(message: Json) -> Json:
        identity = message["user_message_id"]
        return {
            "message_id": identity,
            "role": message["role"],
            "text": message["text"],
            "replies": [tree(reply) for reply in replies.get(identity, [])],
        }

    found: list[Answer] = []
    for root in replies[None]:
        found += _answers(root["user_message_id"], tree(root), (), None)
    return found


def requests_for(answers: Iterable[Answer], tenant: str) -> list[Json]:
    """One request for each answer, without any parent: its history is the answer's path."""
    return [
        chat(
            answer.identity,
            list(answer.path),
            assistant(answer.text),
            at=number,
            session=answer.conversation,
            tenant=tenant,
        )
        for number, answer in enumerate(answers)
    ]


def ranked(
    turn: str, rank: int, at: float, tenant: str, labeller: str = "people", **others: Any
) -> Json:
    """Feedback that gives a response its rank, 0 for the best."""
    return event(
        "feedback.ranked", at, tenant=tenant, turn_id=turn, rank=rank, labeller=labeller, **others
    )


def rank_events(file: Path, tenant: str) -> Iterator[Json]:
    """The ranks of `openassistant/trees.jsonl` as feedback."""

    def below(message: Json) -> Iterator[Json]:
        replies = message.get("replies", [])
        for reply in replies:
            if reply["role"] == "assistant" and reply.get("rank") is not None:
                yield ranked(reply["message_id"], reply["rank"], 10_000, tenant)
            yield from below(reply)

    for line in file.read_text().splitlines():
        yield from below(json.loads(line)["prompt"])


def sampling_requests(file: Path, tenant: str) -> list[Json]:
    """`openassistant/sampling_12b.json`: each prompt several times under several settings."""
    found = []
    for number, prompt in enumerate(json.loads(file.read_text())["prompts"]):
        outputs = [
            (result["sampling_params"], output)
            for result in prompt["results"]
            for output in result["outputs"]
        ]
        found += [
            chat(
                f"{number}-{place}",
                [user(prompt["prompt"])],
                assistant(output),
                at=number * 100 + place,
                session=f"prompt {number}",
                tenant=tenant,
                request=parameters,
            )
            for place, (parameters, output) in enumerate(outputs)
        ]
    return found
