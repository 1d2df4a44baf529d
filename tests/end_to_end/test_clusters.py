"""Trajectories, from what is said in them to clusters that keep their ids."""

import random
from collections import Counter

import numpy as np
import pytest

from tests.end_to_end.exports import Page, write_notion
from tests.end_to_end.forest import assistant, chat, user
from tests.end_to_end.lakehouse import replace_in

OWN_MODELS = (
    "trajectory_texts",
    "trajectory_embeddings",
    "clustering_runs",
    "trajectory_clusters",
    "cluster_names",
    "cluster_events",
)
MODELS = ("+trajectory_clusters", "+cluster_names", "+cluster_events")
BUILD = ("--changed", "--select", *MODELS, "--exclude-resource-type", "unit_test")

SUBJECTS = {
    "orchard": "Which apples and quinces should the orchard prune before the frost, how hard?",
    "engine": "SELECT count(*) FROM locomotives WHERE boiler > 16 AND whistle IS NULL; -- 12",
    "music": "Transpose the violin sonata: a minor third, then the cello! Another clef too?",
    "sailing": "knots 9 9 9 7 7 7 / reef the mainsail / heading 270 / tide 4.2 m / wind 33 kn",
}


def question(subject, number):
    """What is asked in a conversation, nearly the same as in others about this."""
    return user(f"{SUBJECTS[subject]} {SUBJECTS[subject]} ({number})")


def conversations(subject, numbers):
    """One conversation of a single turn for each number."""
    return [
        chat(
            f"{subject}-{number}",
            [question(subject, number)],
            assistant(f"{SUBJECTS[subject]} {SUBJECTS[subject]}"),
            at=100 * number,
            session=f"{subject}-{number}",
        )
        for number in numbers
    ]


@pytest.fixture
def tell(own_lakehouse):
    """A function that lands events, in a lakehouse that clusters as few as there are here."""
    configurations = own_lakehouse.project / "seeds" / "clustering_configurations.csv"
    replace_in(configurations, ",10,4,2,0.95,", ",10,5,2,1.0,")
    return lambda *events: own_lakehouse.land_events(events)


def clusters(lakehouse):
    """Cluster and row of each trajectory that nobody went on from, by its turn."""
    rows = lakehouse.query(
        "select turns.turn_id, clusters.cluster_id, clusters.assigned_by, clusters.run_number"
        " from {lake}evaluation.trajectory_clusters as clusters"
        " inner join {lake}evaluation.trajectory_units as units using (trajectory_id)"
        " inner join {lake}conversations.conversation_branch_nodes as turns"
        " on units.leaf_node_id = turns.branch_node_id"
        " where units.superseded_by is null"
    )
    return {turn: others for turn, *others in rows}


def runs(lakehouse):
    """What was clustered, run by run."""
    return lakehouse.query(
        "select run_number, trajectory_count, sample_size, cluster_count"
        " from {lake}evaluation.clustering_runs order by run_number"
    )


def cluster_of(found, subject):
    """The one cluster that the conversations about something are in."""
    counts = Counter(c for turn, (c, *_) in found.items() if turn.startswith(subject))
    assert len(counts) == 1, counts
    return next(iter(counts))


