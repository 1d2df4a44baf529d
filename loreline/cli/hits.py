"""How a search result looks in a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from loreline.cli.output import console
from loreline.cli.text import excerpt, one_line, visible

if TYPE_CHECKING:
    from loreline.serving.answers import Passage
    from loreline.serving.search import Hit

TEXT_CHARACTERS = 400
INDENT = 3


def print_passage(
    place: int | None,
    passage: Passage,
    query: str,
    principals: Sequence[str],
    readers: Sequence[str] | None = None,
) -> None:
    """Print one passage; with `readers`, also its ranks and why the principals may see it.

    Titles and texts come from whoever wrote them: they are shown as text, never as markup or as
    what a terminal obeys.

    Args:
        place: among the answers; None for a further passage of the document above.
        passage: what to show.
        query: as asked: the part with most of its words is shown.
        principals: who asked.
        readers: who may read it.
    """
    hit = passage.hit
    title = one_line(hit.title or "") or "(untitled)"
    terminal = console()
    if place is not None:
        heading = Text.assemble((f"{place:>2} ", "dim"), (title, "bold"))
        heading.truncate(terminal.width, overflow="ellipsis")
        terminal.print(heading)
    details = [Text(_whence(hit), style="dim")]
    if readers is not None:
        details.append(Text(explanation(hit, principals, readers), style="cyan"))
    paragraphs = "\n".join(line.rstrip() for line in passage.text.splitlines() if line.strip())
    text = Text(visible(excerpt(paragraphs, query, TEXT_CHARACTERS)))
    if words := {passage.text[first:end] for first, end in passage.highlights}:
        text.highlight_regex(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)", "bold yellow")
    details.append(text)
    if hit.url:
        url = one_line(hit.url)
        # A terminal opens it at a click; what is no web address is shown and not linked.
        is_link = hit.url == url and re.match(r"https?://[!-~]+\Z", url)
        details.append(Text(url, style=f"blue link {url}" if is_link else "blue"))
    for detail in details:
        for line in detail.wrap(terminal, max(terminal.width - INDENT, INDENT), overflow="fold"):
            line.rstrip()
            terminal.print(Text(" " * INDENT) + line)
    terminal.print()


def explanation(hit: Hit, principals: Sequence[str], readers: Sequence[str]) -> str:
    """The ranks of a hit, and through which principals it is visible."""
    ranks = [
        f"{name} #{rank}" if rank else f"{name} –"
        for name, rank in (("dense", hit.dense_rank), ("lexical", hit.lexical_rank))
    ]
    if hit.rerank_score is not None:
        ranks.append(f"re-ranked {hit.rerank_score:.3f}")
    through = [principal for principal in principals if principal in readers]
    if "public" in through:
        reason = "visible because it is public"
    elif through:
        reason = f"visible to {', '.join(through)}, one of {len(readers)} readers"
    else:
        reason = "its permissions have just changed"
    return one_line(f"score {hit.score:.3f} · {' · '.join(ranks)} · {reason}")


def _whence(hit: Hit) -> str:
    when = f"{hit.source_updated_at:%Y-%m-%d}" if hit.source_updated_at else ""
    place = f"#{hit.container}" if hit.source == "slack" and hit.container else hit.container or ""
    headings = " › ".join(hit.heading_path or [])
    return one_line(" · ".join(part for part in (hit.source or "", place, when, headings) if part))
