"""A real LiteLLM proxy with models that only pretend, in an environment of its own.

A current one does not resolve beside the rest of the project.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loreline.settings import PROJECT_ROOT

LOCK = Path(__file__).with_name("litellm.lock")
ENVIRONMENT = PROJECT_ROOT / ".litellm"
KEY = "sk-loreline-tests"
SECONDS_TO_START = 120


def environment() -> Path:
    """The environment's folder of commands; made, in a minute or two, when it is not there."""
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    ENVIRONMENT.mkdir(exist_ok=True)
    with (ENVIRONMENT / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        installed = ENVIRONMENT / "installed"
        folder = ENVIRONMENT / "venv"
        if not installed.exists() or installed.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            pip = [folder / "bin" / "pip", "--quiet", "--disable-pip-version-check", "install"]
            subprocess.run([*pip, "--no-deps", "--no-compile", "-r", LOCK], check=True)
            installed.write_text(wanted)
    return folder / "bin"


@contextmanager
def litellm_proxy(
    folder: Path,
    models: dict[str, dict[str, Any]],
    posts_to: str = "",
    posted_with: dict[str, str] | None = None,
) -> Iterator[str]:
    """Run a proxy, and give the URL of its API.

    Args:
        folder: for its configuration and log.
        models: what LiteLLM is told of each, such as `mock_response`, by its name.
        posts_to: where its generic API callback posts its records of calls.
        posted_with: headers; without any it leaves the callback out.
    """
    callback = {"callback_type": "generic_api", "endpoint": posts_to, "headers": posted_with}
    recording = {"callbacks": ["loreline"]} if posts_to else {}
    named = [
        {"model_name": name, "litellm_params": {"model": f"openai/{name}", "api_key": "x", **said}}
        for name, said in models.items()
    ]
    config = folder / "litellm.json"  # which is YAML as well
    config.write_text(
        json.dumps(
            {
                "model_list": named,
                "general_settings": {"master_key": KEY},
                "litellm_settings": {"telemetry": False, **recording},
                "callback_settings": {"loreline": callback} if posts_to else {},
            }
        )
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [environment() / "litellm", "--config", config]
    # The prices that it would fetch are in the package, too.
    variables = {
        **os.environ,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "DEFAULT_FLUSH_INTERVAL_SECONDS": "1",
    }
    with (folder / "litellm.log").open("w") as log:
        proxy = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env=variables,
            stdout=log,
            stderr=log,
        )
    try:
        _wait(f"http://127.0.0.1:{port}/health/liveliness", proxy, folder / "litellm.log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        proxy.terminate()
        proxy.wait()


def _wait(url: str, proxy: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(10 * SECONDS_TO_START):
        assert proxy.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"LiteLLM does not answer: {log.read_text()}")
