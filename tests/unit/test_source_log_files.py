"""Log files are cut into blocks that grow with them, and are found wherever they are."""

import csv
import gzip
import io
import re
from collections.abc import Iterator

import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given
from hypothesis import strategies as st

from dlt_sources.inspection import Inspection
from dlt_sources.log_files import blocks, new_blocks
from dlt_sources.log_files.blocks import Block, Oversized, cut, first_lines
from dlt_sources.log_files.known import KnownFiles
from dlt_sources.log_files.places import UnreadableFileError, find
from dlt_sources.log_files.settings import FORMATS
from dlt_sources.quarantine import Reject
from loreline.errors import LorelineError
from loreline.settings import Settings

RECORD = re.compile(rb"\d\d ")


@pytest.fixture(autouse=True, scope="module")
def small_sizes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, size in {
            "READ_BYTES": 16,
            "BLOCK_BYTES": 40,
            "MAX_LINE_BYTES": 80,
            "PIECE_BYTES": 64,
        }.items():
            patch.setattr(blocks, name, size)
        yield


def cut_all(content: bytes, **resumed: object) -> list[Block | Oversized]:
    start = resumed.get("start", 0) + len(resumed.get("read", b""))
    return list(cut(io.BytesIO(content[start:]), RECORD, **resumed))


def test_a_block_ends_where_a_record_ends_and_the_last_record_is_one_by_itself() -> None:
    content = b"01 first\n  at a\n02 second\n  at b\n03 third\n  at c\n"
    found = cut_all(content)
    assert [block.content for block in found] == [
        b"01 first\n  at a\n",
        b"02 second\n  at b\n",
        b"03 third\n  at c\n",
    ]
    assert [block.start for block in found] == [0, 16, 33]


def test_a_record_longer_than_a_block_is_continued() -> None:
    content = b"01 first\n" + b"  at a line of a stack\n" * 4 + b"02 second\n"
    found = cut_all(content)
    assert [block.continues for block in found] == [False, True, True, True, False]
    assert b"".join(block.content for block in found) == content


def test_lines_of_no_format_are_records_by_themselves() -> None:
    found = cut_all(b"one\ntwo\nthree")
    assert [block.content for block in found] == [b"one\ntwo\n", b"three"]
    assert not any(block.continues for block in found)


@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_line_that_is_too_long_is_taken_out_in_pieces(end: bytes) -> None:
    found = cut_all(b"01 a\n" + b"x" * 200 + b"\n02 b" + end)
    pieces = [piece for piece in found if isinstance(piece, Oversized)]
    assert b"".join(piece.content for piece in pieces) == b"x" * 200 + b"\n"
    assert all(len(piece.content) <= 64 for piece in pieces)
    kept = [block.content for block in found if isinstance(block, Block)]
    assert kept == [b"01 a\n", b"02 b" + end]


LINES = st.lists(
    st.sampled_from(
        [b"01 a\n", b"02 a longer line\n", b"  at b\n", b"\n", b"x\r\n", b"03 " + b"y" * 50 + b"\n"]
    )
)


@given(LINES, st.lists(st.integers(0, 400)))
def test_whatever_way_a_file_grows_its_blocks_are_the_file(
    lines: list[bytes], sizes: list[int]
) -> None:
    content = b"".join(lines)
    landed: dict[int, Block] = {}
    last = Block(0, b"")
    for size in [*sorted(size for size in sizes if size < len(content)), len(content)]:
        if size <= last.end:
            continue
        pieces = cut_all(
            content[:size], start=last.start, read=last.content, continues=last.continues
        )
        landed |= {piece.start: piece for piece in pieces}
        last = pieces[-1]
    in_order = [landed[start] for start in sorted(landed)]
    assert b"".join(block.content for block in in_order) == content
    assert [block.start for block in in_order][1:] == [block.end for block in in_order][:-1]


def test_the_seed_of_formats_can_be_read_by_both_engines() -> None:
    with FORMATS.open(newline="") as file:
        formats = list(csv.DictReader(file))
    for row in formats:
        if row["kind"] == "text":
            # Groups that capture are named: their numbers are counted where the names are.
            pattern = re.compile(row["pattern"])
            assert pattern.groups == len(pattern.groupindex), row["log_format"]
            assert (
                {"timestamp", "message"}
                <= set(pattern.groupindex)
                <= {
                    "timestamp",
                    "level",
                    "service",
                    "message",
                }
            )
        else:
            assert row["timestamp_paths"] and row["message_paths"]
    assert first_lines().match(b"2026-09-17T11:42:03.512Z WARN")
    assert first_lines().match(b'{"ts": 1}')
    assert not first_lines().match(b"  at lease (a.py:3)")
    assert not first_lines().match(b"Caused by: nothing")


def test_a_broken_format_is_named(tmp_path) -> None:
    (tmp_path / "log_formats.csv").write_text("log_format,first_line\nodd,(\n")
    with pytest.raises(LorelineError, match="log format 'odd' has no valid first_line"):
        first_lines(tmp_path / "log_formats.csv")


def test_files_are_found_by_name_folder_and_glob(tmp_path) -> None:
    for name in ("a.log", "deep/b.jsonl", "deep/a.log.1.gz", "notes.txt", "export.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    def names(location: object) -> list[str]:
        return [file.name for file in find(Settings(), str(location))]

    assert names(tmp_path / "a.log") == ["a.log"]
    assert names(tmp_path) == ["a.log", "deep/a.log.1.gz", "deep/b.jsonl"]
    assert names(tmp_path / "*" / "*.gz") == ["deep/a.log.1.gz"]
    assert names(tmp_path / "notes.txt") == ["notes.txt"]
    with pytest.raises(LorelineError, match="no log files are at"):
        names(tmp_path / "nothing")


def test_gzip_is_seen_by_its_bytes(tmp_path) -> None:
    (tmp_path / "a.log").write_bytes(gzip.compress(b"01 a\n"))
    (file,) = find(Settings(), str(tmp_path))
    with file.opened() as stream:
        assert stream.read() == b"01 a\n"


def test_a_file_that_cannot_be_read_does_not_keep_others_from_landing(
    tmp_path, monkeypatch
) -> None:
    for name in ("a.log", "b.log", "c.log", "d.log"):
        (tmp_path / name).write_bytes(b"01 of " + name.encode())
    errors = {"a.log": PermissionError("not yours"), "c.log": FileNotFoundError("rotated away")}
    give = LocalFileSystem._open

    def opened(files: LocalFileSystem, path: str, *given: object, **named: object) -> object:
        if error := errors.get(path.rpartition("/")[2]):
            raise error
        return give(files, path, *given, **named)

    monkeypatch.setattr(LocalFileSystem, "_open", opened)

    def read(location: object) -> list[str]:
        with Inspection(Settings(), "log_files") as landing:
            files = find(Settings(), str(location))
            found = list(new_blocks(landing, files, KnownFiles(landing), RECORD))
            gone.append(landing.summary.passed_over["vanished files"])
        return [
            f"{one.reason}: {one.detail}" if isinstance(one, Reject) else one.payload["text"]
            for one in found
        ]

    gone: list[int] = []
    aside, *landed = read(tmp_path)
    assert landed == ["01 of b.log", "01 of d.log"]
    assert aside == "unreadable_file: a.log cannot be read (not yours)"
    assert gone == [1]
    with pytest.raises(UnreadableFileError, match="check that it is there"):
        read(tmp_path / "a.log")
