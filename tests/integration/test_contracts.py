"""A break of a contract is caught at the border, and nothing behind it changes."""

import dataclasses
import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote

import pytest

from dlt_sources import load
from loreline.cli import main
from loreline.errors import LorelineError
from loreline.lake import duck
from loreline.lake.catalog import find_table, load_catalog
from loreline.lake.raw import ensure_raw_tables
from loreline.postgres import connect

DAY_1 = datetime(2026, 10, 1, tzinfo=UTC)
NOON = 1790769600


def query(settings, text):
    with duck.connect(settings) as connection:
        return connection.execute(text.format(lake=f"lake.{settings.prefix}raw")).fetchall()


def set_aside(settings):
    """Reasons, details and the rest of what is needed to land it later."""
    with connect(settings) as connection:
        return connection.execute(
            "select reason, resource, external_id, detail, payload, observed_at"
            f" from {settings.prefix}operations.quarantine order by reason, external_id"
        ).fetchall()


def snapshots(settings, source):
    catalog = load_catalog(settings)
    return {
        ".".join(name): [s.snapshot_id for s in find_table(catalog, ".".join(name)).snapshots()]
        for name in catalog.list_tables(f"{settings.prefix}raw_{source}")
    }


class Slack:
    """Writes exports of one channel, a message a second."""

    table = "messages"
    breaks: ClassVar = {
        "missing key": ({"text": None}, "text is there"),
        "type change": ({"blocks": "none"}, "blocks is of type array, not string"),
        "unseen value": ({"type": "memo"}, "type is one of message, not memo"),
    }

    @staticmethod
    def record(n, **fields):
        message = {"type": "message", "user": "U1", "text": "hi", "ts": f"{NOON + n}.000100"}
        return message | fields

    @staticmethod
    def write(folder, records):
        channel = {"id": "C1", "name": "general", "members": ["U1"]}
        write(folder, "channels.json", [channel])
        write(folder, "users.json", [{"id": "U1"}])
        write(folder, "general/2026-09-30.json", records)


class Notion:
    """Writes exports of pages."""

    table = "pages"
    breaks: ClassVar = {
        "missing key": ({"properties": None}, "page.properties is there"),
        "type change": ({"url": {"href": "x"}}, "page.url is of type string, not object"),
        "unseen value": (
            {"parent": {"type": "galaxy"}},
            "page.parent.type is one of agent_id, block_id, data_source_id, database_id, page_id,"
            " workspace, not galaxy",
        ),
    }

    @staticmethod
    def record(n, **fields):
        edited = {"last_edited_time": "2026-09-30T12:00:00.000Z", "properties": {}}
        return {"object": "page", "id": f"p{n}", **edited, **fields}

    @staticmethod
    def write(folder, records):
        write(folder, "pages.json", records)


class Gateway:
    """Writes events."""

    table = "events"
    breaks: ClassVar = {
        "missing key": ({"data": None}, "data is there"),
        "type change": (
            {"data": {"duration_ms": "soon"}},
            "data.duration_ms is of type integer, not string",
        ),
        "unseen value": ({"specversion": "2.0"}, "specversion is one of 1.0, not 2.0"),
    }

    @staticmethod
    def record(n, **fields):
        event = {"type": "llm.chat.completed", "id": f"e{n}", "source": "gw", "specversion": "1.0"}
        return {**event, "data": {"duration_ms": n}, **fields}

    @staticmethod
    def write(folder, records):
        text = "\n".join(map(json.dumps, records))
        (folder / "events.jsonl").write_text(text)


class Evaluation:
    """Writes items of evaluation sets; its reader itself sets aside what has no id or texts."""

    table = "items"
    breaks: ClassVar = {
        "type change": ({"is_deleted": "no"}, "is_deleted is of type boolean, not string")
    }

    @staticmethod
    def record(n, **fields):
        return {"evaluation_set": "s", "item_id": f"i{n}", "texts": ["t"], **fields}

    @staticmethod
    def write(folder, records):
        write(folder, "items.json", records)


class Linear:
    """Writes relations between issues; its reader itself sets aside what is of another type."""

    table = "relations"
    breaks: ClassVar = {
        "missing key": ({"type": None}, "type is there"),
        "unseen value": (
            {"type": "sings"},
            "type is one of blocks, duplicate, related, similar, not sings",
        ),
    }

    @staticmethod
    def record(n, **fields):
        told = {"id": f"r{n}", "type": "blocks", "updatedAt": "2026-09-30T12:00:00Z"}
        return {**told, "issue": {"id": "a"}, "relatedIssue": {"id": "b"}, **fields}

    @staticmethod
    def write(folder, records):
        write(folder, "relations.json", records)


