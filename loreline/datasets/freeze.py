"""Freezing: tags, files, an MLflow entry, and the registry row that makes it so.

In this order, under a lock:

1. a draft in the object store names the tags that will be set;
2. the snapshots are tagged;
3. the files are written here and stored;
4. MLflow gets its entry;
5. **the row is appended to the registry**: from here on the dataset is frozen;
6. the draft is removed, and the files are copied to where they were asked for.

A process killed before 5 has frozen nothing: the next freeze of that name finds the draft, removes
tags, files and entry, and begins anew. One killed after 5 has frozen it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from loreline.datasets import exports, registry, snapshots, stored, tracking
from loreline.datasets.card import Description, card, counted
from loreline.datasets.condition import checked
from loreline.datasets.exports import Source
from loreline.datasets.registry import FrozenDataset, Upstream
from loreline.errors import LorelineError
from loreline.lake import duck
from loreline.operations.account import who
from loreline.settings import Settings

CARD = "README.md"
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What is to be frozen.

    Attributes:
        dataset: its model, or the beginning of its name.
        name: to freeze it under.
        where: a condition over its columns; empty for all rows.
        note: for the card.
        licence: for the card.
    """

    dataset: str
    name: str
    where: str = ""
    note: str = ""
    licence: str = "unknown"


def freeze(
    settings: Settings,
    request: Request,
    *,
    describe: Callable[[str], Description] = lambda _: Description(),
    progress: Progress = lambda _: None,
) -> FrozenDataset:
    """Freeze a dataset under a name.

    Args:
        settings: the stores.
        request: what, and under which name.
        describe: what the project says of a model.
        progress: called with a line at each step.

    Raises:
        LorelineError: the name is taken or none, the condition is refused, the dataset was not
            built, or a snapshot that it was made from has expired. Nothing is frozen then.
    """
    name = registry.check_name(request.name)
    with registry.freezing(settings):
        _refuse_taken(settings, name)
        undo(settings, name, progress)
        try:
            frozen = _prepared(settings, request, describe, progress)
        except BaseException:
            # What cannot be undone now, such as without a connection, is by the next freeze.
            with suppress(Exception):
                undo(settings, name)
            raise
        frozen = registry.record(settings, frozen)
        stored.remove_draft(settings, name)
    return frozen


def _prepared(
    settings: Settings,
    request: Request,
    describe: Callable[[str], Description],
    progress: Progress,
) -> FrozenDataset:
    """Everything but the registry row."""
    name, tag = request.name, f"frozen-{request.name}"
    table = snapshots.dataset_table(settings, request.dataset)
    snapshot_id, made = snapshots.current(settings, table)
    upstream = snapshots.upstream(settings, table, snapshot_id, tag)
    code = made.code
    with duck.connect(settings.as_reader()) as connection, _folder(settings) as folder:
        source = Source(connection, table, snapshot_id)
        where = checked(connection, request.where, source.columns())
        source = replace(source, where=where)
        _keep(settings, name, [Upstream(table, snapshot_id, tag, ()), *upstream], progress)
        progress("writing the files …")
        written = exports.write(source, folder)
        address = stored.folder(settings, name)
        frozen = FrozenDataset(
            snapshot_name=name,
            dataset=table,
            iceberg_snapshot_id=snapshot_id,
            tag=tag,
            row_count=written.row_count,
            content_sha256=written.content_sha256,
            upstream=tuple(upstream),
            parameters={
                "where": where,
                "note": request.note,
                "licence": request.licence,
                "variables": code.variables,
                "commit": code.commit,
                "is_clean": code.is_clean,
                "outside": list(made.outside),
                "made_from": made.to_json(),
            },
            writer=exports.writer_settings()
            | {
                "files": exports.as_json(written.files),
                "columns": [list(column) for column in written.columns],
                "address": address,
            },
            code_version=registry.code_version(code.commit, is_clean=code.is_clean),
            mlflow_run_id="",
            frozen_at=registry.now(),
            frozen_by=who(),
        )
        described = describe(table.rsplit(".", 1)[-1])
        (folder / CARD).write_text(card(frozen, counted(source, upstream), described))
        progress("storing the files …")
        _store(settings, name, folder)
        frozen = _with_card(frozen, exports.described(folder / CARD, folder))
    return replace(frozen, mlflow_run_id=_entered(settings, frozen))


def undo(settings: Settings, name: str, progress: Progress = lambda _: None) -> bool:
    """Remove what a freeze left that was killed before its registry row; whether there was any.

    Call it while holding `registry.freezing`, for a name that is not registered.
    """
    draft = stored.draft(settings, name)
    if draft is None:
        return False
    progress(f"removing what an unfinished freeze of {name} left …")
    for table, tag in draft["tags"]:
        snapshots.let_go(settings, table, tag)
    tracking.forget_runs(settings, name)
    stored.remove(settings, name)
    return True


