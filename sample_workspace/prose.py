"""Prose of the story: wrapped where it is convenient to write, one line where it is sent."""

from __future__ import annotations

import re
from collections.abc import Sequence

# What begins a line of its own in Markdown: an item, a heading, a quote, a row, a fence.
BEGINS = re.compile(r"\s*([-*+] |\d+[.)] |#{1,6} |> |\||```|---$)")


def unwrapped(lines: Sequence[str]) -> str:
    """Markdown with every paragraph and item on one line, code and tables as they are."""
    joined: list[str] = []
    in_code = False
    for line in lines:
        is_fence = line.strip().startswith("```")
        goes_on = joined and joined[-1].strip() and line.strip() and not is_fence and not in_code
        if goes_on and not BEGINS.match(line) and not joined[-1].strip().endswith("```"):
            joined[-1] += " " + line.strip()
        else:
            joined.append(line.rstrip())
        in_code ^= is_fence
    return "\n".join(joined).strip()