class GoogleDocs:
    """Writes documents."""

    table = "documents"
    breaks: ClassVar = {
        "type change": ({"footnotes": []}, "footnotes is of type object, not array"),
        "unseen value": (
            {"suggestionsViewMode": "GUESSED"},
            "suggestionsViewMode is one of DEFAULT_FOR_CURRENT_ACCESS, PREVIEW_WITHOUT_SUGGESTIONS,"
            " SUGGESTIONS_INLINE, not GUESSED",
        ),
    }

    @staticmethod
    def record(n, **fields):
        text = {"content": [{"paragraph": {"elements": [{"textRun": {"content": "t\n"}}]}}]}
        return {"documentId": f"d{n}", "title": "t", "body": text, **fields}

    @staticmethod
    def write(folder, records):
        write(folder, "documents.json", records)


class IncidentReports:
    """Writes reports, a file each."""

    table = "reports"
    breaks: ClassVar = {
        "type change": (
            {"severity": ["high", "low"]},
            "fields.severity is of type string, not array",
        )
    }

    @staticmethod
    def record(n, **fields):
        return {"id": f"INC-{n}", "title": "Late", **fields}

    @staticmethod
    def write(folder, records):
        for record in records:
            lines = [f"{key}: {json.dumps(value)}" for key, value in record.items()]
            text = "\n".join(["---", *lines, "---", "What happened."])
            (folder / f"{record['id']}.md").write_text(text)


SOURCES = {
    "slack": Slack,
    "notion": Notion,
    "gateway": Gateway,
    "evaluation": Evaluation,
    "linear": Linear,
    "google_docs": GoogleDocs,
    "incident_reports": IncidentReports,
}

# What does not depend on the form of a source is tested with two, and with all in the long rounds.
TWO = [
    source if source in ("slack", "gateway") else pytest.param(source, marks=pytest.mark.soak)
    for source in SOURCES
]


def write(folder: Path, name: str, content) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))


@pytest.fixture
def land(settings, tmp_path):
    """Land records of a source as a complete export of its own day; return what the load says."""
    days = iter(range(100))

    def run(source, records, **changed):
        folder = tmp_path / "input"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        told = (DAY_1 + timedelta(days=next(days))).isoformat()
        write(folder, "export.json", {"exported_at": told, "complete": True})
        SOURCES[source].write(folder, records)
        return load(dataclasses.replace(settings, **changed), source, folder)

    return run


def broken_records(form):
    """One record for each kind of break, and the reasons that they should be set aside for."""
    records = [form.record(3 + n, **fields) for n, (fields, _) in enumerate(form.breaks.values())]
    return records, {f"contract: {kind}": 1 for kind in form.breaks}


@pytest.mark.parametrize("source", SOURCES)
def test_rows_that_break_a_contract_are_set_aside_and_the_rest_lands(settings, land, source):
    form = SOURCES[source]
    good = [form.record(n) for n in range(3)]
    land(source, good)
    broken, reasons = broken_records(form)
    mixed = [*good, *broken, form.record(9)]
    summary = land(source, mixed)
    assert (summary.rows, summary.quarantined) == (1, reasons)
    assert [(b["rows"], b["done"]) for b in summary.broken] == [(1, "quarantine")] * len(broken)
    found = set_aside(settings)
    details = {reason: detail.removeprefix("to hold: ") for reason, _, _, detail, *_ in found}
    assert details == {f"contract: {kind}": detail for kind, (_, detail) in form.breaks.items()}
    assert {table for _, table, *_ in found} == {form.table}
    assert all(json.loads(row[4]) and row[5] == DAY_1 + timedelta(days=1) for row in found)
    landed = query(settings, f"select external_id from {{lake}}_{source}.{form.table}")
    assert len(landed) == 4 and not {(row[2],) for row in found} & set(landed)
    # Again, in another export: nothing lands, and what is set aside is there once.
    before = snapshots(settings, source)
    again = land(source, mixed)
    assert (again.rows, again.quarantined) == (0, reasons)
    assert snapshots(settings, source) == before
    assert set_aside(settings) == found
    # Repaired, it lands; what an export could not show was never taken for deleted.
    repaired = [form.record(3 + n) for n in range(len(broken))]
    whole = land(source, [*good, *repaired, form.record(9)])
    assert (whole.rows, whole.tombstones, whole.broken) == (len(broken), 0, [])


