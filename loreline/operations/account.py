"""Who runs this, for records of what somebody decided."""

from __future__ import annotations

import getpass


def who() -> str:
    """The name of the account that runs this."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
