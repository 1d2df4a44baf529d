"""Markdown of a Slack message: its mrkdwn text, or its blocks, with attachments and files.

mrkdwn: https://api.slack.com/reference/surfaces/formatting; blocks:
https://api.slack.com/reference/block-kit/blocks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from loreline.knowledge.markdown_syntax import code_span, edges, fenced_code, link
from loreline.knowledge.source_text import (
    canonical_text,
    dictionaries,
    dictionary,
    one_line,
    parse_json,
    string,
)

# Raise it whenever the same message and names would give another Markdown.
CANONICALIZER_VERSION = 2

Names = Mapping[str, str]

_FENCE = re.compile(r"```(.+?)```", re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_ENTITY = re.compile(r"<([^<>\n]+)>")
_QUOTE = re.compile(r"(?:&gt;|>)(?!(?:&gt;|>){2}) ?")
_QUOTED_REST = re.compile(r"(?:&gt;|>){3} ?")

# A mark opens after no letter and before no space, and closes the other way round.
_EMPHASIS = [
    (re.compile(rf"(?<![\w{m}]){m}(?![\s{m}])([^{m}\n]*?[^\s{m}]){m}(?![\w{m}])"), mark)
    for m, mark in ((r"\*", "**"), ("_", "*"), ("~", "~~"))
]
_STYLES = {"strike": "~~", "bold": "**", "italic": "*"}

# Slack has no headings, and no fences but those that are taken out first.
_BLOCK_MARK = re.compile(
    r"^([ \t]*)(#{1,6}(?=\s|$)|=+[ \t]*$|-{3,}[ \t]*$|`{3,}|~{3,})", re.MULTILINE
)
_EMPTY_LINES = re.compile(r"\n{3,}")
_KEPT = re.compile(r"\0(\d+)\0")
# A paragraph that begins in bold may begin as a message of a conversation does: `**Name:** …`.
_BOLD_BEGINNING = re.compile(r"(?<=\n\n)\*\*[^\n]*")
_COLON_IN_BOLD = re.compile(r":\*\*(?=\s|\Z)")


def slack_markdown(message: str, names: Names) -> str:
    """Markdown of what a message says.

    The text; where it is empty the blocks; then attachments, except previews of links, and files.
    No paragraph after the first looks like the beginning of another message, `**Name:** …`: there
    the colon is behind the bold text, which shows the same.

    Args:
        message: JSON text of a message as history, export or event hold it; what is no JSON object
            says nothing.
        names: display name by id of users, and of groups and channels where known; an unknown id
            stands for itself.
    """
    content = dictionary(parse_json(message))
    parts = [_mrkdwn(content.get("text"), names) or _blocks(content.get("blocks"), names)]
    parts += [_attachment(a, names) for a in dictionaries(content.get("attachments"))]
    parts += [_file(file) for file in dictionaries(content.get("files"))]
    text = canonical_text("\n\n".join(filter(None, parts)))
    return _BOLD_BEGINNING.sub(lambda found: _COLON_IN_BOLD.sub("**:", found[0]), text)


def _mrkdwn(text: Any, names: Names) -> str:
    """Markdown of a mrkdwn text; code, mentions and links are set aside while marks are found."""
    kept: list[str] = []

    def keep(markdown: str) -> str:
        kept.append(markdown)
        return f"\0{len(kept) - 1}\0"

    parts = _FENCE.split(string(text))
    parts[1::2] = [keep(_fenced(code)) for code in parts[1::2]]
    text = "\n\n".join(part.strip() for part in parts)
    text = _CODE.sub(lambda found: keep(code_span(_as_typed(found[1]))), text)
    text = _ENTITY.sub(lambda found: keep(_entity(found[1], names)), text)
    for pattern, mark in _EMPHASIS:
        text = pattern.sub(rf"{mark}\1{mark}", text)
    text = _escaped(_unescaped(_quoted(text)))
    text = _EMPTY_LINES.sub("\n\n", text).strip()
    return _KEPT.sub(lambda found: kept[int(found[1])], text)


def _fenced(code: str) -> str:
    return fenced_code(_as_typed(code).strip("\n"))


def _as_typed(code: str) -> str:
    """Code as it was typed: Slack makes links of the addresses in it."""
    return _unescaped(_ENTITY.sub(lambda found: found[1].split("|")[-1], code))


def _unescaped(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _escaped(text: str) -> str:
    return _BLOCK_MARK.sub(r"\1\\\2", text)


def _quoted(text: str) -> str:
    """Slack's quoted lines as Markdown's, each run of them a paragraph."""
    lines: list[str] = []
    rest_is_quoted = was_quoted = False
    for line in text.split("\n"):
        mark = _QUOTED_REST.match(line) or _QUOTE.match(line)
        rest_is_quoted = rest_is_quoted or bool(_QUOTED_REST.match(line))
        is_quoted = rest_is_quoted or bool(mark)
        if was_quoted and not is_quoted and line.strip():
            lines.append("")
        content = line[mark.end() :] if mark else line
        lines.append(f"> {content}" if is_quoted else line)
        was_quoted = is_quoted
    return "\n".join(lines)


def _entity(entity: str, names: Names) -> str:
    """What Slack writes in angle brackets: a mention, a channel, a command or a link."""
    target, _, label = _unescaped(entity).partition("|")
    label = label.strip()
    if target.startswith("@"):
        return "@" + (names.get(target[1:]) or label or target[1:])
    if target.startswith("#"):
        return "#" + (label or names.get(target[1:]) or target[1:])
    if target.startswith("!"):
        command, _, argument = target[1:].partition("^")
        if command == "date":
            return label
        name = names.get(argument) or label.removeprefix("@") or argument or command
        return f"@{name}"
    if target.startswith("mailto:") and label in ("", target.removeprefix("mailto:")):
        return target.removeprefix("mailto:")
    return link(label, target)


def _attachment(attachment: dict[str, Any], names: Names) -> str:
    """A bot's or app's card; nothing for the preview of a link, which is not what was said."""
    if attachment.get("from_url") or attachment.get("is_msg_unfurl"):
        return ""
    title, url = one_line(string(attachment.get("title"))), string(attachment.get("title_link"))
    parts = [
        _mrkdwn(attachment.get("pretext"), names),
        link(_unescaped(title), url) if title and url else _mrkdwn(title, names),
        _mrkdwn(attachment.get("text"), names) or _blocks(attachment.get("blocks"), names),
    ]
    for field in dictionaries(attachment.get("fields")):
        name, value = _mrkdwn(field.get("title"), names), _mrkdwn(field.get("value"), names)
        parts.append(f"**{one_line(name)}**: {value}" if name and value else name or value)
    said = [part for part in parts if part]
    return "\n\n".join(said) or _mrkdwn(attachment.get("fallback"), names)


def _file(file: dict[str, Any]) -> str:
    title = one_line(string(file.get("title")) or string(file.get("name")))
    url = string(file.get("permalink"))
    if file.get("mode") == "tombstone" or not title:
        return ""
    named = link(title, url) if url else title
    preview = string(file.get("preview")).strip("\n") if file.get("mode") == "snippet" else ""
    return "\n\n".join([named, fenced_code(preview)] if preview else [named])


def _blocks(blocks: Any, names: Names) -> str:
    """Markdown of Block Kit's blocks that hold text."""
    parts = []
    for block in dictionaries(blocks):
        kind = block.get("type")
        if kind == "rich_text":
            elements = dictionaries(block.get("elements"))
            parts.append("\n\n".join(filter(None, (_rich_block(e, names) for e in elements))))
        elif kind == "header":
            title = one_line(_text_object(block.get("text"), names))
            parts.append(f"**{title}**" if title else "")
        elif kind == "markdown":
            parts.append(string(block.get("text")).strip())
        elif kind in ("section", "context", "image", "video"):
            shown = [block.get("text"), *dictionaries(block.get("fields")), block.get("title")]
            shown += dictionaries(block.get("elements"))
            said = (_text_object(text, names) for text in shown)
            parts.append("\n\n".join(filter(None, said)))
    return "\n\n".join(filter(None, parts))


