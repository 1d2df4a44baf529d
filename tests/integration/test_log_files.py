"""Log files end to end: files in, raw blocks, templates, windows and documents out."""

import gzip
import os
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dlt_sources import load
from dlt_sources.objects import ObjectStore
from loreline.lake import duck
from loreline.lake.catalog import find_table, load_catalog
from loreline.operations import quarantine
from loreline.postgres import connect
from loreline.settings import PROJECT_ROOT
from tests.integration.test_dbt_project import Project

STARTED = datetime(2026, 9, 17, tzinfo=UTC)


@pytest.fixture
def inputs(tmp_path):
    folder = tmp_path / "inputs"
    folder.mkdir()
    return folder


def line(n, text="payment attempt {n} of 3 failed: timeout after 3000 ms", level="WARN "):
    moment = STARTED + timedelta(seconds=n)
    stamp = f"{moment:%Y-%m-%dT%H:%M:%S}.{n % 1000:03}Z"
    return f"{stamp} {level} till [req-{n:06x}] {text.format(n=n)}\n"


def lines(first, last):
    return "".join(line(n) for n in range(first, last)).encode()


def landed_bytes(settings, **conditions):
    """What is landed of each file, put together from the longest states of its blocks."""
    table = f"lake.{settings.prefix}raw_log_files.lines"
    with duck.connect(settings) as connection:
        rows = connection.execute(
            f"""
            select
                split_part(external_id, ':', 1),
                string_agg(text, '' order by start)
            from (
                select
                    external_id,
                    cast(payload ->> '$.start' as bigint) as start,
                    arg_max(payload ->> '$.text', cast(payload ->> '$.end' as bigint)) as text
                from (
                    select external_id, payload
                    from {table}
                )
                group by all
            )
            group by 1
            """
        ).fetchall()
    return sorted(text.encode() for _, text in rows)


def raw_rows(settings):
    with duck.connect(settings) as connection:
        table = f"lake.{settings.prefix}raw_log_files.lines"
        return connection.execute(f"select count(*) from {table}").fetchone()[0]


def quarantined(settings):
    with connect(settings) as connection:
        return connection.execute(
            f"select reason, payload, payload_uri from {settings.prefix}operations.quarantine"
        ).fetchall()


def test_a_file_lands_once_and_then_what_is_new_of_it(settings, inputs):
    log = inputs / "till.log"
    log.write_bytes(lines(0, 3000))
    assert load(settings, "log_files", str(log)).landed["lines"] > 2
    again = load(settings, "log_files", str(inputs))
    assert (again.rows, again.snapshots) == (0, {})
    before = raw_rows(settings)
    # A stack trace goes on, and a line is still being written.
    with log.open("ab") as file:
        file.write(b"  at lease (a.py:3)\n" + lines(3000, 3001)[:40])
    load(settings, "log_files", str(log))
    with log.open("ab") as file:
        file.write(lines(3000, 3001)[40:] + lines(3001, 3010))
    load(settings, "log_files", str(log))
    # The last record twice, the half line once, and what followed.
    assert raw_rows(settings) - before <= 5
    assert landed_bytes(settings) == [log.read_bytes()]


def test_a_rotated_and_compressed_file_is_the_file_that_it_was(settings, inputs):
    log = inputs / "till.log"
    log.write_bytes(lines(0, 100))
    load(settings, "log_files", str(inputs))
    rotated = lines(0, 120)
    (inputs / "till.log.1.gz").write_bytes(gzip.compress(rotated))
    # The rotated file is older than what was seen of it.
    os.utime(inputs / "till.log.1.gz", (1_700_000_000, 1_700_000_000))
    log.write_bytes(lines(120, 130))
    summary = load(settings, "log_files", str(inputs))
    assert (summary.landed["lines"], summary.outdated) == (4, 0)
    assert landed_bytes(settings) == sorted([rotated, lines(120, 130)])
    (inputs / "till.log.1.gz").rename(inputs / "till.log.2.gz")
    assert load(settings, "log_files", str(inputs)).landed == {"files": 1}
    assert load(settings, "log_files", str(inputs)).rows == 0
    # Copies of it, and an old state of it, hold nothing new.
    (inputs / "copy.log").write_bytes(rotated)
    (inputs / "old.log").write_bytes(lines(0, 50))
    assert load(settings, "log_files", str(inputs)).landed == {"files": 1}
    assert landed_bytes(settings) == sorted([rotated, lines(120, 130)])