def test_clusters_stay_while_conversations_come_and_go_on(own_lakehouse, tell):
    first = ("orchard", "engine", "music")
    tell(*(event for subject in first for event in conversations(subject, range(12))))
    own_lakehouse.build(*BUILD)
    before = clusters(own_lakehouse)
    ids = {subject: cluster_of(before, subject) for subject in first}
    assert len(set(ids.values())) == 3 and None not in ids.values()
    assert runs(own_lakehouse) == [(1, 36, 36, 3)]
    ((stability, outliers),) = own_lakehouse.query(
        "select stability, outlier_share from {lake}evaluation.clustering_runs"
    )
    assert (stability, outliers) == (1.0, 0.0)
    assert {row[1] for row in before.values()} == {"clustering"}
    names = dict(
        own_lakehouse.query("select cluster_id, cluster_name from {lake}evaluation.cluster_names")
    )
    for subject, cluster_id in ids.items():
        words = names[cluster_id].split(", ")
        assert len(words) == 5 and all(word in SUBJECTS[subject].lower() for word in words)
        assert not {"and", "the", "then", "which"} & set(words)
    happened = "select event, count(*) from {lake}evaluation.cluster_events group by 1 order by 1"
    assert own_lakehouse.query(happened) == [("born", 3)]

    # Nothing new: nothing is committed.
    snapshots = own_lakehouse.snapshots()
    assert not own_lakehouse.build(*BUILD).encoded
    assert own_lakehouse.snapshots() == snapshots

    # Few are new: they are added to clusters, and nothing else changes.
    goes_on = [
        question("music", 3),
        assistant(f"{SUBJECTS['music']} {SUBJECTS['music']}"),
        question("music", 3),
    ]
    tell(
        *conversations("orchard", [50]),
        chat("music-3-on", goes_on, assistant(SUBJECTS["music"]), at=9000, session="music-3"),
    )
    own_lakehouse.build(*BUILD)
    found = clusters(own_lakehouse)
    assert len(runs(own_lakehouse)) == 1
    assert found["orchard-50"] == [ids["orchard"], "nearest", 1]
    assert found["music-3-on"][1:] == ["nearest", 1]
    assert "music-3" not in found
    kept = own_lakehouse.query(
        "select clusters.cluster_id from {lake}evaluation.trajectory_clusters as clusters"
        " inner join {lake}evaluation.trajectory_units using (trajectory_id)"
        " where superseded_by is not null"
    )
    assert kept == [(ids["music"],)]
    assert {t: row for t, row in found.items() if t in before} == {
        t: row for t, row in before.items() if t != "music-3"
    }

    # Many are new, about something else: all is clustered anew, and a cluster is born.
    tell(*conversations("sailing", range(12)))
    own_lakehouse.build(*BUILD)
    found = clusters(own_lakehouse)
    assert {row[2] for row in found.values()} == {2}
    # 36, two more, of which one took the place of another, and 12.
    assert runs(own_lakehouse)[1][:3] == (2, 49, 49)
    for subject in first[:2]:
        assert cluster_of(found, subject) == ids[subject]
    assert {row[0] for t, row in found.items() if t.startswith("music")} <= {ids["music"], None}
    assert cluster_of(found, "sailing").endswith("-4")
    assert own_lakehouse.query(happened) == [("born", 4)]
    ((members,),) = own_lakehouse.query(
        "select count(*) from (select unnest(members, max_depth := 2)"
        " from {lake}evaluation.clustering_runs where run_number = 2) as members"
        " inner join {lake}evaluation.trajectory_units as units using (trajectory_id)"
        " where units.superseded_by is not null"
    )
    assert members == 0

    # What was found stays, also when all is computed anew.
    state = own_lakehouse.state()
    clustered = [name for name in state if "cluster" in name]
    own_lakehouse.build("build", "--full-refresh", "--select", *OWN_MODELS)
    again = own_lakehouse.state()
    assert {name: again[name] for name in clustered} == {name: state[name] for name in clustered}


@pytest.mark.soak
def test_a_changed_answer_changes_the_vector(own_lakehouse, tell):
    asked = [question("engine", 1)]
    tell(chat("a", asked, at=0, kind="failed"))
    own_lakehouse.build(*BUILD)
    tell(chat("a", asked, assistant("yes"), at=5))
    own_lakehouse.build(*BUILD)
    vectors = own_lakehouse.query(
        "select content_hash, embedding from {lake}evaluation.trajectory_embeddings order by _batch"
    )
    assert len(vectors) == 2
    for _, vector in vectors:
        assert np.isclose(np.linalg.norm(vector), 1)
    ((current, row),) = own_lakehouse.query(
        "select texts.content_hash, clusters.content_hash"
        " from {lake}evaluation.trajectory_texts as texts"
        " inner join {lake}evaluation.trajectory_clusters as clusters using (trajectory_id)"
        " where window_index = 0"
    )
    assert current == row == vectors[1][0]


