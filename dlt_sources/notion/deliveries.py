"""What a delivery of Notion's webhooks names."""

from __future__ import annotations

import re
from typing import Any

_IDENTITY = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
_KINDS = ("page", "database", "data_source")


def names(body: Any) -> list[str]:
    """The objects that a delivery is about, as `fetch_named` takes them.

    Created, changed, moved and deleted say the same: what there is of it now is asked for.

    Args:
        body: the parsed JSON, whose signature was checked: `entity` says which object changed
            (https://developers.notion.com/reference/webhooks-events-delivery).
    """
    if not isinstance(body, dict):
        return []
    entity, data = body.get("entity"), body.get("data")
    if not isinstance(entity, dict) or not _is_id(entity.get("id")):
        return []
    kind = entity.get("type")
    if kind in _KINDS:
        return [f"{kind}:{entity['id']}"]
    if kind == "comment" and isinstance(data, dict) and _is_id(data.get("page_id")):
        parent = data.get("parent")
        is_in_block = isinstance(parent, dict) and parent.get("type") == "block"
        block = parent["id"] if is_in_block and _is_id(parent.get("id")) else ""
        return [f"comment:{data['page_id']}:{block}"]
    return []


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and _IDENTITY.fullmatch(value) is not None