def test_files_that_begin_alike_are_two_files(settings, inputs):
    beginning = lines(0, 50)
    (inputs / "a.log").write_bytes(beginning + lines(50, 60))
    (inputs / "b.log").write_bytes(beginning + lines(70, 90))
    (inputs / "c.log").write_bytes(b"starting\n")
    load(settings, "log_files", str(inputs))
    (inputs / "d.log").write_bytes(b"starting\n" + lines(90, 95))
    with (inputs / "b.log").open("ab") as file:
        file.write(lines(95, 96))
    load(settings, "log_files", str(inputs))
    assert load(settings, "log_files", str(inputs)).rows == 0
    found = landed_bytes(settings)
    assert (inputs / "a.log").read_bytes() in found
    assert (inputs / "b.log").read_bytes() in found
    assert (inputs / "d.log").read_bytes() in found, "c.log is the state in which it was first"
    assert len(found) == 3


BANNER = b"starting with these settings: " + b"s" * 2000 + b"\n"


def test_a_shorter_file_with_the_same_beginning_is_another_or_an_older_copy(settings, inputs):
    """By what it says to its end, in the same load and in later ones."""
    long_line = b"x" * 600_000 + b"\n"
    said = {
        "a.log": BANNER + lines(0, 2000),
        "b.log": BANNER + lines(5000, 5003),
        "c.log": BANNER + long_line,
        "d.log": BANNER + lines(6000, 6020) + long_line,
    }

    def write(names):
        for name in names:
            (inputs / name).write_bytes(said[name])

    def landed():
        return sorted(content.replace(long_line, b"") for content in said.values())

    write(["a.log", "b.log", "c.log"])
    # Older copies are known by what they say, in whatever order they are read.
    (inputs / "a.log.1").write_bytes(said["a.log"][:-50_000])
    (inputs / "a.log.2").write_bytes(said["a.log"][:3_000])
    first = load(settings, "log_files", str(inputs))
    write(["d.log"])
    said["e.log"] = BANNER + lines(7000, 7002) + "käse ".encode() * 10
    said["b.log"] += lines(5003, 5010)
    write(["b.log", "e.log"])
    for n, cut_at in enumerate((2_500, 40_000, 100_000, len(said["a.log"]) - 1)):
        (inputs / f"old{n}.log.gz").write_bytes(gzip.compress(said["a.log"][:cut_at]))
    load(settings, "log_files", str(inputs))
    assert first.quarantined == {"record_too_large": 1}
    assert landed_bytes(settings) == landed()
    # What is known of files is lost, as after a kill; copies of them have nothing new to say.
    load_catalog(settings).drop_table(f"{settings.prefix}raw_log_files.files")
    (inputs / "e.log.1").write_bytes(said["e.log"][:-1])
    said["e.log"] += lines(7002, 7004)
    said["f.log"] = BANNER + lines(8000, 8001)
    write(["e.log", "f.log"])
    load(settings, "log_files", str(inputs))
    assert landed_bytes(settings) == landed()
    assert load(settings, "log_files", str(inputs)).rows == 0


def test_a_load_that_was_killed_before_it_knew_its_files_lands_nothing_twice(settings, inputs):
    log = inputs / "till.log"
    log.write_bytes(lines(0, 5))
    load(settings, "log_files", str(inputs))
    load_catalog(settings).drop_table(f"{settings.prefix}raw_log_files.files")
    with log.open("ab") as file:
        file.write(lines(5, 2000))
    load(settings, "log_files", str(inputs))
    assert landed_bytes(settings) == [log.read_bytes()]
    assert load(settings, "log_files", str(inputs)).rows == 0


