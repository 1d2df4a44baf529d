"""Items and labels in the formats of Argilla and Label Studio, as JSON lines.

Argilla: what `Record.to_dict` gives and `Record.from_dict` takes
(argilla/src/argilla/records/_resource.py). Label Studio: tasks with annotations
(https://labelstud.io/guide/task_format).
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.sql import Identifier

from loreline.postgres import in_schema
from loreline.review.messages import spoken
from loreline.review.store import withdraw
from loreline.review.verdicts import Verdict, VerdictError
from loreline.settings import Settings

Json = Any

ARGILLA, LABEL_STUDIO = "argilla", "label-studio"
# Makes the ids that Argilla wants its users to have.
_REVIEWERS = uuid.UUID("3f4f1a3e-54c5-4f0d-9b56-5d2f0f2f6c1e")
_OWN_RESULT = re.compile(r"([0-9a-f-]{36})\.\w+")
ROWS_PER_FETCH = 200


@dataclass
class Imported:
    """What an import did.

    Attributes:
        added: labels that are new.
        replaced: of them, those by which somebody changed an earlier one.
        unchanged: what was known already.
        set_aside: what could not be taken, by reason.
    """

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    set_aside: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Said:
    """A verdict from elsewhere; `label_id` where it is the echo of a label that was exported."""

    reviewer: str
    verdict: Verdict
    label_id: str | None = None


class BadRecordError(ValueError):
    """A record that is not of the format; the message says why."""


def exported(
    connection: psycopg.Connection, settings: Settings, format_name: str, kind: str | None = None
) -> Iterator[Json]:
    """The items of the queue with their labels, as records of a format.

    Which of two responses comes first is drawn by the item's id: as likely a as b, the same at
    every export.

    Args:
        connection: without an open transaction.
        settings: says which schema they live in.
        format_name: argilla or label-studio.
        kind: trajectory or pair; both if it is left out.
    """
    write = {ARGILLA: _argilla_record, LABEL_STUDIO: _label_studio_task}[format_name]
    query = in_schema(
        settings,
        "review",
        "select queue_item_id, kind, stratum, content::text, coalesce((select json_agg("
        "json_build_object('label_id', label_id, 'reviewer', reviewer, 'verdict',"
        " json_build_object('preferred', preferred, 'strength', strength, 'categories',"
        " categories, 'score', score, 'comment', comment)) order by label_number)"
        " from {0}.label_states as said where said.queue_item_id = items.queue_item_id"
        " and said.withdrawn_at is null), '[]'::json) as labels from {0}.items as items"
        " where withdrawn_at is null and coalesce(kind = %s, true)"
        " order by priority desc, queue_item_id",
    )
    with (
        connection.transaction(),
        connection.cursor(name="items_to_export", row_factory=dict_row) as cursor,
    ):
        cursor.itersize = ROWS_PER_FETCH
        for row in cursor.execute(query, [kind]):
            yield write(row)


def read_records(lines: Iterable[str]) -> Iterator[Json]:
    """Records of JSON lines, or of one JSON list; what is no JSON comes as an error.

    Yields:
        The record, or a `BadRecordError`.
    """
    lines = iter(lines)
    first = next((line for line in lines if line.strip()), "")
    if first.lstrip().startswith("["):
        try:
            yield from json.loads(first + "".join(lines))
        except ValueError as error:
            yield BadRecordError(f"no JSON ({error})")
        return
    for line in (first, *lines) if first else ():
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError:
                yield BadRecordError("no JSON")


def import_labels(
    connection: psycopg.Connection,
    settings: Settings,
    format_name: str,
    records: Iterable[Json],
    known_categories: Collection[str],
) -> Imported:
    """Take over what people have said with another tool, all at once.

    What somebody said last of an item is theirs: the same again changes nothing, something else
    withdraws it. A label that was exported and comes back as it was is known.

    Args:
        connection: without an open transaction.
        settings: says which schema they live in.
        format_name: argilla or label-studio.
        records: what `read_records` gives.
        known_categories: what may be said of a trajectory.
    """
    read = {ARGILLA: _from_argilla, LABEL_STUDIO: _from_label_studio}[format_name]
    done = Imported()
    with connection.transaction():
        # As reviewers who take turns.
        connection.execute(in_schema(settings, "review", "lock table {}.locks in exclusive mode"))
        book = _Book(connection, settings, format_name)
        for record in records:
            try:
                queue_item_id, answers = _read(read, record, book.reviewers)
                kind = book.kind(queue_item_id)
            except BadRecordError as error:
                done.set_aside[str(error)] += 1
                continue
            for said in answers:
                try:
                    said.verdict.check(kind, known_categories)
                except VerdictError as error:
                    done.set_aside[str(error)] += 1
                else:
                    book.take(queue_item_id, said, done)
    return done


def _read(read: Any, record: Json, reviewers: Mapping[str, str]) -> tuple[str, list[_Said]]:
    """What a record says, or why it cannot be told."""
    if isinstance(record, BadRecordError):
        raise record
    if not isinstance(record, dict):
        raise BadRecordError("no object")
    try:
        return read(record, reviewers)
    except (AttributeError, TypeError, OverflowError):
        raise BadRecordError("something in it is not what the format says") from None


class _Book:
    """What is in the tables, while an import runs."""

    def __init__(self, connection: psycopg.Connection, settings: Settings, origin: str) -> None:
        self._connection = connection
        self._settings = settings
        self._origin = origin
        names = self._rows("select reviewer from {}.reviewers")
        self.reviewers = {_user_id(name): name for (name,) in names}

    def kind(self, queue_item_id: str) -> str:
        rows = self._rows("select kind from {}.items where queue_item_id = %s", queue_item_id)
        if not rows:
            raise BadRecordError("no item of the queue")
        return rows[0][0]

    def take(self, queue_item_id: str, said: _Said, done: Imported) -> None:
        reviewer = said.reviewer
        if said.label_id:
            rows = self._rows(
                "select reviewer from {}.labels where label_id = %s and queue_item_id = %s",
                said.label_id,
                queue_item_id,
            )
            reviewer = rows[0][0] if rows else reviewer
        last = self._rows(
            "select label_id, withdrawn_at is null, preferred, strength, categories, score,"
            " comment from {}.label_states where queue_item_id = %s and reviewer = %s"
            " order by label_number desc limit 1",
            queue_item_id,
            reviewer,
        )
        if last and _same(Verdict(*last[0][2:]), said.verdict):
            done.unchanged += 1
            return
        if last and last[0][1]:
            withdraw(self._connection, Identifier(f"{self._settings.prefix}review"), last[0][0])
            done.replaced += 1
        self._insert_label(queue_item_id, reviewer, said.verdict)
        done.added += 1

    def _insert_label(self, queue_item_id: str, reviewer: str, verdict: Verdict) -> None:
        self._rows(
            "insert into {0}.labels (queue_item_id, kind, leaf_node_ids, pair_id, content_sha256,"
            " reviewer, origin, preferred, strength, categories, score, comment)"
            " select queue_item_id, kind, leaf_node_ids, pair_id, content_sha256,"
            " %s, %s, %s, %s, %s, %s, %s from {0}.items where queue_item_id = %s",
            reviewer,
            self._origin,
            verdict.preferred,
            verdict.strength,
            list(verdict.categories) if verdict.categories is not None else None,
            verdict.score,
            verdict.comment,
            queue_item_id,
        )

    def _rows(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        cursor = self._connection.execute(
            in_schema(self._settings, "review", statement), parameters
        )
        return cursor.fetchall() if cursor.description else []


def _argilla_record(item: Mapping[str, Any]) -> Json:
    responses: dict[str, list[Json]] = {}
    for label in item["labels"]:
        for question, value in _answers(label["verdict"], item["queue_item_id"]).items():
            user_id = _user_id(label["reviewer"])
            answer = {"value": value, "user_id": user_id, "status": "submitted"}
            responses.setdefault(question, []).append(answer)
    return {
        "id": item["queue_item_id"],
        "fields": _fields(item, "role", "content"),
        "metadata": {"kind": item["kind"], "stratum": item["stratum"]},
        "suggestions": {},
        "responses": responses,
        "vectors": {},
    }


def _from_argilla(record: Json, reviewers: Mapping[str, str]) -> tuple[str, list[_Said]]:
    queue_item_id = record.get("id")
    responses = record.get("responses")
    if not isinstance(queue_item_id, str) or not isinstance(responses, dict):
        raise BadRecordError("no record of Argilla")
    users: dict[str, dict[str, Json]] = {}
    for question, given in responses.items():
        for answer in given if isinstance(given, list) else []:
            if answer.get("status") in (None, "submitted"):
                users.setdefault(str(answer.get("user_id")), {})[question] = answer.get("value")
    return queue_item_id, [
        _Said(reviewers.get(user, f"{ARGILLA}:{user}"), _verdict(answers, queue_item_id))
        for user, answers in users.items()
    ]


# Which control of the labelling configuration a part of a verdict is, and the key of its value.
_CONTROLS = {
    "preferred": ("choices", "choices"),
    "strength": ("rating", "rating"),
    "categories": ("choices", "choices"),
    "score": ("rating", "rating"),
    "comment": ("textarea", "text"),
}


def _label_studio_task(item: Mapping[str, Any]) -> Json:
    target = "response_1" if item["kind"] == "pair" else "conversation"
    annotations = []
    for label in item["labels"]:
        result = []
        for name, value in _answers(label["verdict"], item["queue_item_id"]).items():
            kind, key = _CONTROLS[name]
            as_list = kind != "rating" and not isinstance(value, list)
            result.append(
                {
                    "id": f"{label['label_id']}.{name}",
                    "from_name": name,
                    "to_name": target,
                    "type": kind,
                    "value": {key: [value] if as_list else value},
                }
            )
        annotations.append({"result": result, "was_cancelled": False})
    known = {name: item[name] for name in ("queue_item_id", "kind", "stratum")}
    return {"data": known | _fields(item, "author", "text"), "annotations": annotations}


def _from_label_studio(task: Json, _: Mapping[str, str]) -> tuple[str, list[_Said]]:
    data, annotations = task.get("data"), task.get("annotations")
    queue_item_id = data.get("queue_item_id") if isinstance(data, dict) else None
    if not isinstance(queue_item_id, str) or not isinstance(annotations, list):
        raise BadRecordError("no task of Label Studio")
    said = []
    for annotation in annotations:
        if annotation.get("was_cancelled") or not annotation.get("result"):
            continue
        answers: dict[str, Json] = {}
        own = set()
        for result in annotation["result"]:
            name, value = str(result.get("from_name")), result.get("value") or {}
            _, key = _CONTROLS.get(name, ("", ""))
            answers[name] = value.get(key)
            if result.get("type") == "pairwise":
                answers["preferred"] = {"left": ["1"], "right": ["2"]}.get(value.get("selected"))
            match = _OWN_RESULT.fullmatch(str(result.get("id")))
            own.add(match[1] if match else None)
        for name in ("preferred", "comment"):
            if isinstance(answers.get(name), list):
                answers[name] = "\n".join(map(str, answers[name]))
        who = annotation.get("completed_by")
        if isinstance(who, dict):
            who = who.get("email") or who.get("id")
        said.append(
            _Said(
                f"{LABEL_STUDIO}:{who or 'somebody'}",
                _verdict(answers, queue_item_id),
                own.pop() if len(own) == 1 else None,
            )
        )
    return queue_item_id, said


def _fields(item: Mapping[str, Any], who: str, what: str) -> dict[str, Json]:
    """The conversations of an item, each message as who and what."""
    content = json.loads(item["content"])
    sides = [_spoken(side["messages"], who, what) for side in content["sides"]]
    fields = {"context": _spoken(content["context"], who, what)}
    if item["kind"] == "trajectory":
        return fields | {"conversation": sides[0]}
    first, second = sides[::-1] if _is_swapped(item["queue_item_id"]) else sides
    return fields | {"response_1": first, "response_2": second}


def _spoken(messages: Sequence[Json], who: str, what: str) -> list[Json]:
    return [{who: role, what: text} for role, text in map(spoken, messages)]


def _answers(verdict: Mapping[str, Any], queue_item_id: str) -> dict[str, Json]:
    """What a verdict says, without what it does not say; places instead of sides."""
    said = {name: value for name, value in verdict.items() if value is not None}
    if said.get("preferred") in ("a", "b"):
        said["preferred"] = "12"["ab".index(said["preferred"]) ^ _is_swapped(queue_item_id)]
    return said


def _verdict(answers: Mapping[str, Json], queue_item_id: str) -> Verdict:
    preferred = answers.get("preferred")
    if preferred in ("1", "2"):
        preferred = "ab"["12".index(preferred) ^ _is_swapped(queue_item_id)]
    categories = answers.get("categories")
    is_scored = answers.get("score") is not None
    return Verdict(
        preferred=_text(preferred),
        strength=_whole(answers.get("strength")) if preferred != "tie" else None,
        categories=sorted(map(str, categories or [])) if is_scored or categories else None,
        score=_whole(answers.get("score")),
        comment=(_text(answers.get("comment")) or "").replace("\0", "").strip() or None,
    )


def _text(value: Json) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise BadRecordError("an answer that should be text is none")


def _whole(value: Json) -> int | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and value == int(value):
        return int(value)
    raise BadRecordError("an answer that should be a whole number is none")


def _same(one: Verdict, other: Verdict) -> bool:
    return (one.preferred, one.strength, one.score, one.comment or None) == (
        other.preferred,
        other.strength,
        other.score,
        other.comment or None,
    ) and sorted(one.categories or []) == sorted(other.categories or [])


def _is_swapped(queue_item_id: str) -> bool:
    return bool(hashlib.sha256(queue_item_id.encode()).digest()[0] & 1)


def _user_id(reviewer: str) -> str:
    """Argilla's id of a reviewer: their own where they come from there."""
    if reviewer.startswith(f"{ARGILLA}:"):
        return reviewer.removeprefix(f"{ARGILLA}:")
    return str(uuid.uuid5(_REVIEWERS, reviewer))
