"""The SQL prompt: history, statements over several lines, and a way out of a long one."""

from __future__ import annotations

import atexit
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from loreline.cli.output import say
from loreline.cli.sql import run
from loreline.cli.text import one_line
from loreline.errors import LorelineError

if TYPE_CHECKING:
    import duckdb

FIRST = "loreline> "
CONTINUED = "     ...> "
WELCOME = (
    "The lake is attached as lake, Postgres as pg, both read-only. A statement ends with ;\n"
    ".tables lists tables, .schema NAME their columns; Ctrl-C cancels, Ctrl-D leaves."
)

# Strings, quoted names and comments, in which a semicolon ends nothing.
_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/""", re.DOTALL)
_UNCLOSED = re.compile(r"""'|"|/\*""")


def converse(connection: duckdb.DuckDBPyConnection, history: Path, *, as_json: bool) -> None:
    """Read statements and run them until the end of the input.

    Args:
        connection: where they run.
        history: file that remembers them between sessions.
        as_json: print results as JSON.
    """
    _remember_lines(history)
    say(WELCOME)
    pending = ""
    while True:
        try:
            line = input(CONTINUED if pending else FIRST)
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            pending = ""
            continue
        pending = f"{pending}\n{line}".strip()
        if pending in (".quit", ".exit"):
            return
        if not is_complete(pending):
            continue
        statement, pending = pending, ""
        try:
            run(connection, statement, as_json=as_json)
        except LorelineError as error:
            print(one_line(str(error)), file=sys.stderr)
        except KeyboardInterrupt:
            print("cancelled", file=sys.stderr)


def is_complete(text: str) -> bool:
    """Whether text is a dot command, or SQL that ends with a semicolon outside of quotes."""
    if text.startswith("."):
        return True
    bare = _QUOTED.sub(" ", text)
    return bare.rstrip().endswith(";") and not _UNCLOSED.search(bare)


def _remember_lines(history: Path) -> None:
    try:
        import readline
    except ImportError:  # a Python built without it still reads lines
        return
    history.touch(mode=0o600)
    with suppress(OSError):
        readline.read_history_file(history)
    readline.set_history_length(2_000)
    atexit.register(readline.write_history_file, history)
