"""Steps of a benchmark as processes of their own.

It imports nothing but the standard library: what a step imports is part of what is measured.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def timed_process(arguments: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Run `python -m …` from the project's root: its seconds, and its peak resident memory in MB.

    The operating system tells the memory: without that of the stack's services.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=output,
        )
        _, status, usage = os.wait4(child.pid, 0)
        if os.waitstatus_to_exitcode(status):
            output.seek(0)
            sys.exit(f"{' '.join(arguments)} failed:\n{output.read().decode()[-4000:]}")
    return time.monotonic() - started, usage.ru_maxrss / 1024
