"""A real Chromium of the system's, without a screen."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def executable() -> str:
    """Its path; installed first where it is not there and that is possible."""
    given = os.environ.get("LORELINE_CHROMIUM") or _found()
    if given:
        return given
    with (Path(tempfile.gettempdir()) / "loreline-chromium.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _found() and os.geteuid() == 0 and shutil.which("apt-get"):
            for step in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
                subprocess.run(["apt-get", "--quiet", "--quiet", *step], check=True)
    found = _found()
    assert found, f"no {', '.join(NAMES)}: install one, or set LORELINE_CHROMIUM to its path"
    return found


@contextmanager
def running() -> Iterator[Browser]:
    """A browser, with nothing remembered."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


def _found() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)
