"""The one kind of error that reaches people: what failed, why, and what to do next."""

from __future__ import annotations


class LorelineError(Exception):
    """A failure that the command line prints as one line and turns into its exit code.

    Args:
        what: the thing that failed, named ("Iceberg catalog at http://… refused the token").
        next_step: what the reader should do ("check LORELINE_CATALOG_CREDENTIAL").
        exit_code: the process's exit code; 1 unless the caller distinguishes cases.
    """

    def __init__(self, what: str, next_step: str = "", *, exit_code: int = 1) -> None:
        super().__init__(f"{what}: {next_step}" if next_step else what)
        self.what = what
        self.next_step = next_step
        self.exit_code = exit_code