def _text_object(text: Any, names: Names) -> str:
    text = dictionary(text)
    if text.get("type") == "mrkdwn":
        return _mrkdwn(text.get("text"), names)
    return _escaped(string(text.get("text")).strip()) or string(text.get("alt_text"))


def _rich_block(block: dict[str, Any], names: Names) -> str:
    """A paragraph, list, quote or code block of a rich text."""
    kind, elements = block.get("type"), dictionaries(block.get("elements"))
    if kind == "rich_text_preformatted":
        code = "".join(string(e.get("text")) or string(e.get("url")) for e in elements)
        return fenced_code(code.strip("\n")) if code.strip() else ""
    if kind == "rich_text_list":
        indent = block.get("indent")
        indentation = "    " * (min(indent, 8) if isinstance(indent, int) else 0)
        items = (_rich_section(dictionaries(e.get("elements")), names) for e in elements)
        is_ordered = block.get("style") == "ordered"
        return "\n".join(
            f"{indentation}{f'{number}.' if is_ordered else '-'} {one_line(item)}"
            for number, item in enumerate(items, 1)
        )
    text = _rich_section(elements, names)
    if kind == "rich_text_quote":
        return "\n".join(f"> {line}" for line in text.split("\n")) if text else ""
    return text


def _rich_section(elements: list[dict[str, Any]], names: Names) -> str:
    return _escaped("".join(_rich_element(element, names) for element in elements).strip())


def _rich_element(element: dict[str, Any], names: Names) -> str:
    kind = element.get("type")
    lead, text, trail = edges(_rich_text(kind, element, names))
    style = dictionary(element.get("style"))
    if text and style.get("code") is True and kind == "text":
        text = code_span(text)
    for name, mark in _STYLES.items():
        if text and style.get(name) is True:
            text = f"{mark}{text}{mark}"
    return lead + text + trail


def _rich_text(kind: Any, element: dict[str, Any], names: Names) -> str:
    if kind == "link":
        return link(string(element.get("text")), string(element.get("url")))
    if kind in ("user", "usergroup"):
        mentioned = string(element.get(f"{kind}_id"))
        return f"@{names.get(mentioned) or mentioned}"
    if kind == "channel":
        channel = string(element.get("channel_id"))
        return f"#{names.get(channel) or channel}"
    if kind == "broadcast":
        return f"@{string(element.get('range'))}"
    if kind == "emoji":
        return f":{string(element.get('name'))}:"
    return string(element.get("text")) or string(element.get("fallback"))