@pytest.mark.soak
def test_a_text_is_embedded_once_whatever_it_is_from(own_lakehouse, tell, tmp_path):
    text = "user: which plums keep till March?"
    page = write_notion(tmp_path / "notion", "2026-10-01T08:00:00Z", {"plums": Page([text])})
    own_lakehouse.land("notion", page)
    tell(chat("plums", [user(text.removeprefix("user: "))], at=0, kind="failed"))
    encoded = own_lakehouse.build(*BUILD).encoded
    both = own_lakehouse.query(
        "select distinct text_hash from {lake}knowledge.chunks"
        " inner join {lake}evaluation.trajectory_texts using (text_hash)"
    )
    assert both == [(encoded[0],)] and len(encoded) == 1


@pytest.mark.soak
def test_what_was_embedded_of_a_conversation_that_goes_on_is_used_again(own_lakehouse, tell):
    long = [question("orchard", n) for n in range(4)]
    told = [m for q in long for m in (q, assistant(SUBJECTS["music"]))]
    tell(chat("one", told[:5], told[5], at=0))
    first = own_lakehouse.build(*BUILD).encoded
    tell(chat("two", told[:7], told[7], at=10))
    second = own_lakehouse.build(*BUILD).encoded
    assert len(first) == len(set(first)) > 2
    assert not set(first) & set(second)
    windows = own_lakehouse.query(
        "select text_hash from {lake}evaluation.trajectory_texts"
        " where trajectory_id in (select trajectory_id from {lake}evaluation.trajectory_units"
        " where superseded_by is null)"
    )
    repeated = {text_hash for (text_hash,) in windows} & set(first)
    assert len(repeated) >= len(first) - 1
    assert {text_hash for (text_hash,) in windows} - repeated == set(second)


@pytest.mark.soak
def test_two_builds_at_once_cluster_once(own_lakehouse, tell):
    tell(*conversations("engine", range(8)), *conversations("music", range(8)))
    arguments = ("build", "--select", *MODELS, *("--exclude-resource-type", "test", "unit_test"))
    builds = [own_lakehouse.start_build(*arguments) for _ in range(2)]
    assert [build.result().faults for build in builds] == [{}, {}]
    assert runs(own_lakehouse) == [(1, 16, 16, 2)]
    assert len(clusters(own_lakehouse)) == 16


@pytest.mark.soak
def test_a_sample_is_clustered_and_the_others_are_added(own_lakehouse, tell):
    configurations = own_lakehouse.project / "seeds" / "clustering_configurations.csv"
    replace_in(configurations, ",20000,", ",30,")
    subjects = ("engine", "music", "sailing")
    tell(*(event for subject in subjects for event in conversations(subject, range(20))))
    own_lakehouse.build(*BUILD)
    found = clusters(own_lakehouse)
    assert runs(own_lakehouse) == [(1, 60, 30, 3)]
    assert Counter(row[1] for row in found.values()) == {"clustering": 30, "nearest": 30}
    agreeing = [
        Counter(row[0] for t, row in found.items() if t.startswith(subject)).most_common(1)[0]
        for subject in subjects
    ]
    assert len({cluster_id for cluster_id, _ in agreeing} - {None}) == 3
    assert sum(count for _, count in agreeing) >= 54


@pytest.mark.soak
def test_a_window_that_is_too_long_is_set_aside_and_the_others_count(own_lakehouse, tell):
    """Random letters are many more tokens than words as long as they are."""
    letters = random.Random(1)
    blob = " ".join("".join(letters.choices("bcdfgjkqvwxz", k=12)) for _ in range(400))
    tell(
        chat("mixed", [question("engine", 1)], assistant(blob), at=0, session="mixed"),
        chat("blob", [user(blob[:370])], at=50, kind="failed", session="blob"),
    )
    own_lakehouse.build(*BUILD)
    ((set_aside,),) = own_lakehouse.query(
        "select count(*) from {pg}operations.quarantine where reason = 'no_usable_vector'"
    )
    assert set_aside > 1
    found = clusters(own_lakehouse)
    assert found == {"mixed": [None, "clustering", 1]}
    snapshots = own_lakehouse.snapshots()
    own_lakehouse.build(*BUILD)
    assert own_lakehouse.snapshots() == snapshots