@pytest.mark.parametrize("source", TWO)
def test_a_contract_that_stops_leaves_everything_as_it_was(settings, land, source):
    form = SOURCES[source]
    good = [form.record(n) for n in range(3)]
    land(source, good)
    before = snapshots(settings, source)
    for kind, (fields, _) in form.breaks.items():
        broken = [*good, form.record(3, **fields), form.record(4)]
        with pytest.raises(LorelineError, match=f"contract.*{kind}") as stopped:
            land(source, broken, on_breach="stop")
        assert "\n" not in str(stopped.value) and f"raw_{source}" in stopped.value.next_step
        assert snapshots(settings, source) == before
    assert set_aside(settings) == []
    assert land(source, [*good, form.record(3), form.record(4)]).rows == 2


# Versions of a row that says who may read something, each of them more than the contract knows.
TELL_READERS = {
    ("linear", "teams"): [
        {"id": "t", "key": "ENG", "name": "Engineering", "visibility": visibility, **fields}
        for visibility, fields in (
            *(("public", {}), ("secret", {}), (["public"], {}), (None, {"members": ["u1"]})),
            ("private", {"key": 7}),
        )
    ],
    ("google_docs", "files"): [
        {"id": "f", "kind": "drive#file", "permissions": [{"type": "anyone"}], **fields}
        for fields in (
            *({}, {"permissions": "none"}, {"permissions": [], "name": ["x"]}),
            *({"permissions": [], "modifiedTime": 7}, {"permissions": [], "trashed": "soon"}),
        )
    ],
    ("slack", "channels"): [
        {"id": "C1", "name": "general", "is_private": True, **fields}
        for fields in ({"is_private": False}, {"members": "all"}, {"name": ["x"]})
    ],
}


@pytest.mark.parametrize(("source", "table"), TELL_READERS)
def test_what_says_who_may_read_lands_whatever_it_breaks(settings, land, source, table, tmp_path):
    """Set aside, it would leave in force what was said before; staging reads it as a no."""
    for n, version in enumerate(TELL_READERS[source, table]):
        write(tmp_path / str(n), "export.json", {"exported_at": f"2026-10-0{n + 1}T00:00:00Z"})
        write(tmp_path / str(n), f"{table}.json", [version])
        summary = load(settings, source, tmp_path / str(n))
        assert summary.landed[table] == 1 and not summary.quarantined
        assert {(b["table"], b["done"]) for b in summary.broken} == (
            {(table, "warn")} if n else set()
        )
    assert set_aside(settings) == []


# Of those that are not here, as many.
VOLUMES = {"gateway": 5_600, "evaluation": 800}
MANY = 200


@pytest.mark.parametrize("source", TWO)
def test_a_sudden_change_of_volume_stops_the_source(settings, land, source):
    form, many = SOURCES[source], VOLUMES.get(source, MANY)
    land(source, [form.record(n) for n in range(10)])
    before = snapshots(settings, source)
    flood = [form.record(n) for n in range(many)]
    with pytest.raises(LorelineError, match=f"volume change: {many:,} rows were observed"):
        land(source, flood)
    assert snapshots(settings, source) == before
    held = land(source, flood, on_breach="quarantine")
    assert (held.rows, held.quarantined) == (0, {"contract: volume change": many - 10})
    assert snapshots(settings, source) == before
    # It is as many as that: then later loads are measured by it.
    assert land(source, flood, on_breach="warn").rows == many - 10
    assert land(source, flood).broken == []


def test_too_few_rows_delete_nothing(settings, land):
    land("slack", [Slack.record(n) for n in range(200)])
    before = snapshots(settings, "slack")
    with pytest.raises(LorelineError, match="20 rows were observed, after 200"):
        land("slack", [Slack.record(n) for n in range(20)])
    held = land("slack", [Slack.record(n) for n in range(20)], on_breach="quarantine")
    assert (held.rows, held.tombstones) == (0, 0)
    assert snapshots(settings, "slack") == before