def discard(settings: Settings, name: str) -> None:
    """Remove what an unfinished freeze left.

    Raises:
        LorelineError: the name is frozen, or there is nothing.
    """
    with registry.freezing(settings):
        _refuse_taken(settings, registry.check_name(name))
        if not undo(settings, name):
            raise LorelineError(
                f"nothing was left of a freeze of {name}", "see `loreline datasets`"
            )


def unfinished(settings: Settings) -> list[str]:
    """Names of freezes that were begun, and have not come to their registry row."""
    frozen = {one.snapshot_name for one in registry.read(settings)}
    return [name for name in stored.drafts(settings) if name not in frozen]


def revoke(settings: Settings, name: str, successor: str) -> FrozenDataset:
    """Mark a frozen dataset as one that should no longer be used; nothing of it changes.

    Raises:
        LorelineError: one of the two is not frozen, or it is revoked already.
    """
    with registry.freezing(settings):
        frozen = registry.find(settings, name)
        if frozen.status == registry.REVOKED:
            raise LorelineError(
                f"{name} was revoked at {frozen.recorded_at:%Y-%m-%d %H:%M} UTC",
                f"its successor is {frozen.successor or 'not named'}",
            )
        if successor and (
            successor == name or registry.find(settings, successor).status == registry.REVOKED
        ):
            raise LorelineError(
                f"{successor} cannot take the place of {name}",
                "name one that is frozen, not revoked",
            )
        return registry.record(
            settings, replace(frozen, status=registry.REVOKED, successor=successor)
        )


def export(settings: Settings, frozen: FrozenDataset, parent: Path) -> Path:
    """Copy the stored files into `parent/NAME`; gives that folder.

    Raises:
        LorelineError: something is there already, or a stored file is not what it was.
    """
    target = parent / frozen.snapshot_name
    check_free(target)
    parent.mkdir(parents=True, exist_ok=True)
    # Renamed when it is whole: a folder under the name never holds half a dataset.
    with tempfile.TemporaryDirectory(prefix=f".{frozen.snapshot_name}-", dir=parent) as temporary:
        fresh = Path(temporary) / "files"
        for file in frozen.files:
            path = fresh / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256()
            with path.open("wb") as copy:
                for piece in stored.pieces(settings, frozen.snapshot_name, file.path):
                    copy.write(piece)
                    digest.update(piece)
            if digest.hexdigest() != file.sha256:
                raise LorelineError(
                    f"{file.path} of {frozen.snapshot_name} is not the file that was stored",
                    f"see `loreline freeze --verify {frozen.snapshot_name}`",
                )
        shutil.move(fresh, target)
    return target


def check_free(target: Path) -> None:
    """Refuse to write where something is."""
    if target.exists():
        raise LorelineError(f"{target} is there already", "remove it, or choose another --exports")


def _refuse_taken(settings: Settings, name: str) -> None:
    for frozen in registry.read(settings):
        if frozen.snapshot_name == name:
            # Killed between its row and the end: only the draft was left to remove.
            stored.remove_draft(settings, name)
            raise LorelineError(
                f"{name} is frozen already ({frozen.row_count:,} rows of {frozen.dataset}, "
                f"{frozen.frozen_at:%Y-%m-%d %H:%M} UTC)",
                f"choose another name; `loreline dataset export {name}` copies its files",
            )


def _keep(settings: Settings, name: str, tagged: list[Upstream], progress: Progress) -> None:
    plan = {"tags": [[one.table, one.tag] for one in tagged], "begun_at": str(registry.now())}
    stored.put(settings, name, stored.DRAFT, json.dumps(plan).encode())
    for number, one in enumerate(tagged, start=1):
        progress(f"tagging {number} of {len(tagged)}: {one.table}")
        snapshots.keep(settings, one.table, one.snapshot_id, one.tag)


def _store(settings: Settings, name: str, folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            stored.put(settings, name, path.relative_to(folder).as_posix(), path)


def _with_card(frozen: FrozenDataset, file: exports.ExportedFile) -> FrozenDataset:
    files = [*frozen.writer["files"], *exports.as_json([file])]
    return replace(frozen, writer={**frozen.writer, "files": files})


def _entered(settings: Settings, frozen: FrozenDataset) -> str:
    return tracking.record_run(
        settings,
        frozen.snapshot_name,
        address=stored.folder(settings, frozen.snapshot_name),
        digest=frozen.content_sha256,
        columns=tuple((name, kind) for name, kind in frozen.writer["columns"]),
        row_count=frozen.row_count,
        tags={
            "loreline.dataset": frozen.dataset,
            "loreline.iceberg_snapshot_id": str(frozen.iceberg_snapshot_id),
            "loreline.content_sha256": frozen.content_sha256,
            "loreline.code_version": frozen.code_version,
            "loreline.where": frozen.where,
        },
    )


@contextmanager
def _folder(settings: Settings) -> Iterator[Path]:
    """An empty folder for this freeze, the only one of its target; a killed one's is removed."""
    folder = settings.home / "freezing" / (settings.prefix or "plain")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
