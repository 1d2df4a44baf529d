"""How long a change in a workspace takes to become true in search: `make demo-live`.

Simulators stand for Notion, Slack, Linear and Google behind real HTTP, a stack of its own for the
stores. Everything else is what users run: `loreline ingest --all`, `loreline build`, `loreline
serve`. Then somebody edits a page, deletes a message, closes an issue and takes a permission back;
each service delivers its webhook, signed, and search is asked until it is so.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.process import ROOT
from loreline import stack
from loreline.cli.output import print_table, say
from loreline.postgres import connect
from loreline.serving.search import PUBLIC, search
from loreline.settings import Settings
from tests.simulators import google_drive, linear, notion, slack
from tests.simulators.api import serving

SECRET = "a secret of the demonstration"
SECONDS = 60.0
READER = "ana@example.com"
LORELINE = "import sys; from loreline.cli import main; sys.exit(main())"

Json = Any


@dataclass
class Workspaces:
    """What there is in each service, and where it is served."""

    notion: notion.Workspace
    slack: slack.Slack
    linear: linear.Linear
    google: google_drive.Workspace
    environment: dict[str, str]


@dataclass(frozen=True)
class Change:
    """Something that somebody does.

    Attributes:
        what: in words.
        happens: makes it so in the service, and gives the route and content of its delivery.
        is_true: whether search says so.
    """

    what: str
    happens: Callable[[], tuple[str, Json]]
    is_true: Callable[[], bool]


def main() -> None:
    """Start everything, change four things, and say how long each took."""
    with tempfile.TemporaryDirectory(prefix="loreline-demo-") as folder:
        home = Path(folder)
        try:
            say("Starting the stores and the simulators …")
            stack.up(home)
            _demonstrate(home)
        finally:
            stack.down(home)


def _demonstrate(home: Path) -> None:
    with _workspaces(home) as workspaces:
        environment = {**os.environ, **workspaces.environment, "LORELINE_HOME": str(home)}
        before = dict(os.environ)
        os.environ.update(environment)
        try:
            settings = Settings.load()
            say("Landing and building what is there …")
            changes = _changes(settings, workspaces)
            _run(environment, "ingest", "--all")
            _run(environment, "build", "--changed", "--exclude-resource-type", "test")
            with _service(environment) as url:
                rows = [[change.what, _seconds(url, change)] for change in changes]
        finally:
            os.environ.clear()
            os.environ.update(before)
    say()
    print_table(["what happened", "seconds until search says so"], rows)
    taken = [row[1] for row in rows]
    say()
    say(f"{len(rows)} changes, true in search after {min(taken)} to {max(taken)} s.")


@contextmanager
def _workspaces(home: Path) -> Iterator[Workspaces]:
    with ExitStack() as held:
        services = (
            notion.Workspace(),
            slack.Slack(),
            linear.Linear(),
            google_drive.Workspace(),
        )
        urls = [held.enter_context(serving(service)).url for service in services]
        credentials = home / "google.json"
        credentials.write_text(google_drive.credentials(urls[3]))
        environment = {
            "LORELINE_NOTION_TOKEN": notion.TOKEN,
            "LORELINE_NOTION_URL": urls[0],
            "LORELINE_NOTION_WEBHOOK_TOKEN": SECRET,
            "LORELINE_SLACK_TOKEN": "xoxb-1",
            "LORELINE_SLACK_URL": f"{urls[1]}/api",
            "LORELINE_SLACK_SIGNING_SECRET": SECRET,
            "LORELINE_LINEAR_API_KEY": "lin_api_key",
            "LORELINE_LINEAR_URL": f"{urls[2]}/graphql",
            "LORELINE_LINEAR_WEBHOOK_SECRET": SECRET,
            "LORELINE_GOOGLE_CREDENTIALS": str(credentials),
            "LORELINE_GOOGLE_URL": urls[3],
            "LORELINE_GOOGLE_DOCS_URL": urls[3],
            "LORELINE_GOOGLE_CHANNEL_TOKEN": SECRET,
            **{f"LORELINE_{name}_RATE": "0" for name in ("NOTION", "SLACK", "LINEAR", "GOOGLE")},
        }
        yield Workspaces(*services, environment)


def _changes(settings: Settings, there: Workspaces) -> list[Change]:
    """What there is at first, and what somebody does with it."""

    def finds(words: str, *principals: str) -> bool:
        with connect(settings) as connection:
            return bool(search(connection, settings, words, None, principals or PUBLIC, 10))

    def says(text: str, words: str) -> bool:
        with connect(settings) as connection:
            hits = search(connection, settings, words, None, PUBLIC, 10)
        return any(text in hit.text for hit in hits)

    page = there.notion.add_page("Runbook of the till")
    there.notion.add_block(page.id, "A flag takes effect within fifteen seconds.")
    channel = there.slack.add_channel(name="till")
    message = there.slack.post(channel, "The courier brings marmalade on Thursday.")
    there.slack.post(channel, "Nobody knows why.")
    there.linear.user("Ana")
    team = there.linear.team("TILL")
    doing, done = linear.STATES[0], linear.STATES[-1]
    issue = there.linear.issue(team, "Receipts are printed twice", state=doing)
    document = there.google.create("Offer for Saltmarsh", shared={READER: "reader"})
    there.google.edit(document, "We offer a lighthouse and two boats.")
    reader = f"google_docs:{READER}"

    def edit_page() -> tuple[str, Json]:
        there.notion.add_block(page.id, "Since the zeppelin update it takes two.")
        about = {"id": page.id, "type": "page"}
        return "notion", {"id": str(uuid.uuid4()), "type": "page.content_updated", "entity": about}

    def delete_message() -> tuple[str, Json]:
        there.slack.delete(channel, message)
        event = {
            "type": "message",
            "subtype": "message_deleted",
            "channel": channel.id,
            "deleted_ts": message,
            "previous_message": {"ts": message},
        }
        return "slack", {"event_id": f"Ev{uuid.uuid4().hex}", "event": event}

    def close_issue() -> tuple[str, Json]:
        there.linear.edit("issues", issue, state=done)
        return "linear", {"type": "Issue", "action": "update", "data": {"id": issue}}

    def revoke() -> tuple[str, Json]:
        there.google.share(document, READER, None)
        return "google-drive", None

    return [
        Change("a Notion page was edited", edit_page, lambda: finds("zeppelin")),
        Change("a Slack message was deleted", delete_message, lambda: not finds("marmalade")),
        Change(
            "a Linear issue was closed",
            close_issue,
            lambda: says(f"Status:** {done['name']}", "receipts"),
        ),
        Change("a permission was revoked", revoke, lambda: not finds("lighthouse", reader)),
    ]


@contextmanager
def _service(environment: dict[str, str]) -> Iterator[str]:
    """`loreline serve` with its worker."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    arguments = [sys.executable, "-c", LORELINE, "serve", "--port", str(port)]
    with tempfile.NamedTemporaryFile() as output:
        process = subprocess.Popen(
            arguments, env=environment, cwd=ROOT, stdout=output, stderr=output
        )
        url = f"http://127.0.0.1:{port}"
        try:
            _until(lambda: _is_ready(url), "the service becomes ready")
            shown = Path(output.name)
            _until(lambda: b"waiting for deliveries" in shown.read_bytes(), "the worker begins")
            yield url
        except BaseException:
            output.seek(0)
            sys.stderr.write(output.read().decode(errors="replace")[-4_000:])
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _is_ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/readyz").status_code == 200
    except httpx2.TransportError:
        return False