@pytest.fixture
def small_packages(monkeypatch):
    """Loads are cut into packages of 20 rows, as if they were far larger."""
    monkeypatch.setattr("dlt_sources.landing.SLICE_ROWS", 20)
    monkeypatch.setattr("dlt_sources.landing.PACKAGE_BYTES", 1)
    monkeypatch.setattr("dlt_sources.pipeline.PACKAGE_BYTES", 1)


@pytest.mark.soak
def test_too_many_rows_stop_before_the_package_that_is_too_many(settings, land, small_packages):
    land("slack", [Slack.record(n) for n in range(10)])
    with pytest.raises(LorelineError, match="80 rows were observed so far, after 10 in recent"):
        land("slack", [Slack.record(n) for n in range(200)])
    # Up to 60 are nothing sudden.
    count = "select count(*) from {lake}_slack.messages"
    assert query(settings, count) == [(60,)]
    held = land("slack", [Slack.record(n) for n in range(200)], on_breach="quarantine")
    assert (held.rows, held.quarantined) == (0, {"contract: volume change": 140})
    assert [(b["rule"][:22], b["done"]) for b in held.broken] == [
        ("200 rows were observed", "quarantine")
    ]
    assert land("slack", [Slack.record(n) for n in range(200)], on_breach="warn").rows == 140


@pytest.mark.soak
def test_too_few_rows_of_a_large_input_land_and_delete_nothing(settings, land, small_packages):
    land("slack", [Slack.record(n) for n in range(200)])
    # Only at the end is it known that they are few: what is changed in them has landed.
    with pytest.raises(LorelineError, match="70 rows were observed, after 200 in recent"):
        land("slack", [Slack.record(n, text="ho") for n in range(70)])
    texts = "select payload ->> '$.text', count(*), count_if(is_deleted) from {lake}_slack.messages"
    assert query(settings, f"{texts} group by 1 order by 1") == [("hi", 200, 0), ("ho", 70, 0)]


def test_an_input_that_says_that_it_is_partial_may_be_as_small_as_it_likes(
    settings, land, tmp_path
):
    land("slack", [Slack.record(n) for n in range(200)])
    Slack.write(tmp_path / "part", [Slack.record(300)])
    told = (DAY_1 + timedelta(days=9)).isoformat()
    write(tmp_path / "part", "export.json", {"exported_at": told, "complete": False})
    assert load(settings, "slack", tmp_path / "part").rows == 1
    # Nor is it what others are measured by.
    assert land("slack", [Slack.record(n) for n in range(201)]).broken == []


def test_a_block_of_lines_that_breaks_its_contract_is_read_again(settings, tmp_path):
    """What makes these rows is Loreline itself: the break is planted in the contract."""
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "till.log").write_text("2026-09-30T12:00:00Z INFO paid\n" * 2)
    folder = shutil.copytree(settings.contracts_folder, tmp_path / "contracts")
    file = folder / "raw_log_files.lines.odcs.yaml"
    texts = "- name: text\n        logicalType: "
    assert file.read_text().count(texts) == 1
    file.write_text(file.read_text().replace(f"{texts}string", f"{texts}array"))
    strict = dataclasses.replace(settings, contracts=str(folder))
    with pytest.raises(LorelineError, match=r"contract.*type change: 2 rows break: text is of"):
        load(strict, "log_files", logs)
    assert snapshots(settings, "log_files") == {}
    assert set_aside(settings) == []
    assert load(settings, "log_files", logs).landed == {"lines": 2, "files": 1}
    # What is landed stays as it is, also when the file grows by what breaks it.
    before = snapshots(settings, "log_files")
    with (logs / "till.log").open("a") as log:
        log.write("2026-09-30T12:00:01Z INFO closed\n" * 2)
    with pytest.raises(LorelineError, match="type change"):
        load(strict, "log_files", logs)
    assert snapshots(settings, "log_files") == before
    assert load(settings, "log_files", logs).landed["lines"] > 0


@pytest.mark.parametrize("source", TWO)
def test_new_fields_are_reported_and_land(land, source):
    form = SOURCES[source]
    summary = land(source, [form.record(1), form.record(2, mood="glad")])
    name = "page.mood" if source == "notion" else "mood"
    if source == "incident_reports":
        # Front matter is in words of its own.
        assert summary.new_fields == {}
        return
    assert summary.new_fields == {f"{form.table}: {name}": 1}
    assert summary.landed[form.table] == 2 and not summary.quarantined


