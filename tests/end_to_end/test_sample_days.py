"""The sample workspace through its three days, with the default model.

Each day is landed and built while somebody goes on searching; what was done and seen is looked at
afterwards.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dlt_sources import SOURCES
from loreline.serving.search import Hit
from loreline.settings import PROJECT_ROOT, Settings
from tests.end_to_end.lakehouse import NO_TESTS, Lakehouse, temporary_lakehouse, vectors
from tests.end_to_end.watching import Asker, Watch, searching_all_the_while
from tests.steps import StepError

SAMPLE = PROJECT_ROOT / "sample_workspace"
DAYS = ("day_one", "day_two", "day_three")
EXPECTED: dict[str, Any] = yaml.safe_load((SAMPLE / "expected_changes.yaml").read_text())
JUDGEMENTS: dict[str, Any] = yaml.safe_load((SAMPLE / "expected_judgements.yaml").read_text())
# Of what every source can be asked; the sample also holds what no source reads yet.
QUESTIONS: list[dict[str, Any]] = [
    question
    for question in yaml.safe_load((SAMPLE / "questions.yaml").read_text())
    if all(place["source"] in SOURCES for place in question["expect"][:1])
]

TOP = 5
PUBLIC = ("public",)
MEMBER = ("slack:U01VE6QFCNA",)
LEAVER = ("slack:U0AG05569T0",)  # leaves the private channel on day two
PRIVATE_CHANNEL = "slack:C04GJM0PM9R:"

# By source: a file of its newest input, what its first record then says, and why that is caught.
AFTERWARDS = "2026-10-21T18:00:00.000Z"
PLANTED: dict[str, list[tuple[str, dict[str, Any], str]]] = {
    "evaluation": [("items.jsonl", {"is_deleted": "no"}, "contract: type change")],
    "gateway": [("events.jsonl", {"data": None}, "contract: missing key")],
    "google_docs": [
        (
            "1oVNs9ImP8kYEj3MKs6jVWKvSTADa5vNcOBFYCNHGLnk.json",
            {"title": "Planted", "footnotes": []},
            "contract: type change",
        )
    ],
    "incident_reports": [
        ("INC-39.md", {"title": "Planted", "severity": [3]}, "contract: type change")
    ],
    "linear": [
        ("relations.jsonl", {"type": "sings"}, "contract: unseen value"),
        ("issues.jsonl", {"title": "Planted", "estimate": "two"}, "wrong_type"),
    ],
    "notion": [("pages.jsonl", {"properties": None}, "contract: missing key")],
    "slack": [
        ("general/2026-09-07.json", {"text": "Planted", "blocks": "two"}, "contract: type change")
    ],
}


@dataclass(frozen=True)
class Version:
    """A document version."""

    doc_id: str
    version_number: int
    content_hash: str
    metadata_hash: str
    is_deleted: bool
    created_at: datetime


@dataclass
class Day:
    """What one day brought.

    Attributes:
        landed: rows by raw table.
        versions: that were added.
        encoded: hashes of the texts that were given to the model, in that order.
        text_hashes: those of the added versions' chunks and of the added windows of trajectories.
        watches: what was seen meanwhile; nothing on day one.
        answers: the hits for each question of the day, in each collection.
        preferences: which of two answers is preferred by then, and whether that is disputed.
        labels: the categories that rules give by then to what ends in a turn.
    """

    landed: Counter[str]
    versions: list[Version]
    encoded: list[str]
    text_hashes: set[str]
    watches: dict[Asker, Watch]
    answers: dict[str, list[list[Hit]]]
    preferences: dict[frozenset[str], tuple[str | None, bool]]
    labels: dict[str, set[str]]


@pytest.fixture(scope="module")
def lakehouse(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lakehouse]:
    with temporary_lakehouse(stack, tmp_path_factory.mktemp("sample")) as lakehouse:
        yield lakehouse


@pytest.fixture(scope="module")
def days(lakehouse: Lakehouse) -> dict[str, Day]:
    texts = sorted({question["question"] for question in QUESTIONS})
    embeddings = dict(zip(texts, lakehouse.encode(texts), strict=True))
    return {day: live_through(lakehouse, day, embeddings) for day in DAYS}


def live_through(lakehouse: Lakehouse, day: str, embeddings: dict[str, np.ndarray]) -> Day:
    """Land a day, build what it changes while searches go on, test that, and ask its questions."""
    landed: Counter[str] = Counter()
    for place in sorted((SAMPLE / day).iterdir()):
        if place.name not in SOURCES:
            continue
        landed += lakehouse.land(place.name, place).landed
    is_first = day == DAYS[0]
    before, texts_before = (
        (-1, -1)
        if is_first
        else lakehouse.query(
            "select (select max(_batch) from {lake}knowledge.documents),"
            " (select max(_batch) from {lake}evaluation.trajectory_texts)"
        )[0]
    )
    watches: dict[Asker, Watch] = {}
    if is_first:
        build = lakehouse.build("build", *NO_TESTS)
    else:
        anything = vectors(lakehouse)[0]
        askers = [PUBLIC, MEMBER, LEAVER]
        with searching_all_the_while(lakehouse, askers, "Saltmarsh till", anything) as watches:
            build = lakehouse.build("--changed", "--exclude-resource-type", "unit_test")
        for watch in watches.values():
            watch.check_documents_are_whole(lakehouse)
    lakehouse.check_contents()
    versions = lakehouse.query(
        "select doc_id, version_number, content_hash, metadata_hash, is_deleted, created_at"
        " from {lake}knowledge.documents where _batch > $1",
        before,
    )
    texts_said = lakehouse.query(
        "select distinct text_hash from {lake}knowledge.chunks where document_version_id in"
        " (select document_version_id from {lake}knowledge.documents where _batch > $1)"
        " union select text_hash from {lake}evaluation.trajectory_texts"
        " where _batch > $2 and not is_deleted",
        before,
        texts_before,
    )
    answers = {
        key(question): [
            lakehouse.search(
                question["question"],
                *([question["as"]] if question["as"] else []),
                embedding=embeddings[question["question"]],
                collection=collection.vector_collection,
            )
            for collection in lakehouse.collections()
        ]
        for question in QUESTIONS
        if question["day"] == day
    }
    hashes = {text_hash for (text_hash,) in texts_said}
    added = [Version(*row) for row in versions]
    return Day(
        landed,
        added,
        build.encoded,
        hashes,
        watches,
        answers,
        preferences(lakehouse),
        labels(lakehouse),
    )


def preferences(lakehouse: Lakehouse) -> dict[frozenset[str], tuple[str | None, bool]]:
    """The preferred one of two answers, None where undecided, and whether that is disputed."""
    rows = lakehouse.query(
        "select one.turn_id || '/' || one.choice_index, other.turn_id || '/' || other.choice_index,"
        " consensus.preferred, consensus.is_disputed"
        " from {lake}evaluation.preference_consensus as consensus"
        " inner join {lake}evaluation.candidate_preference_pairs as pairs using (pair_id)"
        " inner join {lake}conversations.conversation_links as one"
        " on pairs.node_a = one.branch_node_id"
        " inner join {lake}conversations.conversation_links as other"
        " on pairs.node_b = other.branch_node_id"
        " where pairs.is_wanted"
    )
    return {
        frozenset((a, b)): ({"a": a, "b": b}.get(preferred), is_disputed)
        for a, b, preferred, is_disputed in rows
    }


def labels(lakehouse: Lakehouse) -> dict[str, set[str]]:
    """By category the turns in which conversations end that have it by a rule."""
    rows = lakehouse.query(
        "select labels.category, nodes.turn_id || '/' || nodes.choice_index"
        " from {lake}evaluation.cluster_category_labels as labels"
        " inner join {lake}evaluation.trajectory_units as units"
        " on labels.subject_id = units.trajectory_id and units.superseded_by is null"
        " inner join {lake}conversations.conversation_links as nodes"
        " on units.leaf_node_id = nodes.branch_node_id"
        " where labels.labeller = 'rule' and not labels.is_withdrawn"
    )
    found: dict[str, set[str]] = {}
    for category, end in rows:
        found.setdefault(category, set()).add(end)
    return found


def key(question: dict[str, Any]) -> str:
    return f"{question['question']} ({question['as'] or 'public'}, {question['day']})"


def changed_documents(day: str) -> dict[str, set[str]]:
    """The documents that `expected_changes.yaml` lists, by kind of change."""
    return {
        kind: {
            f"{item['source']}:{item['external_id']}"
            for source, changes in EXPECTED[day].items()
            if source in SOURCES
            for item in changes.get(kind, [])
        }
        for kind in ("content", "deleted", "restored", "permissions")
    }


def new_logs(day: str) -> set[str]:
    """The hours of logs that `expected_changes.yaml` lists as new."""
    listed = EXPECTED[day].get("log_files", {}).get("new", [])
    return {f"{item['source']}:{item['external_id']}" for item in listed}


def test_just_the_changed_messages_land(days: dict[str, Day]) -> None:
    changes = EXPECTED["day_two"]["slack"]["messages"]
    assert days["day_two"].landed["messages"] == sum(changes.values())
    assert days["day_three"].landed == {"pages": 1}


def test_just_the_changed_documents_get_versions(days: dict[str, Day]) -> None:
    latest = {version.doc_id: version for version in days["day_one"].versions}
    assert len(latest) == len(days["day_one"].versions) > 200
    for day in DAYS[1:]:
        expected = changed_documents(day)
        added = {version.doc_id: version for version in days[day].versions}
        assert len(added) == len(days[day].versions)
        # A conversation that began since then is new, and differs from nothing.
        end = max(version.created_at for version in latest.values())
        new = {doc_id for doc_id in added.keys() - latest.keys() if added[doc_id].created_at > end}
        assert added.keys() - new == set().union(*expected.values())
        logs = {doc_id for doc_id in new if doc_id.startswith("log_files:")}
        assert logs == new_logs(day)
        assert len(new - logs) < EXPECTED[day].get("slack", {}).get("messages", {}).get("new", 1)
        for doc_id, version in added.items():
            before = latest[doc_id].version_number if doc_id in latest else 0
            assert version.version_number == before + 1
        for doc_id in expected["deleted"]:
            assert added[doc_id].is_deleted and not latest[doc_id].is_deleted
        for doc_id in expected["restored"]:
            assert latest[doc_id].is_deleted and not added[doc_id].is_deleted
        for doc_id in expected["permissions"]:
            assert added[doc_id].content_hash == latest[doc_id].content_hash
            assert added[doc_id].metadata_hash != latest[doc_id].metadata_hash
        latest |= added


def test_just_the_changed_texts_are_embedded(days: dict[str, Day]) -> None:
    known: set[str] = set()
    for day in DAYS:
        encoded, wanted = days[day].encoded, days[day].text_hashes
        assert sorted(encoded) == sorted(wanted - known), day
        known |= wanted
    # A day of logs is new altogether.
    assert 0 < len(days["day_two"].encoded) < len(days["day_one"].encoded) / 8
    assert days["day_two"].text_hashes & days["day_one"].text_hashes
    assert not days["day_three"].encoded, "the page says again what it said on day one"


def test_a_page_that_went_back_is_a_third_version_of_it(days: dict[str, Day]) -> None:
    (reverted,) = days["day_three"].versions
    first, second = (
        next(version for version in days[day].versions if version.doc_id == reverted.doc_id)
        for day in DAYS[:2]
    )
    assert (first.version_number, second.version_number, reverted.version_number) == (1, 2, 3)
    assert first.content_hash == reverted.content_hash != second.content_hash


def test_nothing_stale_is_returned_by_a_search_during_the_push(days: dict[str, Day]) -> None:
    for day in DAYS[1:]:
        changed = {version.doc_id for version in days[day].versions}
        deleted = {version.doc_id for version in days[day].versions if version.is_deleted}
        for asker, watch in days[day].watches.items():
            watch.check_each_document_changed_once()
            first, last = watch.sights[0], watch.sights[-1]
            assert {document for document, _, _ in first ^ last} <= changed, asker
            assert not deleted & {document for document, _, _ in last}
    for day, readers in {"day_two": {MEMBER, LEAVER}, "day_three": {MEMBER}}.items():
        for asker, watch in days[day].watches.items():
            private = {d for d in watch.documents if d.startswith(PRIVATE_CHANNEL)}
            assert bool(private) == (asker in readers), (day, asker)
    left = days["day_two"].watches[LEAVER]
    assert not any(d.startswith(PRIVATE_CHANNEL) for d, _, _ in left.sights[-1])


def test_answers_are_preferred_as_they_were_judged(days: dict[str, Day]) -> None:
    expected: dict[frozenset[str], tuple[str | None, bool]] = {}
    for day in ("day_one", "day_two"):
        for pair in JUDGEMENTS[day]["preferences"]:
            expected[frozenset(pair["answers"])] = (pair["preferred"], pair["is_disputed"])
        assert days[day].preferences == expected, day
    assert days["day_three"].preferences == expected


def test_conversations_have_the_categories_that_rules_give_them(days: dict[str, Day]) -> None:
    for category, ends in JUDGEMENTS["day_one"]["categories"].items():
        assert set(ends) <= days["day_one"].labels[category], category


@pytest.mark.parametrize("question", QUESTIONS, ids=key)
def test_a_question_finds_what_it_should(days: dict[str, Day], question: dict[str, Any]) -> None:
    answers = days[question["day"]].answers[key(question)]
    assert answers
    for hits in answers:
        best = list(dict.fromkeys(hit.doc_id for hit in hits[:TOP]))
        for expected in question["expect"][:1]:
            assert f"{expected['source']}:{expected['external_id']}" in best
        for word in question.get("never", []):
            revealing = [hit for hit in hits if word in f"{hit.title} {hit.text}"]
            assert not revealing


def test_the_command_finds_the_same(days: dict[str, Day], lakehouse: Lakehouse) -> None:
    assert days
    asked = lakehouse.command("search", "Up to what amount may support refund by itself?")
    assert asked.exit_code == 0, asked.errors
    assert "Up to £80 since today" in asked.output
    secret = "How much do we offer for Saltmarsh, and when do we sign?"
    for who, is_member in (
        ("ines@brambleworks.example", True),
        ("samuel@brambleworks.example", False),
    ):
        asked = lakehouse.command("search", secret, "--as", who)
        assert asked.exit_code == 0, asked.errors
        assert ("1.65 million" in asked.output) == is_member


def planted(source: str, folder: Path) -> Path:
    """A copy of the newest input of a source, exported later, with breaks planted in it."""
    newest = [place for day in DAYS if (place := SAMPLE / day / source).is_dir()][-1]
    shutil.copytree(newest, folder)
    told = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps(told | {"exported_at": AFTERWARDS}))
    for name, fields, _ in PLANTED.get(source, []):
        file = folder / name
        text = file.read_text()
        if file.suffix == ".md":
            _, front, body = text.split("---\n", 2)
            front = yaml.safe_dump(yaml.safe_load(front) | fields)
            file.write_text(f"---\n{front}---\n{body}")
        elif file.suffix == ".jsonl":
            first, _, others = text.partition("\n")
            file.write_text(f"{json.dumps(json.loads(first) | fields)}\n{others}")
        else:
            content = json.loads(text)
            (content[0] if isinstance(content, list) else content).update(fields)
            file.write_text(json.dumps(content))
    return folder


@pytest.mark.soak
def test_a_break_planted_in_each_source_changes_nothing_downstream(
    days: dict[str, Day], lakehouse: Lakehouse, tmp_path: Path
) -> None:
    """Its row is set aside, everything else of the input is as it was: no table has a new snapshot.

    The days end with what they began: this changes nothing for the other tests of the module.
    """
    assert days
    before, contents = lakehouse.snapshots(), lakehouse.contents()
    for source, breaks in PLANTED.items():
        done = lakehouse.land(source, planted(source, tmp_path / source))
        assert (done.rows, done.snapshots) == (0, {}), source
        assert done.unchanged > 0 or source == "notion"
        assert done.quarantined == Counter(reason for _, _, reason in breaks), source
    # The rows of log files are made by Loreline itself: there the contract is what is planted.
    contracts = shutil.copytree(lakehouse.settings.contracts_folder, tmp_path / "contracts")
    file = contracts / "raw_log_files.lines.odcs.yaml"
    texts = "- name: text\n        logicalType: "
    assert file.read_text().count(texts) == 1
    file.write_text(file.read_text().replace(f"{texts}string", f"{texts}array"))
    strict = dataclasses.replace(lakehouse.settings, contracts=str(contracts))
    logs = planted("log_files", tmp_path / "log_files")
    with (logs / "pantry.jsonl").open("a") as log:
        log.write((logs / "pantry.jsonl").read_text().splitlines()[-1] + "\n")
    with pytest.raises(StepError, match=r"type change: .* text is of type array"):
        dataclasses.replace(lakehouse, settings=strict).land("log_files", logs)

    build = lakehouse.build("build", "--exclude-resource-type", "unit_test")
    assert not build.encoded
    assert lakehouse.snapshots() == before
    assert lakehouse.contents() == contents
    lakehouse.check_contents()
