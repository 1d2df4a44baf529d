"""A Markdown file with YAML between two lines of dashes before it.

Every value stays the text that was written: YAML would make other things of `no`, `2026-09-17` and
`1e3`, and different readers different ones.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from loreline.knowledge.source_text import clean_text

_FRONT_MATTER = re.compile(r"---[ \t]*\n(?:(.*?)\n)??(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_NOTHING = ("", "~", "null", "Null", "NULL")


class BadReport(Exception):  # noqa: N818 - the file is at fault, not the program
    """A file that is not a report that can be landed.

    Args:
        reason: invalid_utf8, nul_byte, broken_yaml, wrong_type or field_too_large.
        detail: what exactly is wrong, for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class _Texts(yaml.BaseLoader):
    """Reads maps, lists and texts, nothing else."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        # An alias in an alias in an alias is a text of a kilobyte that takes a gigabyte.
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if not isinstance(key, str):
                raise yaml.YAMLError(f"a key is not text, line {node.start_mark.line + 1}")
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"key {key!r} is given twice")
        return super().construct_mapping(node, deep)


def read_report(raw: bytes) -> tuple[dict[str, Any], str]:
    """The fields and the Markdown of a report; no fields where it has no front matter.

    Raises:
        BadReport: it is not text in UTF-8, or its front matter is no YAML map.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadReport("invalid_utf8", str(error)[:200]) from None
    if "\0" in text:
        raise BadReport("nul_byte", f"byte {raw.index(0)} is NUL")
    text = clean_text(text)
    found = _FRONT_MATTER.match(text)
    if not found:
        if re.match(r"---[ \t]*\n", text):
            raise BadReport("broken_yaml", "the front matter has no line --- at its end")
        return {}, text
    try:
        fields = yaml.load(found[1] or "", Loader=_Texts)  # noqa: S506 - it makes texts, lists and maps
    except (yaml.YAMLError, RecursionError) as error:
        raise BadReport("broken_yaml", " ".join(str(error).split())[:300]) from None
    if fields in (None, ""):
        fields = {}
    if not isinstance(fields, dict):
        raise BadReport("wrong_type", f"the front matter is a {type(fields).__name__}, not a map")
    said = {key: value for key, value in fields.items() if value not in _NOTHING}
    return said, text[found.end() :]
