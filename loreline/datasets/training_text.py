"""Messages as trainers read them: redacted, counted in tokens, and with a MinHash to compare by."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
import orjson
from rensa import RMinHash

from loreline.conversations.chat import argument_text, message_content, tools_of
from loreline.redaction import Redactor

# Stands for a message's place among those of its example, which its calls' ids are made of: JSON
# writes this character as an escape, so that nothing that is said can be taken for it.
PLACE = "\x01"

MINHASH_SEED = 1
# What a MinHash of nothing consists of; the least of it and another one is the other one.
NO_MINHASH = np.iinfo(np.uint32).max

_WORD = re.compile(r"[ぁ-ヿ一-鿿]|[^\W_]+")

Json = dict[str, Any]


@dataclass
class TrainingMessage:
    """A message of a conversation, a system's text, or a list of tools.

    Attributes:
        message_hash: of the message, or of the attribute that it is part of.
        part: counts the texts of one system attribute from 0; else 0.
        kind: message, system or tools.
        role: as in a chat; empty for tools.
        texts: what it says, then the arguments of each of its calls.
        name: of its author.
        calls: names of the tools that it calls; None for one that calls none.
        answers_call: which call before it a tool's result answers.
        before_message: a system's text stands before so many of the other messages.
        is_usable: whether it is text alone.
        redactions: names of the rules that found something in it, once per find.
    """

    message_hash: str
    part: int
    kind: str
    role: str
    texts: list[str]
    name: str | None = None
    calls: list[str] | None = None
    answers_call: str | None = None
    before_message: int | None = None
    is_usable: bool = True
    redactions: list[str] = field(default_factory=list)

    def places(self) -> list[int | str]:
        """Where it says something: places of its texts, and its author's name."""
        return [*range(len(self.texts)), *(["name"] if self.name else [])]

    def as_json(self) -> str:
        """The message of a chat, or the list of tools; ids of calls hold `PLACE`."""
        content, *arguments = self.texts
        if self.kind == "tools":
            return content
        head: Json = {"role": self.role, "content": content}
        if self.name:
            head["name"] = self.name
        text = orjson.dumps(head).decode()[:-1]
        if self.calls is not None:
            calls = [
                f'{{"id":"call_{PLACE}_{number}","type":"function","function":'
                f"{orjson.dumps({'name': name, 'arguments': argument}).decode()}}}"
                for number, (name, argument) in enumerate(zip(self.calls, arguments, strict=True))
            ]
            text += f',"tool_calls":[{",".join(calls)}]'
        if self.answers_call is not None:
            text += f',"tool_call_id":"call_{PLACE}_{self.answers_call}"'
        return text + "}"


def training_messages(row: Json) -> Iterator[TrainingMessage]:
    """What a row of the lake becomes: one message, or each text of a system.

    Args:
        row: kind, message_hash, role, content, name, tool_calls, tool_call_id.
    """
    key, kind = row["message_hash"], row["kind"]
    if kind == "system":
        for number, text in enumerate(orjson.loads(row["content"] or "[]")):
            content, is_text = _plain(text["content"])
            yield TrainingMessage(
                key,
                number,
                kind,
                "system",
                [content],
                name=text.get("name"),
                before_message=text["position"] - number,
                is_usable=is_text,
            )
    elif kind == "tools":
        offered = orjson.loads(row["content"] or "[]")
        named = tools_of(offered)
        tools = named.get("tools") or [
            {"type": "function", "function": function} for function in named.get("functions", [])
        ]
        is_list = isinstance(offered, list) and all(isinstance(tool, dict) for tool in offered)
        text = orjson.dumps(tools).decode()
        yield TrainingMessage(key, 0, kind, "", [text], is_usable=is_list)
    else:
        content, is_text = _plain(row["content"])
        calls = orjson.loads(row["tool_calls"]) if row["tool_calls"] else None
        is_result = row["role"] in ("tool", "function")
        yield TrainingMessage(
            key,
            0,
            kind,
            "tool" if is_result else row["role"],
            [content, *(argument_text(call["arguments"]) for call in calls or ())],
            name=row["name"],
            calls=None if calls is None else [call["name"] or "" for call in calls],
            answers_call=(row["tool_call_id"] or "0") if is_result else None,
            is_usable=is_text,
        )


