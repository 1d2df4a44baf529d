"""Sources that are read from a bucket or a git repository."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dlt_sources import load
from dlt_sources.objects import file_system
from dlt_sources.remote import local_copy, without_password
from loreline.errors import LorelineError
from loreline.lake import duck
from loreline.settings import Settings

AUTHOR = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Ana"), ("EMAIL", "ana@example.org"))
}


class Repository:
    """A git repository on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> None:
        subprocess.run(
            ["git", *arguments], cwd=self.folder, check=True, env={**os.environ, **AUTHOR}
        )

    def commit(self, **texts: str | None) -> None:
        for name, text in texts.items():
            path = self.folder / "reports" / f"{name}.md"
            path.parent.mkdir(exist_ok=True)
            path.unlink(missing_ok=True)
            if text is not None:
                path.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "reports")

    @property
    def address(self) -> str:
        return f"git+file://{self.folder}@main#subdirectory=reports"


def reports(settings: Settings) -> dict[str, str]:
    with duck.connect(settings) as lake:
        rows = lake.execute(
            "select external_id, json_extract_string(payload, '$.body')"
            f" from lake.{settings.prefix}raw_incident_reports.reports"
            " qualify row_number() over (partition by external_id order by observed_at desc) = 1"
            " and not is_deleted"
        )
        return dict(rows.fetchall())


def test_incident_reports_follow_a_repository(settings: Settings, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repository")
    repository.commit(one="first", two="second")
    assert load(settings, "incident_reports", repository.address).rows == 2
    again = load(settings, "incident_reports", repository.address)
    assert (again.rows, again.snapshots) == (0, {})

    repository.commit(one="first, edited", two=None, three="third")
    changed = load(settings, "incident_reports", repository.address)
    assert (changed.rows, changed.tombstones) == (3, 1)
    assert reports(settings) == {"one": "first, edited", "three": "third"}

    # What was said before is said again, later: the newest commit is what is so now.
    repository.git("reset", "--quiet", "--hard", "HEAD~1")
    load(settings, "incident_reports", repository.address)
    assert reports(settings) == {"one": "first", "two": "second"}


def test_incident_reports_follow_a_bucket(settings: Settings) -> None:
    bucket = f"{settings.landing_url}/{settings.prefix}reports"
    store = file_system(settings, bucket)
    store.pipe_file(f"{bucket}/2026/one.md", b"first")
    store.pipe_file(f"{bucket}/two.md", b"second")
    assert load(settings, "incident_reports", bucket).rows == 2
    assert load(settings, "incident_reports", bucket).rows == 0
    store.pipe_file(f"{bucket}/two.md", b"second, edited")
    store.rm_file(f"{bucket}/2026/one.md")
    # An absent object says nothing, unless the bucket says that it is complete.
    assert load(settings, "incident_reports", bucket).rows == 1
    assert reports(settings) == {"one": "first", "two": "second, edited"}
    store.pipe_file(
        f"{bucket}/export.json", b'{"exported_at": "2030-01-01T00:00:00Z", "complete": true}'
    )
    assert load(settings, "incident_reports", bucket).tombstones == 1


def test_what_leads_out_of_a_repository_is_not_followed(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "secret.md").write_text("a secret")
    repository = Repository(tmp_path / "repository")
    repository.commit(one="first")
    (repository.folder / "reports" / "link.md").symlink_to(tmp_path / "secret.md")
    (repository.folder / "elsewhere").symlink_to(tmp_path)
    repository.commit()
    load(settings, "incident_reports", repository.address)
    load(settings, "incident_reports", repository.address.replace("=reports", "=elsewhere"))
    assert reports(settings)["link"] == str(tmp_path / "secret.md")
    assert "a secret" not in reports(settings).values()
    with pytest.raises(LorelineError, match="has no \\.\\./\\.\\."):
        load(settings, "incident_reports", repository.address.replace("=reports", "=../.."))


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("git+https://", "no address of a repository"),
        ("git+ext::sh -c touch% /tmp/x", "no address of a repository"),
        ("git+file:///nowhere/at/all.git", "cannot be read"),
        ("git+file:///nowhere@--upload-pack=x", "no address of a repository"),
        ("git+ssh://git@127.0.0.1:9/x.git@main", "cannot be read"),
    ],
)
def test_what_is_no_repository_is_said(
    settings: Settings, tmp_path: Path, location: str, said: str
) -> None:
    with pytest.raises(LorelineError, match=said):
        local_copy(settings, location, tmp_path)


def test_passwords_are_not_shown(settings: Settings, tmp_path: Path) -> None:
    assert without_password("git+https://me:pw@host/x.git") == "git+https://host/x.git"
    with pytest.raises(LorelineError) as caught:
        local_copy(settings, "git+http://me:hunter2@127.0.0.1:9/x.git", tmp_path)
    assert "hunter2" not in str(caught.value)