def test_what_is_no_text_is_set_aside_and_the_rest_lands(settings, inputs):
    (inputs / "empty.log").write_bytes(b"")
    (inputs / "blank.log").write_bytes(b"\n\n")
    (inputs / "dos.log").write_bytes(b"\xef\xbb\xbf" + lines(0, 2).replace(b"\n", b"\r\n"))
    broken = lines(2, 3)[:-1] + b"\xff\xfe \xef\xbf\xbd\n"
    nul = b"\0\0\n"
    (inputs / "broken.log").write_bytes(broken + nul + "ü\ufffd\n".encode() + lines(3, 4)[:-1])
    (inputs / "long.log").write_bytes(lines(4, 5) + b"x" * 64_000_000 + b"\n" + lines(5, 6))
    half = gzip.compress(lines(6, 2000))
    (inputs / "half.log.gz").write_bytes(half[: len(half) // 2])
    summary = load(settings, "log_files", str(inputs))
    assert summary.quarantined == {"invalid_utf8": 1, "record_too_large": 8, "broken_archive": 1}
    kept = {reason: (text, uri) for reason, text, uri in quarantined(settings)}
    stored = ObjectStore(settings).files.cat_file(kept["invalid_utf8"][1])
    assert stored == broken + nul
    landed = b"".join(landed_bytes(settings))
    assert lines(5, 6) in landed and lines(3, 4)[:-1] in landed and b"\0" not in landed
    assert lines(6, 10) in landed, "what could be read of a file that breaks off"
    again = load(settings, "log_files", str(inputs))
    assert (again.landed["lines"], again.landed["files"]) == (0, 0)
    # When the rest has come, it lands, and nothing waits any more for its sake.
    (inputs / "half.log.gz").write_bytes(half)
    load(settings, "log_files", str(inputs))
    assert lines(6, 2000) in landed_bytes(settings)
    assert {reason for reason, *_ in quarantined(settings)} == {"invalid_utf8", "record_too_large"}


def test_another_archive_that_breaks_off_is_set_aside_though_one_was_dropped(settings, inputs):
    archive = inputs / "till.log.1.gz"
    for first in (0, 5000):
        whole = gzip.compress(lines(first, first + 2000))
        archive.write_bytes(whole[: len(whole) // 2])
        for _ in range(2):
            summary = load(settings, "log_files", str(inputs))
            assert summary.quarantined == {"broken_archive": 1}
        selection = quarantine.Selection(source="log_files", reason="broken_archive")
        (waiting,) = quarantine.fingerprints(settings, selection)["log_files"]
        quarantine.drop(settings, [waiting], "seen")


def test_a_glob_in_the_object_store(settings):
    bucket = ObjectStore(settings)
    for day, content in {"16": lines(0, 10), "17": lines(10, 20)}.items():
        bucket.files.pipe_file(f"{bucket.root}/logs/{day}/till.log.gz", gzip.compress(content))
    bucket.files.pipe_file(f"{bucket.root}/logs/16/notes.txt", b"no log")
    glob = f"{bucket.root}/logs/**/*.log.gz"
    assert load(settings, "log_files", glob).landed == {"lines": 4, "files": 2}
    assert load(settings, "log_files", glob).rows == 0
    assert landed_bytes(settings) == sorted([lines(0, 10), lines(10, 20)])


MODELS = [
    "log_windows",
    "log_templates",
    "log_bursts",
    "log_documents",
    "log_unread_lines",
    "documents",
]
RESULTS = {
    "log_windows": "service, window_start, level, template_id, template, line_count, first_at,"
    " last_at, example",
    "log_templates": "template_id, template, services, line_count, first_at, last_at, example",
    "log_bursts": "service, window_start, level, template_id, kind, line_count, usual_count, score",
    "log_documents": "external_id, title, body",
    "log_unread_lines": "service, template_id, template, line_count, example",
}


def records(seed):
    """Records over six hours, some of several lines, one template bursting in the fifth."""
    made = random.Random(seed)
    found = []
    for n in range(0, 6 * 3600, 20):
        text = made.choice(["order {n} placed", "lease 0a{n:010x} renewed", "cache 'k{n}' warmed"])
        found.append(line(n, text, "INFO "))
        if n % 700 == 0 or 4 * 3600 <= n < 4 * 3600 + 1200:
            found.append(
                line(n, "no lease for {n}", "ERROR") + "  at lease (a.py:3)\nCaused by: x\n"
            )
    found.append(
        '{"ts": "2026-09-17T02:00:00Z", "level": "warn", "service": "till", "msg": "m 1"}\n'
    )
    found.append("17.09.2026 nobody knows this format\n")
    return found


def built(project):
    project.dbt("build", "--select", "+documents", *RESULTS, "--exclude", "test_type:unit")
    return {
        model: project.query(
            f"select {columns} from {{lake}}knowledge.{model} where not is_deleted order by all"
        )
        for model, columns in RESULTS.items()
    }


@pytest.mark.soak
def test_the_same_lines_in_whatever_files_are_the_same_templates_and_documents(
    settings, inputs, tmp_path, stack
):
    """In one file; and shuffled, in files of three kinds, landed and built in three rounds."""
    project = Project(settings, PROJECT_ROOT, tmp_path / "target")
    whole = records(1)
    unknown = whole.pop()
    (inputs / "one").mkdir()
    (inputs / "one" / "till.log").write_text(unknown + "".join(whole))
    load(settings, "log_files", str(inputs / "one"))
    expected = built(project)
    assert {row[4] for row in expected["log_bursts"] if row[3] and row[4] == "burst"} == {"burst"}
    assert any("Caused by: x" in body for *_, body in expected["log_documents"])
    assert [row[3] for row in expected["log_unread_lines"]] == [1]

    catalog = load_catalog(settings)
    for namespace in ("raw_log_files", "staging", "knowledge"):
        for table in catalog.list_tables(settings.prefix + namespace):
            catalog.drop_table(table)
    with connect(settings, autocommit=True) as connection:
        connection.execute(f"truncate {settings.prefix}operations.watermarks")
    made = random.Random(2)
    made.shuffle(whole)
    parts = [whole[0::3], whole[1::3], whole[2::3]]
    folder = inputs / "many"
    folder.mkdir()
    (folder / "till.log.2.gz").write_bytes(gzip.compress("".join(parts[2]).encode()))
    (folder / "till-2026-09-17.log").write_text("".join(parts[1])[:-30])
    load(settings, "log_files", str(folder))
    built(project)
    (folder / "till-2026-09-17.log").write_text("".join(parts[1]))
    (folder / "till.log").write_text(unknown + "".join(parts[0][:100]))
    load(settings, "log_files", str(folder))
    (folder / "till.log").write_text((unknown + "".join(parts[0])).replace("\n", "\r\n"))
    (folder / "till.log").write_text(unknown + "".join(parts[0]))
    (folder / "till.log").rename(folder / "till.log.1")
    load(settings, "log_files", str(folder))
    assert built(project) == expected


@pytest.mark.soak
def test_late_lines_change_the_document_of_their_window_alone(settings, inputs, tmp_path):
    project = Project(settings, PROJECT_ROOT, tmp_path / "target")
    (inputs / "till.log").write_text("".join(records(1)[:-1]))
    load(settings, "log_files", str(inputs))
    built(project)
    query = "select external_id, _batch from {lake}knowledge.log_documents"
    versions = "select external_id, version_number from {lake}knowledge.documents"
    before, versions_before = dict(project.query(query)), project.query(versions)
    (inputs / "late.log").write_text(line(3600 + 5, "order {n} placed", "INFO "))
    load(settings, "log_files", str(inputs))
    built(project)
    after = dict(project.query(query))
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"till:2026-09-17T01:00"}
    new = set(project.query(versions)) - set(versions_before)
    assert new == {("till:2026-09-17T01:00", 2)}
    snapshots = {
        model: find_table(load_catalog(settings), project.table(f"knowledge.{model}"))
        .current_snapshot()
        .snapshot_id
        for model in RESULTS
    }
    built(project)
    assert snapshots == {
        model: find_table(load_catalog(settings), project.table(f"knowledge.{model}"))
        .current_snapshot()
        .snapshot_id
        for model in RESULTS
    }


def report(folder: Path, name: str, text: str, **fields: str) -> None:
    front = "".join(f"{key}: {value}\n" for key, value in fields.items())
    (folder / name).write_text(f"---\n{front}---\n{text}\n")


def test_incident_reports_land_change_and_are_deleted(settings, inputs):
    report(inputs, "a.md", "# Down", id="INC-1", services="[till]")
    report(inputs, "b.md", "# Slow")
    report(inputs, "c.md", "# Lost", id="[")
    first = load(settings, "incident_reports", inputs, observed_at=STARTED)
    assert (first.landed, first.quarantined) == ({"reports": 2}, {"broken_yaml": 1})
    assert load(settings, "incident_reports", inputs, observed_at=STARTED).rows == 0
    # Absent from a folder that does not say that it is complete, or of which a part is unreadable.
    (inputs / "b.md").unlink()
    later = STARTED + timedelta(days=1)
    assert load(settings, "incident_reports", inputs, observed_at=later).tombstones == 0
    (inputs / "export.json").write_text('{"exported_at": "2026-09-19T00:00:00Z", "complete": true}')
    assert load(settings, "incident_reports", inputs).tombstones == 0
    (inputs / "c.md").unlink()
    (inputs / "export.json").write_text('{"exported_at": "2026-09-20T00:00:00Z", "complete": true}')
    assert load(settings, "incident_reports", inputs).tombstones == 1
    report(inputs, "a.md", "# Down", id="INC-1", services="[till]", deleted="true")
    (inputs / "export.json").write_text('{"exported_at": "2026-09-21T00:00:00Z"}')
    assert load(settings, "incident_reports", inputs).tombstones == 1