def test_what_a_contract_only_warns_of_lands(land):
    summary = land("gateway", [Gateway.record(1), Gateway.record(2, type="llm.sung")])
    assert summary.rows == 2
    (broken,) = summary.broken
    assert (broken["rows"], broken["done"], broken["examples"]) == (1, "warn", ["llm.sung"])


def test_a_changed_contract_reads_the_same_input_again(settings, land, tmp_path):
    land("gateway", [Gateway.record(1, specversion="1.1")])
    folder = shutil.copytree(settings.contracts_folder, tmp_path / "contracts")
    file = folder / "raw_gateway.events.odcs.yaml"
    file.write_text(file.read_text().replace('["1.0"]', '["1.0", "1.1"]'))
    allowed = dataclasses.replace(settings, contracts=str(folder))
    assert load(settings, "gateway", tmp_path / "input").rows == 0
    assert load(allowed, "gateway", tmp_path / "input").rows == 1


def test_a_table_without_a_contract_lands_unchecked(settings, land, tmp_path):
    summary = land("gateway", [Gateway.record(1, data=None)], contracts=str(tmp_path))
    assert (summary.rows, summary.broken, summary.new_fields) == (1, [], {})


def test_a_contract_that_cannot_be_used_stops_before_anything_lands(settings, land, tmp_path):
    (tmp_path / "raw_gateway.events.odcs.yaml").write_text("kind: DataContract\nschema: 7\n")
    with pytest.raises(LorelineError, match="is no contract"):
        land("gateway", [Gateway.record(1)], contracts=str(tmp_path))
    assert land("gateway", [Gateway.record(1)]).rows == 1


@pytest.fixture
def run(settings, capsys):
    """Run a command; return its exit code and what it printed."""

    def command(*arguments):
        capsys.readouterr()
        code = main(arguments)
        return code, *capsys.readouterr()

    return command


def test_what_is_landed_is_checked_by_its_newest_versions(
    settings, land, run, tmp_path, monkeypatch
):
    good = [Gateway.record(n) for n in range(3)]
    land("gateway", good)
    land("evaluation", [Evaluation.record(1, is_deleted="no")], on_breach="warn")
    land("evaluation", [Evaluation.record(1), Evaluation.record(2)])
    land("slack", [Slack.record(1), Slack.record(2, text=None)], on_breach="warn")
    monkeypatch.setattr("loreline.cli.progress.SECONDS_BETWEEN_LINES", 0)
    code, out, error = run("contracts", "check", "--json")
    assert code == 1
    # What goes on is said while it does, and does not disturb what is read by others.
    assert "checking: raw_slack.messages: 2 rows\n" in error
    (broken,) = (rule for rule in json.loads(out) if rule["state"] == "broken")
    assert broken == {
        "contract": "raw_slack.messages",
        "rule": "text is there",
        "state": "broken",
        "rows": 1,
        "of": 2,
        "examples": [],
    }
    code, out, _ = run("contracts", "check", "gateway")
    assert code == 0 and "45 rules of 1 tables hold." in out
    # A table that lands without a contract, and a contract of which nothing is landed.
    folder = shutil.copytree(settings.contracts_folder, tmp_path / "contracts")
    (folder / "raw_gateway.events.odcs.yaml").unlink()
    other = dataclasses.replace(settings, contracts=str(folder))
    unchecked = {each.contract: each.rule for each in checked(other) if each.state == "unchecked"}
    assert unchecked["raw_gateway.events"] == "there is no contract: rows land unchecked"
    assert unchecked["raw_notion.pages"] == "nothing is landed"


def checked(settings):
    from loreline.cli.contracts import _of_lake

    return _of_lake(settings, None, lambda line: None)


def test_a_table_without_a_row_is_not_stale(settings, run):
    ensure_raw_tables(settings, [f"{settings.prefix}raw_gateway.events"])
    code, out, _ = run("contracts", "check", "gateway", "--json")
    (one,) = (each for each in json.loads(out) if each["state"] != "kept")
    assert (code, one["rule"], one["state"]) == (0, "nothing is landed", "unchecked")