def redact(messages: Sequence[TrainingMessage], redactor: Redactor) -> None:
    """Take out of each message what the rules find: of JSON out of its values, so that it stays so.

    Content is text; the arguments of calls and tools are JSON where they can be read as such.
    """
    parts = [_Part(message, place) for message in messages for place in message.places()]
    clean, finds = redactor.redact([text for part in parts for text in part.texts])
    at = 0
    for part in parts:
        end = at + len(part.texts)
        part.put(clean[at:end], [name for found in finds[at:end] for name in found])
        at = end


class _Part:
    """A text of a message, as the texts that the rules are to see.

    Args:
        message: whose text it is.
        place: of the text among the message's, or the name of an attribute that is text.
    """

    def __init__(self, message: TrainingMessage, place: int | str) -> None:
        self._message, self._place = message, place
        text = message.texts[place] if isinstance(place, int) else getattr(message, place) or ""
        is_json = isinstance(place, int) and (place > 0 or message.kind == "tools")
        self._value = _read_json(text) if is_json else None
        self._leaves: list[tuple[Any, Any]] = []
        if self._value is None:
            self.texts = [text]
        else:
            self._leaves = list(_leaves(self._value))
            # With its name, because some values are secret for what they are called.
            self.texts = [f"{key}={holder[key]}" for holder, key in self._leaves]

    def put(self, texts: Sequence[str], redactions: list[str]) -> None:
        """Put the texts back as the rules left them."""
        self._message.redactions += redactions
        if not redactions:
            return
        if self._value is None:
            [text] = texts
        else:
            for (holder, key), text, before in zip(self._leaves, texts, self.texts, strict=True):
                if text != before:
                    holder[key] = text.removeprefix(f"{key}=")
            text = orjson.dumps(self._value).decode()
        if isinstance(self._place, int):
            self._message.texts[self._place] = text
        else:
            setattr(self._message, self._place, text)


def _read_json(text: str) -> Any:
    """A JSON object or list; None for anything else."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict | list) else None


def _leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    """Where in a JSON value texts and numbers are: what holds each, and its name or place."""
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    for key, item in items:
        if isinstance(item, dict | list):
            yield from _leaves(item)
        elif isinstance(item, str | int | float) and not isinstance(item, bool):
            yield value, key


def text_hash(message: TrainingMessage) -> str:
    """The first 128 bits of the SHA-256 of what is left to train on, as hex digits."""
    return sha256(message.as_json().encode()).hexdigest()[:32]


def shingles(text: str, words: int) -> list[str]:
    """Runs of so many words; all there are where there are fewer, and the text where it has none.

    A word is a run of letters and digits in lower case, or a single sign of Chinese or Japanese.
    """
    found = _WORD.findall(text.lower())
    if len(found) < words:
        whole = " ".join(found) or text.strip()
        return [whole] if whole else []
    return [" ".join(found[at : at + words]) for at in range(len(found) - words + 1)]


def minhashes(texts: Sequence[str], *, words: int, permutations: int) -> np.ndarray:
    """MinHashes of the texts' shingles: uint32, shape (texts, permutations).

    The share of places in which two agree estimates the Jaccard similarity of their shingles
    (Broder 1997); the elementwise least of two is that of both texts together.
    """
    if not texts:
        return np.zeros((0, permutations), np.uint32)
    sets = [shingles(text, words) for text in texts]
    found = RMinHash.digest_matrix_from_token_sets(sets, permutations, MINHASH_SEED)
    return np.array(found.to_rows(), np.uint32).reshape(len(texts), permutations)


def _plain(content: str | None) -> tuple[str, bool]:
    """What is said as text, and whether that is all of it: pictures and the like are none."""
    found = message_content(content)
    if found is None or isinstance(found, str):
        return found or "", True
    texts = [part.get("text") for part in found]
    return "\n".join(text for text in texts if isinstance(text, str)), all(
        isinstance(text, str) for text in texts
    )
