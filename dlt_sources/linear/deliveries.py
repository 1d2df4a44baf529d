"""What a delivery of one of Linear's webhooks names."""

from __future__ import annotations

import re
from typing import Any

from dlt_sources.linear.settings import TYPES

# Only ids of this form reach a query.
IDENTITY = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def names(body: Any) -> list[str]:
    """The objects that a delivery is about, as `fetch_named` takes them: `issues:<id>`.

    Created, changed and removed say the same: what there is of it now is asked for. A delivery
    about something that does not land, such as a reaction, names nothing.

    Args:
        body: the parsed JSON, whose signature was checked; its `type` is one of Linear's schema,
            its `data` the object (https://linear.app/developers/webhooks).
    """
    if not isinstance(body, dict) or not isinstance(body.get("data"), dict):
        return []
    kind, identity = body.get("type"), body["data"].get("id")
    table = TYPES.get(kind) if isinstance(kind, str) else None
    if table is None or not isinstance(identity, str) or not IDENTITY.fullmatch(identity):
        return []
    return [f"{table}:{identity}"]
