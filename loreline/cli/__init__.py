"""The `loreline` command: a thin layer over dbt, dlt and SQL, grouped by job.

What a command needs is imported when it runs, so that `loreline --help` answers at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from loreline.cli.text import one_line, visible
from loreline.errors import LorelineError

INTERRUPTED = 130
PIPE_CLOSED = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    A failure is one line on the error stream. `--debug`, anywhere before a `--`, shows the stack
    trace as well.

    Args:
        arguments: what follows the program's name; `sys.argv` without it when left out.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    given, debug = _without_debug(given)
    try:
        code = _run(given, debug)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has read enough; the interpreter must not flush into it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except LorelineError as error:
        return _fail(str(error), error.exit_code, debug)
    except Exception as error:
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        hint = "" if debug else " (unexpected; run it again with --debug to see where)"
        return _fail(what + hint, 1, debug)


def _run(arguments: list[str], debug: bool) -> int:
    import typer

    from loreline.cli.app import app

    # typer brings its own click and exports only the leaves of its exceptions.
    usage_error = typer.BadParameter.__bases__[0]
    try:
        result = typer.main.get_command(app).main(
            arguments or ["--help"], prog_name="loreline", standalone_mode=False, obj=debug
        )
    except usage_error as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "loreline"
        message = error.format_message()  # type: ignore[attr-defined]
        return _fail(f"{message} See `{command} --help`.", 2, debug=False)
    return result if isinstance(result, int) else 0


def _without_debug(arguments: list[str]) -> tuple[list[str], bool]:
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    kept = [argument for argument in options if argument != "--debug"]
    return kept + arguments[len(options) :], len(kept) < len(options)


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        print(visible(traceback.format_exc()), file=sys.stderr)
    print(f"loreline: {one_line(message)}", file=sys.stderr)
    return code
