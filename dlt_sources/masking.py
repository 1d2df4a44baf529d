"""Masking keys and tokens before they land."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import orjson
import pyarrow as pa

from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation
from dlt_sources.versions import canonical_json
from loreline.errors import LorelineError
from loreline.redaction import Redactor, landing_rules
from loreline.settings import Settings

Json = Any
Item = Observation | Reject | pa.Table

# What is looked through at once.
_ITEMS = 500
_CHARACTERS = 4 * 1024 * 1024


class Masking:
    """Masks what the rules for landing find in texts; nothing where the setting is off.

    Keys, ids and numbers stay as they are.

    Args:
        settings: whether to.
        counts: finds by rule, added to.
    """

    def __init__(self, settings: Settings, counts: Counter[str]) -> None:
        self._redactor = Redactor(landing_rules()) if settings.mask_secrets == "true" else None
        self._counts = counts

    def masked(self, items: Iterable[Item]) -> Iterable[Item]:
        """The items, in their order, some of them looked through at a time."""
        return items if self._redactor is None else self._masked(items)

    def _masked(self, items: Iterable[Item]) -> Iterator[Item]:
        waiting: list[Item] = []
        texts: list[str] = []
        size = 0
        failure: LorelineError | None = None
        try:
            for item in items:
                found = list(_texts_of(item))
                waiting.append(item)
                texts += found
                size += sum(map(len, found))
                if len(waiting) >= _ITEMS or size >= _CHARACTERS:
                    yield from self._replaced(waiting, texts)
                    waiting, texts, size = [], [], 0
        except LorelineError as error:
            # What was read before the failure lands all the same.
            failure = error
        yield from self._replaced(waiting, texts)
        if failure:
            raise failure

    def _replaced(self, items: list[Item], texts: list[str]) -> Iterator[Item]:
        assert self._redactor is not None
        distinct = list(dict.fromkeys(texts))
        masked, finds = self._redactor.redact(distinct) if distinct else ([], [])
        found = dict(zip(distinct, finds, strict=True))
        for text in texts:
            self._counts.update(found[text])
        others = {text: mask for text, mask in zip(distinct, masked, strict=True) if text != mask}
        for item in items:
            yield _with(item, others) if others else item


def _texts_of(item: Item) -> Iterator[str]:
    if isinstance(item, Reject):
        yield item.raw.decode(errors="replace")
        yield item.detail
    elif isinstance(item, Observation):
        yield from _strings(item.payload)
    else:
        for payload in item["payload"].to_pylist():
            yield from _strings(orjson.loads(payload))


def _with(item: Item, others: dict[str, str]) -> Item:
    if isinstance(item, Reject):
        raw = item.raw.decode(errors="replace")
        masked = others[raw].encode() if raw in others else item.raw
        return replace(item, raw=masked, detail=others.get(item.detail, item.detail))
    if isinstance(item, Observation):
        return replace(item, payload=_replace(item.payload, others), raw=None)
    payloads = [
        canonical_json(_replace(orjson.loads(payload), others)).decode()
        for payload in item["payload"].to_pylist()
    ]
    place = item.column_names.index("payload")
    return item.set_column(place, "payload", pa.array(payloads, pa.string()))


def _strings(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)


def _replace(value: Json, others: dict[str, str]) -> Json:
    if isinstance(value, str):
        return others.get(value, value)
    if isinstance(value, dict):
        return {name: _replace(each, others) for name, each in value.items()}
    if isinstance(value, list):
        return [_replace(each, others) for each in value]
    return value
