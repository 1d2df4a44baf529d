"""Writing a frozen dataset again from its tag, and comparing it with what was stored."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb

from loreline.datasets import exports, snapshots, stored
from loreline.datasets.condition import checked
from loreline.datasets.exports import Source
from loreline.datasets.registry import FrozenDataset
from loreline.lake import duck
from loreline.settings import Settings


@dataclass(frozen=True)
class ComparedFile:
    """One file: its digest as it was recorded, as it is stored, and as it was written again.

    `rewritten` is empty for what is not made from rows alone, the card.
    """

    path: str
    recorded: str
    stored: str
    rewritten: str

    @property
    def is_equal(self) -> bool:
        """Whether all that there is of it is the same."""
        return self.stored == self.recorded and self.rewritten in ("", self.recorded)


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        files: each of them.
        content_sha256: of the rows as they are read now.
        is_same_content: whether that is what was recorded.
        other_libraries: those whose version is another now, with both: they may write other bytes
            for the same rows.
    """

    files: tuple[ComparedFile, ...]
    content_sha256: str
    is_same_content: bool
    other_libraries: tuple[str, ...]

    @property
    def is_equal(self) -> bool:
        """Whether everything is as it was frozen."""
        return self.is_same_content and all(file.is_equal for file in self.files)


def rows_of(connection: duckdb.DuckDBPyConnection, frozen: FrozenDataset) -> Source:
    """The rows of a frozen dataset, at its snapshot.

    Raises:
        LorelineError: its condition is none that a freeze would have taken.
    """
    source = Source(connection, frozen.dataset, frozen.iceberg_snapshot_id)
    return replace(source, where=checked(connection, frozen.where, source.columns()))


def verify(
    settings: Settings, frozen: FrozenDataset, progress: Callable[[str], None] = lambda _: None
) -> Verification:
    """Write the files again, from the tagged snapshot, and compare.

    Raises:
        LorelineError: a tag is gone or was moved.
    """
    snapshots.tagged(settings, frozen.dataset, frozen.tag, frozen.iceberg_snapshot_id)
    for one in frozen.upstream:
        snapshots.tagged(settings, one.table, one.tag, one.snapshot_id)
    with (
        duck.connect(settings.as_reader()) as connection,
        tempfile.TemporaryDirectory(dir=settings.home) as folder,
    ):
        source = rows_of(connection, frozen)
        written = exports.write(source, Path(folder), progress)
    again = {file.path: file.sha256 for file in written.files}
    progress("reading what is stored …")
    files = [
        ComparedFile(
            file.path,
            file.sha256,
            stored.sha256(settings, frozen.snapshot_name, file.path),
            again.get(file.path, "" if not file.split else "not written"),
        )
        for file in frozen.files
    ]
    recorded = frozen.writer["libraries"]
    other = tuple(
        f"{name} {recorded.get(name, 'none')} then, {version} now"
        for name, version in exports.writer_settings()["libraries"].items()
        if recorded.get(name) != version
    )
    is_same = written.content_sha256 == frozen.content_sha256
    return Verification(tuple(files), written.content_sha256, is_same, other)
