"""Files of a source that are in a bucket or a git repository: a local copy of them is kept.

An address is `s3://bucket/prefix`, or `git+https://host/repository.git@branch#subdirectory=reports`
as pip writes it; `git+ssh://` and `git+file://` are read, too.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import orjson

from dlt_sources.json_files import EXPORT_FILE
from dlt_sources.objects import file_system
from loreline.errors import LorelineError
from loreline.settings import Settings

_GIT = re.compile(
    r"git\+(?P<url>(?:https|http|ssh|file)://[^/#]*/[^#@]+)(?:@(?P<ref>[^@#:-][^@#:]*))?"
    r"(?:#subdirectory=(?P<folder>[^#]+))?"
)
_STATE = "state.json"
_GIT_SECONDS = 600


def is_remote(location: str) -> bool:
    """Whether a location is an address, not a path."""
    return location.startswith(("s3://", "git+"))


def without_password(location: str) -> str:
    """An address as it may be shown."""
    return re.sub(r"//[^/@\s]+@", "//", location)


def local_copy(settings: Settings, location: str, copies: Path) -> Path:
    """Bring the copy of a location up to date.

    What git shows is complete: its copy says so, and files that are no longer there are gone. A
    bucket says it itself, with an `export.json`.

    Args:
        settings: whose credentials open `s3://…`; git asks its own helpers.
        location: the address.
        copies: the folder of copies.

    Returns:
        The file or folder, with an `export.json` that says when this state was seen first.

    Raises:
        LorelineError: the address is none, or what is there does not answer.
    """
    folder = copies / hashlib.sha256(location.encode()).hexdigest()[:16]
    files = folder / "files"
    files.mkdir(parents=True, exist_ok=True)
    if location.startswith("s3://"):
        return _copy_of_bucket(settings, location, folder, files)
    return _copy_of_repository(location, folder, files)


def _copy_of_bucket(settings: Settings, location: str, folder: Path, files: Path) -> Path:
    root = location.rstrip("/")
    try:
        store = file_system(settings, root)
        store.invalidate_cache()
        place = store._strip_protocol(root)
        is_file = store.isfile(root)
        listed = {place: store.info(place)} if is_file else store.find(place, detail=True)
    except OSError as error:
        raise _unreachable(location, str(error)) from error
    found = {_name(path, place): about for path, about in listed.items() if about["size"]}
    if not found:
        raise LorelineError(f"no files are at {location}", "check the address")
    state = {name: [about["ETag"], about["size"]] for name, about in found.items()}
    before = _state(folder)
    for name in sorted(found):
        path = files / name
        if before.get("files", {}).get(name) == state[name] and path.is_file():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            store.get_file(found[name]["name"], str(path))
        except OSError as error:
            raise _unreachable(location, str(error)) from error
        written_at = found[name]["LastModified"].timestamp()
        os.utime(path, (written_at, written_at))
    for path in [path for path in files.rglob("*") if path.is_file()]:
        if path.relative_to(files).as_posix() not in found:
            path.unlink()
    _remember(folder, {"files": state})
    return files / next(iter(found)) if is_file else files


def _name(path: str, root: str) -> str:
    """Where a file of a bucket is copied to.

    Raises:
        LorelineError: its name leads out of the copy.
    """
    name = PurePosixPath(path.removeprefix(root).lstrip("/") or PurePosixPath(path).name)
    if name.is_absolute() or ".." in name.parts:
        raise LorelineError(f"{path} is a name that leads elsewhere", "rename the object")
    return name.as_posix()


def _copy_of_repository(location: str, folder: Path, files: Path) -> Path:
    found = _GIT.fullmatch(location)
    if not found:
        raise LorelineError(
            f"{without_password(location)} is no address of a repository",
            "write git+https://host/repository.git@branch#subdirectory=folder",
        )
    repository = folder / "repository.git"
    told = without_password(location)
    if not (repository / "HEAD").is_file():
        shutil.rmtree(repository, ignore_errors=True)
        _git(told, "init", "--quiet", "--bare", str(repository))
    at = ("--git-dir", str(repository))
    ref = found["ref"] or "HEAD"
    _git(told, *at, "fetch", "--quiet", "--depth=1", "--no-tags", "--", found["url"], ref)
    commit = _git(told, *at, "rev-parse", "FETCH_HEAD").strip()
    before = _state(folder)
    if before.get("commit") != commit:
        shutil.rmtree(files)
        files.mkdir()
        # What is a symbolic link there may lead anywhere here: it is written as the text it is.
        work = ("-c", "core.symlinks=false", *at, "--work-tree", str(files))
        _git(told, *work, "read-tree", commit)
        _git(told, *work, "checkout-index", "--all", "--force", "--quiet")
        _remember(folder, {"commit": commit, "seen_at": datetime.now(UTC).isoformat()})
    place = files / (found["folder"] or "")
    if not place.resolve().is_relative_to(files.resolve()) or not place.exists():
        raise LorelineError(f"{told} has no {found['folder']}", "check the subdirectory")
    if place.is_dir():
        export = {"exported_at": _state(folder)["seen_at"], "complete": True}
        (place / EXPORT_FILE).write_bytes(orjson.dumps(export))
    return place


def _git(told: str, *arguments: str) -> str:
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1"}
    try:
        done = subprocess.run(
            ["git", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
        )
    except FileNotFoundError as error:
        raise LorelineError("git is not installed", "install it, to read a repository") from error
    except subprocess.TimeoutExpired as error:
        raise _unreachable(told, f"no answer within {_GIT_SECONDS} s") from error
    if done.returncode:
        lines = without_password(done.stderr).strip().splitlines() or ["it says nothing"]
        raise _unreachable(told, lines[-1])
    return done.stdout


def _unreachable(location: str, why: str) -> LorelineError:
    return LorelineError(
        f"{location} cannot be read ({why})", "check the address and the credentials for it"
    )


def _state(folder: Path) -> dict[str, object]:
    try:
        return orjson.loads((folder / _STATE).read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}


def _remember(folder: Path, state: dict[str, object]) -> None:
    """Written as a whole: a copy that was broken off is not taken for up to date."""
    path = folder / f"{_STATE}.new"
    path.write_bytes(orjson.dumps(state))
    path.replace(folder / _STATE)
