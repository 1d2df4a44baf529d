"""Reads conversations of the story and writes what an LLM gateway records of them.

A file under `story/gateway/` is one session: its tenant, user, model, system prompt, tools, and
`turns`; whether the client sends a session id (`sends_session_id`), names each parent (`explicit`),
and sends answers back as content parts (`echoes: parts`).
A turn follows the last completed one, or the one named by `after` (`key`, or `key#1` for a choice):

    turn, user, assistant    its key, what was asked, what was answered (`choices` for n > 1)
    steps                    rounds of tool calls before the answer: `say?`, `calls` of tool,
                             arguments, result or error, ms?
    at                       minutes since the session's start; else a little after the last turn
    same_as                  asks again what another turn asked, in the same place
    model, system, tools,    what differs from the session
    parameters
    status, error            failed (no answer) or interrupted (`assistant` is what had come)
    attempts                 statuses of earlier attempts under the same turn id
    kind                     the branch kind a reader would give it, kept as an expectation
    headers                  what the client told the gateway: parent, anchor, branch_kind, …
    replay_of                sends another turn's context, to another model
    keep, summary            how many last messages of the history the client still sends, and what
                             it puts in place of the others
    prefill                  begins the answer in the client's words
    reasoning                what the model thought first; clients do not send it back
    taskify                  a rule version and the sub-tasks it made of this turn
    event_id                 an id of the gateway's that it gave to another event too
    feedback                 what was said of the answer: `by` whom, its `rank` (0 is the best) or
                             `score`, of which `choice`; `at` a moment, else some minutes later;
                             `late` where it lands on day two only
    late                     true for a turn whose events land on day two only

No randomness and no clock: ids and small variations are hashes of the keys.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from company import digest, iso, moment

Json = dict[str, Any]
SOURCE = "urn:brambleworks:gateway"
HEADER_FIELDS = {
    "anchor": "context_anchor_turn_id",
    "branch_kind": "branch_kind",
    "parent": "parent_turn_id",
    "theme": "theme_id",
    "variant_config": "variant_config",
}
DEFAULT_PARAMETERS = {"temperature": 0.2, "top_p": 1.0, "max_tokens": 1024}
BACKENDS = {
    "qwen2.5-32b-instruct": "vllm-a",
    "llama-3.3-70b-instruct": "vllm-b",
    "mistral-small-24b-instruct": "vllm-a",
    "qwen2.5-7b-instruct": "vllm-c",
}


@dataclass
class Request:
    """One request that the gateway proxied, with what came back."""

    turn_id: str
    started_at: datetime
    duration_ms: int
    body: Json
    choices: list[Json]
    status: str = "completed"
    error: Json | None = None
    attempt: int = 0


@dataclass
class Turn:
    """A turn of the story with the requests it took; the last one gave the answer."""

    key: str
    story: Json
    parent: str
    choice: int
    context: list[Json]
    requests: list[Request] = field(default_factory=list)
    tool_events: list[Json] = field(default_factory=list)

    @property
    def last(self) -> Request:
        """The request that the answer belongs to."""
        return self.requests[-1]

    def history(self, choice: int = 0) -> list[Json]:
        """What a client that goes on from here sends: all messages so far, answer included."""
        last = self.last
        answer = dict(last.choices[choice]["message"])
        messages = last.body["messages"]
        if messages and messages[-1]["role"] == "assistant":
            prefilled = messages[-1]["content"] + answer["content"]
            return [*messages[:-1], {"role": "assistant", "content": prefilled}]
        return [*in_call_order(messages), answer]


def in_call_order(messages: list[Json]) -> list[Json]:
    """The messages with the results of parallel tool calls in the order of the calls."""
    calls = [call["id"] for message in messages for call in message.get("tool_calls", [])]
    results = {m["tool_call_id"]: m for m in messages if m["role"] == "tool"}
    ordered = iter(sorted(results, key=calls.index))
    return [results[next(ordered)] if m["role"] == "tool" else m for m in messages]


def tokens(text: str) -> int:
    """A plausible number of tokens: about four characters each."""
    return math.ceil(len(text) / 4)


def variation(low: int, high: int, *names: str) -> int:
    """A number that looks measured and is always the same."""
    return low + int(digest("variation", *names)[:8], 16) % (high - low)


class Session:
    """Replays one conversation file into gateway events."""

    def __init__(self, key: str, story: Json, toolbox: dict[str, Json]) -> None:
        self.key = key
        self.story = story
        self.toolbox = toolbox
        self.start = moment(story["start"])
        self.turns: dict[str, Turn] = {}
        self.latest: Turn | None = None
        self.clock = self.start
        for turn in story["turns"]:
            self.play(turn)

    @property
    def session_id(self) -> str | None:
        """The session id that the client sends, if it sends one."""
        if not self.story.get("sends_session_id", True):
            return None
        return self.story.get("session_id", "ses_" + digest("session", self.key)[:16])

    def turn_id(self, turn: str, step: int = 0) -> str:
        """Id of a request; turns that take several requests number them."""
        return "turn_" + digest("turn", self.key, turn, str(step))[:20]

    def events(self, *, late: bool = False) -> list[Json]:
        """The session's events, or those that the story marks as landing late."""
        turns = [turn for turn in self.turns.values() if turn.story.get("late", False) is late]
        found = [event for turn in turns for event in self.turn_events(turn)]
        for turn in self.turns.values():
            found += self.feedback_events(turn, late=late)
        if not late:
            flows = self.story.get("flows", [])
            found += [event for flow in flows for event in self.flow_events(flow)]
        return found

    def expectations(self) -> Iterator[Json]:
        """For each request of the session, the turn and choice that its history ends in."""
        for turn in self.turns.values():
            above = self.turns[turn.parent].last.turn_id if turn.parent else None
            choice = turn.choice
            kind = turn.story.get("kind")
            for request in turn.requests:
                if request.attempt == 0:
                    yield {
                        "session": self.key,
                        "turn_id": request.turn_id,
                        "parent_turn_id": above,
                        "parent_choice_index": choice,
                        "branch_kind": kind or ("continuation" if above else "root"),
                    }
                    above, choice, kind = request.turn_id, 0, None

    def place(self, story: Json) -> tuple[str, int]:
        """Key and choice of the turn that a new turn follows; an empty key for a root."""
        if "after" in story:
            key, _, choice = (story["after"] or "").partition("#")
            return key, int(choice or 0)
        for other in ("same_as", "replay_of"):
            if other in story:
                turn = self.turns[story[other]]
                return turn.parent, turn.choice
        return (self.latest.key if self.latest else ""), 0

    def play(self, story: Json) -> None:
        """Send one turn of the story: tool rounds first, then the answer."""
        if "at" in story:
            self.clock = self.start + timedelta(minutes=story["at"])
        else:
            self.clock += timedelta(seconds=variation(35, 160, self.key, story["turn"]))
        parent, choice = self.place(story)
        turn = Turn(story["turn"], story, parent, choice, self.context(story, parent, choice))
        self.turns[turn.key] = turn
        messages = list(turn.context)
        for step, round_ in enumerate(story.get("steps", [])):
            self.tool_round(turn, step, round_, messages)
        self.answer(turn, len(story.get("steps", [])), messages)
        if story.get("status", "completed") == "completed" and "replay_of" not in story:
            self.latest = turn

    def context(self, story: Json, parent: str, choice: int) -> list[Json]:
        """The messages that a turn begins with: system prompt, history, question."""
        if "replay_of" in story:
            return list(self.turns[story["replay_of"]].context)
        system = story.get("system", self.story.get("system"))
        history = [m for m in self.history(parent, choice) if m["role"] != "system"]
        if "keep" in story:
            history = history[-story["keep"] :]
        if "summary" in story:
            history.insert(0, {"role": "user", "content": story["summary"]})
        asked = story.get("user") or self.turns[story["same_as"]].story["user"]
        messages = [{"role": "system", "content": system}] if system else []
        messages += [*history, {"role": "user", "content": asked}]
        if "prefill" in story:
            messages.append({"role": "assistant", "content": story["prefill"]})
        return messages

    def history(self, parent: str, choice: int) -> list[Json]:
        """The messages up to and including a turn's answer, as the client sends them back."""
        return [self.echo(m) for m in self.turns[parent].history(choice)] if parent else []

    def echo(self, message: Json) -> Json:
        """An answer without its reasoning, in the notation of this client."""
        echoed = {key: value for key, value in message.items() if key != "reasoning_content"}
        if self.story.get("echoes") == "parts" and message["role"] == "assistant":
            text = message["content"]
            if isinstance(text, str):
                echoed["content"] = [{"type": "text", "text": text}]
        return echoed

    def tool_round(self, turn: Turn, step: int, round_: Json, messages: list[Json]) -> None:
        """One request answered by tool calls, and the calls' results."""
        calls = [
            {
                "id": "call_" + digest("call", self.key, turn.key, str(step), str(i))[:16],
                "type": "function",
                "function": {
                    "name": call["tool"],
                    "arguments": json.dumps(call["arguments"], ensure_ascii=False),
                },
            }
            for i, call in enumerate(round_["calls"])
        ]
        message = {"role": "assistant", "content": round_.get("say"), "tool_calls": calls}
        self.send(turn, step, messages, [message], "tool_calls")
        messages.append(message)
        results = list(zip(round_["calls"], calls, strict=True))
        longest = timedelta(0)
        for call, sent in results:
            event = self.tool_event(turn, step, call, sent)
            turn.tool_events.append(event)
            longest = max(longest, timedelta(milliseconds=event["data"]["duration_ms"]))
        self.clock += longest
        if round_.get("results_reversed"):
            results.reverse()
        for call, sent in results:
            content = call["result"] if "result" in call else "error: " + call["error"]["message"]
            messages.append({"role": "tool", "tool_call_id": sent["id"], "content": content})

    def tool_event(self, turn: Turn, step: int, call: Json, sent: Json) -> Json:
        """What the gateway's tool runner reports of one call."""
        duration = call.get("ms", variation(40, 900, sent["id"]))
        data = {
            "turn_id": self.turn_id(turn.key, step),
            "tenant": self.story["tenant"],
            "tool_call_id": sent["id"],
            "name": call["tool"],
            "arguments": sent["function"]["arguments"],
            "result": call.get("result"),
            "duration_ms": duration,
        }
        if "error" in call:
            data["error"] = call["error"]
        kind = "llm.tool.failed" if "error" in call else "llm.tool.completed"
        return self.event(kind, self.clock + timedelta(milliseconds=duration), data, sent["id"])

    def answer(self, turn: Turn, step: int, messages: list[Json]) -> None:
        """The request that brings the answer, after the attempts that did not."""
        story = turn.story
        for attempt, failure in enumerate(story.get("attempts", []), start=1):
            partial = [{"role": "assistant", "content": failure.get("assistant")}]
            self.send(
                turn,
                step,
                messages,
                partial if failure["status"] == "interrupted" else [],
                None,
                status=failure["status"],
                error=failure.get("error"),
                attempt=attempt,
            )
            self.clock += timedelta(seconds=variation(2, 9, turn.key, str(attempt)))
        status = story.get("status", "completed")
        texts = story.get("choices") or [story.get("assistant")]
        answers = [{"role": "assistant", "content": text} for text in texts]
        if "reasoning" in story:
            answers[0]["reasoning_content"] = story["reasoning"]
        self.send(
            turn,
            step,
            messages,
            [] if status == "failed" else answers,
            story.get("finish_reason", "stop") if status == "completed" else None,
            status=status,
            error=story.get("error"),
        )

    def send(
        self,
        turn: Turn,
        step: int,
        messages: list[Json],
        answers: list[Json],
        finish_reason: str | None,
        status: str = "completed",
        error: Json | None = None,
        attempt: int = 0,
    ) -> None:
        """Record one request and let the clock run on until its answer."""
        story = turn.story
        body: Json = {
            "model": story.get("model", self.story["model"]),
            "messages": list(messages),
            **DEFAULT_PARAMETERS,
            **self.story.get("parameters", {}),
            **story.get("parameters", {}),
        }
        tools = story.get("tools", self.story.get("tools", []))
        if tools:
            body["tools"] = [{"type": "function", "function": self.toolbox[name]} for name in tools]
        if "user" in self.story:
            body["user"] = self.story["user"]
        if len(answers) > 1:
            body["n"] = len(answers)
        written = sum(tokens(json.dumps(answer, ensure_ascii=False)) for answer in answers)
        pace = 14 if "7b" in body["model"] else 31 if "70b" in body["model"] else 22
        names = (self.key, turn.key, str(step), str(attempt))
        duration = (
            variation(180, 650, *names) + pace * written + (30_000 if status == "failed" else 0)
        )
        request = Request(
            turn_id=self.turn_id(turn.key, step),
            started_at=self.clock + timedelta(milliseconds=variation(0, 999, "start", *names)),
            duration_ms=duration,
            body=body,
            choices=[
                {"index": i, "message": answer, "finish_reason": finish_reason}
                for i, answer in enumerate(answers)
            ],
            status=status,
            error=error,
            attempt=attempt,
        )
        turn.requests.append(request)
        self.clock = request.started_at + timedelta(milliseconds=duration)

    def turn_events(self, turn: Turn) -> Iterator[Json]:
        """All events of one turn."""
        for step, request in enumerate(turn.requests):
            yield self.chat_event(turn, request, str(step))
        yield from turn.tool_events
        if "taskify" in turn.story:
            first = turn.requests[0]
            at = first.started_at + timedelta(milliseconds=first.duration_ms + 85)
            data = {
                "turn_id": first.turn_id,
                "tenant": self.story["tenant"],
                **turn.story["taskify"],
            }
            data["tasks"] = [{"index": i, **task} for i, task in enumerate(data["tasks"])]
            yield self.event("taskification.completed", at, data, "taskify", turn.key)

    def feedback_events(self, turn: Turn, *, late: bool) -> Iterator[Json]:
        """What people and reward models said of a turn's answers on the one day or the other."""
        for said in turn.story.get("feedback", []):
            if said.get("late", turn.story.get("late", False)) is not late:
                continue
            choice, measure = said.get("choice", 0), "rank" if "rank" in said else "score"
            names = (turn.key, str(choice), said["by"])
            ended = turn.last.started_at + timedelta(milliseconds=turn.last.duration_ms)
            later = timedelta(seconds=variation(40, 1800, self.key, *names))
            data = {
                "turn_id": turn.last.turn_id,
                "tenant": self.story["tenant"],
                "choice_index": choice,
                measure: said[measure],
                "labeller": said["by"],
            }
            kind = "feedback.ranked" if measure == "rank" else "feedback.scored"
            at = moment(said["at"]) if "at" in said else ended + later
            yield self.event(kind, at, data, *names)

    def chat_event(self, turn: Turn, request: Request, name: str) -> Json:
        """The event of one proxied request."""
        data: Json = {"turn_id": request.turn_id, "tenant": self.story["tenant"]}
        if "theme" in self.story:
            data["theme_id"] = self.story["theme"]
        data |= self.header_fields(turn, request)
        model = request.body["model"]
        data |= {
            "is_replay": "replay_of" in turn.story or turn.story.get("is_replay", False),
            "request": request.body,
            "response": self.response(request, name),
            "model_snapshot_id": f"{model}@2026-08",
            "backend": BACKENDS[model],
            "started_at": iso(request.started_at),
            "duration_ms": request.duration_ms,
            "status": request.status,
        }
        if request.error:
            data["error"] = request.error
        ended = request.started_at + timedelta(milliseconds=request.duration_ms)
        event = self.event(f"llm.chat.{request.status}", ended, data, turn.key, name)
        return event | {"id": turn.story.get("event_id", event["id"])}

    def header_fields(self, turn: Turn, request: Request) -> Json:
        """The fields that clients which know about branches send as headers."""
        fields: Json = {}
        if self.story.get("explicit") and turn.parent and request is turn.requests[0]:
            fields["parent_turn_id"] = self.turns[turn.parent].last.turn_id
        for header, value in turn.story.get("headers", {}).items():
            if header in ("parent", "anchor"):
                value = self.turns[value].last.turn_id
            fields[HEADER_FIELDS[header]] = value
        return fields

    def response(self, request: Request, name: str) -> Json | None:
        """The response body, with the usage that a completed call reports."""
        if not request.choices:
            return None
        prompt = sum(
            4 + tokens(json.dumps(m, ensure_ascii=False)) for m in request.body["messages"]
        )
        prompt += tokens(json.dumps(request.body.get("tools", [])))
        answers = [choice["message"] for choice in request.choices]
        completion = sum(tokens(json.dumps(answer, ensure_ascii=False)) for answer in answers)
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }
        return {
            "id": "chatcmpl-" + digest("response", request.turn_id, name)[:24],
            "object": "chat.completion",
            "created": int(request.started_at.timestamp()),
            "model": request.body["model"],
            "choices": request.choices,
            "usage": usage if request.status == "completed" else None,
        }

    def flow_events(self, flow: Json) -> Iterator[Json]:
        """Start and end of every step of an orchestrated flow."""
        flow_id = "flow_" + digest("flow", self.key, flow["flow"])[:16]
        for node in flow["nodes"]:
            data: Json = {
                "flow_id": flow_id,
                "node_id": node["node"],
                "tenant": self.story["tenant"],
                "parent_node_ids": node.get("parents", []),
                "kind": node["kind"],
                "model": node.get("model"),
            }
            started, ended = self.node_times(node)
            if "turn" in node:
                data["turn_id"] = self.turns[node["turn"]].last.turn_id
                data["model"] = self.turns[node["turn"]].last.body["model"]
            yield self.event("flow.node.started", started, data, flow["flow"], node["node"], "on")
            status = node.get("status", "completed")
            data = data | {"duration_ms": round((ended - started).total_seconds() * 1000)}
            if "error" in node:
                data["error"] = node["error"]
            yield self.event(f"flow.node.{status}", ended, data, flow["flow"], node["node"], "off")

    def node_times(self, node: Json) -> tuple[datetime, datetime]:
        """When a step ran: around its turn, or where the story says."""
        if "turn" in node:
            requests = self.turns[node["turn"]].requests
            ended = requests[-1].started_at + timedelta(milliseconds=requests[-1].duration_ms)
            return requests[0].started_at - timedelta(milliseconds=12), ended
        started = self.start + timedelta(minutes=node["at"])
        return started, started + timedelta(milliseconds=node["ms"])

    def event(self, kind: str, at: datetime, data: Json, *names: str) -> Json:
        """The CloudEvents envelope."""
        envelope = {
            "specversion": "1.0",
            "id": "evt_" + digest("event", self.key, kind, *names)[:20],
            "source": SOURCE,
            "type": kind,
            "time": iso(at),
        }
        if self.session_id:
            envelope["subject"] = self.session_id
            data = {"session_id": self.session_id} | data
        return envelope | {"datacontenttype": "application/json", "data": data}


def read_sessions(folder: Path, toolbox: dict[str, Json]) -> list[Session]:
    """The sessions of a folder of the story, in the order of their starts."""
    stories = {
        path.stem: yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*.yaml"))
    }
    sessions = [Session(key, story, toolbox) for key, story in stories.items()]
    return sorted(sessions, key=lambda session: (session.start, session.key))
