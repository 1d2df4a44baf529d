"""What a judge may answer: a schema for the endpoint, and a check that does not trust it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jsonschema

from loreline.calls.endpoint import first_answer
from loreline.cli.text import one_line, shortened

Json = Any

KINDS = ("trajectory", "pair")
SIDES = ("a", "b")
LONGEST_REASON = 500


class InvalidAnswerError(ValueError):
    """An answer that is not what was asked for; the message says why."""


def schema(kind: str, categories: Sequence[str]) -> Json:
    """The JSON schema of an answer, of the kind that strict structured output takes.

    That knows no bounds of numbers, which are checked all the same.

    Args:
        kind: trajectory or pair.
        categories: that a trajectory may show.
    """
    reason = {"type": "string"}
    if kind == "pair":
        return _object(
            reason=reason,
            preferred={"type": "string", "enum": ["1", "2", "tie"]},
            strength={"type": "integer", "enum": [1, 2, 3]},
        )
    shown = _object(
        reason=reason,
        category={"type": "string", "enum": list(categories)},
        confidence={"type": "number"},
    )
    return _object(categories={"type": "array", "items": shown})


def response_format(name: str, answered: Json) -> Json:
    """The field of a request that asks for structured output."""
    return {
        "type": "json_schema",
        "json_schema": {"name": name, "strict": True, "schema": answered},
    }


def read(response: dict[str, Json], kind: str, answered: Json, *, is_swapped: bool) -> Json:
    """The verdict of a response, with the sides of a pair named a and b.

    Args:
        response: of the API, with an answer in it.
        kind: trajectory or pair.
        answered: the schema.
        is_swapped: whether b stood first.

    Returns:
        {categories, confidences, reasons}: lists of one length, by the categories' names; or
        {preferred, strength, reason, is_swapped}, the strength of a tie None.

    Raises:
        InvalidAnswerError: there is none.
    """
    verdict = _parsed(response)
    try:
        jsonschema.validate(verdict, answered)
    except jsonschema.ValidationError as error:
        where = "/".join(map(str, error.absolute_path)) or "the answer"
        raise InvalidAnswerError(f"{where} is not as asked ({error.validator})") from error
    if kind == "pair":
        return _of_pair(verdict, is_swapped=is_swapped)
    return _of_trajectory(verdict["categories"])


def _parsed(response: dict[str, Json]) -> Json:
    choice = response["choices"][0]
    if choice["message"].get("refusal"):
        raise InvalidAnswerError("the model refused")
    try:
        return json.loads(first_answer(response).content or "", parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        if choice.get("finish_reason") == "length":
            raise InvalidAnswerError("the answer was cut off: raise max_tokens") from error
        raise InvalidAnswerError("the answer is no JSON") from error


def _of_pair(verdict: Json, *, is_swapped: bool) -> Json:
    sides = SIDES[::-1] if is_swapped else SIDES
    is_tie = verdict["preferred"] == "tie"
    return {
        "preferred": "tie" if is_tie else sides[int(verdict["preferred"]) - 1],
        "strength": None if is_tie else int(verdict["strength"]),
        "reason": _reason(verdict),
        "is_swapped": is_swapped,
    }


def _of_trajectory(shown: list[Json]) -> Json:
    if twice := [name for name, n in Counter(each["category"] for each in shown).items() if n > 1]:
        raise InvalidAnswerError(f"{twice[0]} is given twice")
    if unsure := [each for each in shown if not 0 <= each["confidence"] <= 1]:
        raise InvalidAnswerError(f"the confidence of {unsure[0]['category']} is not from 0 to 1")
    shown = sorted(shown, key=lambda each: each["category"])
    return {
        "categories": [each["category"] for each in shown],
        "confidences": [each["confidence"] for each in shown],
        "reasons": [_reason(each) for each in shown],
    }


def _reason(given: Json) -> str:
    """Its words may be those of who wrote the conversation."""
    return shortened(one_line(given["reason"]), LONGEST_REASON)


def _refused(constant: str) -> Json:
    raise ValueError(f"{constant} is no number")


def _object(**properties: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
