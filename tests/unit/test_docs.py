"""The documents for people say what the code does."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import typer

from loreline.cli.app import app
from loreline.cli.ingest import variable
from loreline.settings import PROJECT_ROOT, Settings

DOCS = PROJECT_ROOT / "docs"
PAGES = [PROJECT_ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")


def test_settings_md_has_every_setting_with_its_default() -> None:
    page = (DOCS / "settings.md").read_text()
    documented = [line for line in page.splitlines() if line.startswith("| `LORELINE_")]
    settings = [_row(setting) for setting in fields(Settings)]
    assert documented[: len(settings)] == settings
    files = ("google_docs", "incident_reports", "linear", "log_files", "notion", "slack", "gateway")
    sources = {variable(source) for source in files}
    assert set(re.findall(r"LORELINE_\w+_LOCATION", page)) == sources
    assert len(documented) == len(settings) + len(sources)


def test_commands_md_has_every_command_and_option() -> None:
    page = (DOCS / "commands.md").read_text()
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        row = next(
            (line for line in page.splitlines() if line.startswith(f"| `loreline {name}")), ""
        )
        assert row, f"{name} is not described"
        options = {max(option.opts, key=len) for option in command.params if option.opts}
        missing = [o for o in options if o.startswith("--") and o != "--help" and f"{o}" not in row]
        assert not missing, f"{name} does not mention {missing}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    local = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_shown_exist(page: Path) -> None:
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    shown = {name for block in blocks for name in re.findall(r"^loreline ([a-z-]+)", block, re.M)}
    assert shown <= known


def _row(setting) -> str:
    default = f"`{setting.default}`" if setting.default else ""
    secret = " (secret)" if setting.metadata["secret"] else ""
    return f"| `{setting.metadata['variable']}` | {default} | {setting.metadata['help']}{secret} |"