def test_what_is_stale_is_an_error_too(settings, land, run):
    land("gateway", [Gateway.record(1)])
    with connect(settings, autocommit=True) as connection:
        connection.execute(
            f"update {settings.prefix}operations.source_freshness"
            " set last_landed_at = last_landed_at - interval '40 days'"
        )
    code, out, _ = run("contracts", "check", "gateway")
    assert code == 1 and "rows landed within 30 days" in out and "40 days ago" in out
    code, out, _ = run("contracts", "check", "--help")
    assert "a table is stale" in " ".join(out.split())


def test_files_are_checked_before_they_land(settings, land, run, tmp_path):
    land("slack", [Slack.record(n) for n in range(100)])
    before = snapshots(settings, "slack")
    Slack.write(tmp_path / "next", [Slack.record(1, text=None, mood="glad"), {"no": "ts"}])
    code, out, _ = run("contracts", "check", "slack", "--from", str(tmp_path / "next"), "--json")
    found = {(rule["rule"], rule["state"]): rule["rows"] for rule in json.loads(out)}
    assert code == 1
    assert found["text is there", "broken"] == 1
    assert found["mood is no field of the contract", "new"] == 1
    assert found["input can be read: missing_id", "broken"] == 1
    volume = "1 rows were observed, after 100 in recent loads; 50 to 300 are expected"
    assert found[volume, "broken"] == 1
    assert snapshots(settings, "slack") == before and set_aside(settings) == []
    code, _, error = run("contracts", "check", "--from", str(tmp_path / "next"))
    assert code == 1 and "--from is for one source" in error


def test_the_last_results_are_shown_as_a_site(land, run, tmp_path):
    land("gateway", [Gateway.record(1), Gateway.record(2, specversion="<b>2</b>")])
    # What stopped a load is shown, too: by its rows, and by their number.
    land("evaluation", [Evaluation.record(1)])
    with pytest.raises(LorelineError):
        land("evaluation", [Evaluation.record(2, is_deleted="no")], on_breach="stop")
    land("slack", [Slack.record(1)])
    with pytest.raises(LorelineError):
        land("slack", [Slack.record(n) for n in range(MANY)])
    code, out, _ = run("contracts", "docs", "--to", str(tmp_path / "site"))
    assert code == 0 and "5 tables with a result" in out
    index = (tmp_path / "site" / "index.html").read_text()
    shown = {}
    for table in ("raw_gateway.events", "raw_evaluation.items", "raw_slack.messages"):
        row = index[index.index(table) :].partition("</tr>")[0]
        assert "1 broken" in row
        (link,) = re.findall(r'href="(validations/[^"]+)"', row)
        shown[table] = (tmp_path / "site" / unquote(link)).read_text()
    assert "specversion is one of 1.0" in shown["raw_gateway.events"]
    assert "&lt;b&gt;2&lt;/b&gt;" in shown["raw_gateway.events"]
    assert "is_deleted is of type boolean" in shown["raw_evaluation.items"]
    assert "200 rows were observed, after 1 in recent loads" in shown["raw_slack.messages"]
    assert not any("<b>2</b>" in page.read_text() for page in (tmp_path / "site").rglob("*.html"))


def test_what_landed_says_of_contracts_is_printed(settings, run, tmp_path):
    records = [Gateway.record(1, mood="x"), Gateway.record(2, data=None)]
    Gateway.write(tmp_path, [*records, Gateway.record(3, type="a\x1b[2Jb")])
    code, out, _ = run("ingest", "gateway", "--from", str(tmp_path))
    assert code == 0
    assert "data is there" in out and "set aside" in out
    assert "gateway events: mood" in out and "contract: missing key" in out
    assert "landed" in out and "\x1b" not in out


def test_versions_around_a_refused_one_are_compared_again(settings, tmp_path):
    """A → B → A with B set aside is A, and lands once."""
    folder = tmp_path / "input"
    folder.mkdir()
    changed = {"type": "message", "subtype": "message_changed"}
    records = [
        changed | {"ts": f"{NOON + n}.0", "message": Slack.record(1, blocks=blocks)}
        for n, blocks in enumerate((["a"], "broken", ["a"], ["c"]))
    ]
    Slack.write(folder, records)
    summary = load(settings, "slack", folder, observed_at=DAY_1)
    rows = query(
        settings, "select payload ->> '$.blocks[0]' from {lake}_slack.messages order by landed_at"
    )
    assert rows == [("a",), ("c",)]
    assert (summary.landed["messages"], summary.unchanged) == (2, 1)
    again = load(settings, "slack", folder, observed_at=DAY_1, again=True)
    assert again.rows == 0