def _seconds(url: str, change: Change) -> float:
    """How long it took until search said so."""
    if change.is_true():
        sys.exit(f"it is so before it happened: {change.what}")
    route, content = change.happens()
    began = time.monotonic()
    _deliver(url, route, content)
    _until(change.is_true, f"search says that {change.what}")
    return round(time.monotonic() - began, 1)


def _deliver(url: str, route: str, content: Json) -> None:
    """Send a delivery as the service signs it."""
    now = time.time()
    if route == "linear":
        content = {**content, "webhookTimestamp": int(now * 1000)}
    body = b"" if content is None else json.dumps(content).encode()
    stamp = str(int(now))
    headers = {
        "notion": {"x-notion-signature": f"sha256={_signature(body)}"},
        "slack": {
            "x-slack-request-timestamp": stamp,
            "x-slack-signature": f"v0={_signature(f'v0:{stamp}:'.encode() + body)}",
        },
        "linear": {"linear-signature": _signature(body), "linear-delivery": str(uuid.uuid4())},
        "google-drive": {
            "x-goog-channel-token": SECRET,
            "x-goog-channel-id": "demonstration",
            "x-goog-message-number": "2",
            "x-goog-resource-state": "change",
        },
    }[route]
    answer = httpx2.post(f"{url}/webhooks/{route}", content=body, headers=headers, timeout=30)
    if answer.status_code != 200:
        sys.exit(f"/webhooks/{route} answered {answer.status_code}: {answer.text}")


def _signature(content: bytes) -> str:
    return hmac.new(SECRET.encode(), content, hashlib.sha256).hexdigest()


def _run(environment: dict[str, str], *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LORELINE, *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"loreline {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}"[-4_000:])


def _until(is_true: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + SECONDS
    while not is_true():
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not within {SECONDS:.0f} s")
        time.sleep(0.1)


if __name__ == "__main__":
    main()
