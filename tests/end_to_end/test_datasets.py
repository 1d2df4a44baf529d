"""From trajectories and preferences to four datasets that leak nothing and stay what they are."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import combinations

import pytest

from loreline.datasets.training_text import shingles
from loreline.lake import duck
from tests.end_to_end.dataset_models import TOOLS, commit, git
from tests.end_to_end.forest import (
    answers_of_trees,
    assistant,
    call,
    chat,
    rank_events,
    ranked,
    requests_for,
    system,
    tool,
    user,
)
from tests.end_to_end.lakehouse import replace_in, temporary_lakehouse
from tests.end_to_end.trainers import load

DATASETS = {
    "sft": "sft_messages_dataset",
    "dpo": "dpo_preference_dataset",
    "suppression": "suppression_dataset",
    "unlearning": "unlearning_dataset",
}
BUILD = ("build", "--select", "+tag:datasets", "--exclude-resource-type", "unit_test")
UNTESTED = (*BUILD, "--exclude-resource-type", "test")
AGAIN = ("build", "--select", "tag:datasets", "--exclude-resource-type", "unit_test")
GIT_IGNORED = "target/\nlogs/\n.user.yml\n__pycache__/\n"

# Put together here, so that nobody takes it for one that was leaked.
KEY = "sk-" + "proj-" + "a1B2" * 8
BELLS = "What do the bells of the old town ring for at noon in May?"
WITHDRAWN = "Which of the two towers of the old town is the older one, and by how many years?"
LONG = "The cooperative on the hill delivers milk before dawn and collects the empty bottles. " * 4


def long_text(name):
    """A text of its own that is long enough to have near-copies."""
    return " ".join(f"{name}{n} is what it says about {name} number {n}," for n in range(20))


def looked_up(name, answer, at, query=None, **others):
    """A conversation in which a tool is asked, and answers."""
    asked = [system("Be brief."), user(f"How many {name} are there? {long_text(name)}")]
    calls = assistant(None, tool_calls=[call("c1", "search", json.dumps({"query": query or name}))])
    found = [*asked, calls, tool("c1", f"There are 42 {name}.")]
    request = {"tools": TOOLS}
    return [
        chat(f"{name}-1", asked, calls, at=at, session=name, request=request, **others),
        chat(f"{name}-2", found, assistant(answer), at=at + 1, session=name, request=request),
    ]


def plain(name, question, answer, at, **others):
    """A conversation of one question and one answer."""
    asked = [user(question)]
    return chat(name, asked, assistant(answer), at=at, session=name, **others)


def conversations():
    """What a datasets' maker has to deal with, each thing once or twice."""
    good = [plain(f"g{n}", long_text(f"g{n}"), long_text(f"answer{n}"), 10 * n) for n in range(12)]
    one = long_text("copied")
    pair = [user(long_text("pair"))]
    answers = {"better": LONG + "It is right.", "worse": "I am Ana and this is long enough."}
    return [
        *good,
        *looked_up("apples", "There are 42 apples.", 200),
        # Claims that stand in no result.
        *looked_up("pears", "There are 117 pears, 118 pears and 119 pears.", 210),
        *looked_up("plums", "There are 221 plums, 228 plums and 229 plums.", 220),
        # The same again, and nearly the same, in other sessions.
        plain("copy", one, long_text("said"), 300),
        plain("exact", one, long_text("said"), 310),
        plain("near", one + " please", long_text("said"), 320),
        # Nobody should learn these.
        plain("secret", f"My key is {KEY}, write to ana@example.com.", LONG + "bo@x.org", 400),
        plain("known", BELLS, LONG, 410),
        # In what the system says, and in what a tool was asked.
        chat(
            "told", [system(BELLS), user(long_text("t"))], assistant(LONG), at=411, session="told"
        ),
        *looked_up("quinces", "There are 42 quinces.", 412, query=BELLS),
        plain("withdrawn", WITHDRAWN, long_text("w"), 414),
        plain("half", long_text("half"), long_text("an answer"), 415, finish_reason="length"),
        plain("odd", long_text("odd"), long_text("odd answer"), 416, request={"tools": ["find"]}),
        chat("broken", [user("Will it?")], at=420, session="broken", kind="failed"),
        *(
            chat(name, pair, assistant(text), at=500 + n, session="pair")
            for n, (name, text) in enumerate(answers.items())
        ),
        # What is not wanted there is said here, too, where nobody judged it.
        plain("again", long_text("pair"), answers["worse"], 510),
        ranked("better", 0, 600, "t"),
        ranked("worse", 1, 600, "t"),
        # Alike once what tells them apart is taken out.
        *(
            chat(name, [user("Who is it? " + long_text("who"))], assistant(text), at=at)
            for name, text, at in [
                ("ana", "Write to ana@example.com.", 700),
                ("bo", "Write to bo@example.com.", 701),
            ]
        ),
        ranked("ana", 0, 710, "t"),
        ranked("bo", 1, 710, "t"),
    ]


BELLS_SET = {
    "evaluation_set": "bells",
    "item_id": "7",
    "texts": [f"Tell me: {BELLS}"],
}
TOWERS_SET = {"evaluation_set": "towers", "item_id": "1", "texts": [WITHDRAWN]}
ITEMS = [BELLS_SET, {"evaluation_set": "bells"}, TOWERS_SET, {**TOWERS_SET, "is_deleted": True}]


@pytest.fixture(scope="module")
def made(stack, tiny_model, tmp_path_factory):
    """Datasets of made conversations, built once, in a project with a commit."""
    folder = tmp_path_factory.mktemp("datasets")
    with temporary_lakehouse(stack, folder, tiny_model=tiny_model) as lakehouse:
        (lakehouse.project / ".gitignore").write_text(GIT_IGNORED)
        git(lakehouse.project, "init", "--quiet")
        commit(lakehouse.project)
        items = folder / "items.jsonl"
        items.write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
        landed = lakehouse.land("evaluation", items)
        assert (landed.rows, landed.quarantined) == (3, {"wrong_type": 1})
        lakehouse.land_events(conversations())
        lakehouse.build(*BUILD)
        yield lakehouse


def rows(lakehouse, table):
    with lakehouse.lake() as connection:
        result = connection.execute(lakehouse.with_names(f"select * from {{lake}}datasets.{table}"))
        names = [column[0] for column in result.description]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def by_session(lakehouse, table):
    """Rows of a table by the session that they come from."""
    found = defaultdict(list)
    for row in rows(lakehouse, table):
        found[json.loads(row["provenance"])["session_id"]].append(row)
    return found


def decided(lakehouse, dataset):
    """What was decided of the examples of a dataset, by session."""
    return {
        session: row
        for session, *row in lakehouse.query(
            "select examples.session_id, decisions.exclusion, decisions.excluded_for,"
            " decisions.similarity, decisions.example_id"
            " from {lake}datasets.example_decisions as decisions"
            " inner join {lake}datasets.dataset_examples as examples using (example_id)"
            f" where examples.dataset = '{dataset}' order by examples.example_rank desc"
        )
    }


# what is in them


def test_negatives_are_told_by_type(made):
    found = {
        session: (kind, reasons)
        for session, kind, reasons in made.query(
            "select session_id, negative_type, reasons from {lake}datasets.trajectory_scores"
            " where negative_type is not null"
        )
    }
    assert found == {
        "pears": ("hallucination", ["by rule"]),
        "plums": ("hallucination", ["by rule"]),
        "broken": ("noise_reject", ["underspecified", "without an answer"]),
        "half": ("noise_reject", ["without an answer"]),
        "pair": ("hard_negative", ["looks right and is not"]),
        "s": ("hard_negative", ["looks right and is not"]),
    }
    suppressed = rows(made, "suppression_dataset")
    assert Counter(row["negative_type"] for row in suppressed) == {
        "hallucination": 2,
        "hard_negative": 2,
    }
    assert {row["label"] for row in suppressed} == {False}


def test_conversations_with_tools_are_those_of_a_chat(made):
    [row] = by_session(made, "sft_messages_dataset")["apples"]
    messages = json.loads(row["messages"])
    assert [message["role"] for message in messages] == [
        *("system", "user", "assistant", "tool", "assistant")
    ]
    [called] = messages[2]["tool_calls"]
    assert called == {
        "id": "call_1_0",
        "type": "function",
        "function": {"name": "search", "arguments": '{"query": "apples"}'},
    }
    assert messages[3] == {
        "role": "tool",
        "content": "There are 42 apples.",
        "tool_call_id": "call_1_0",
    }
    assert json.loads(row["tools"]) == TOOLS
    assert row["labels"] == ["rule: stable_high_quality", "rule: tool_helped"]
    judged = json.loads(row["provenance"])["judged_by"]
    assert {(one["labeller"], one["category"]) for one in judged} == {
        ("rule", "stable_high_quality"),
        ("rule", "tool_helped"),
    }


def test_secrets_are_taken_out_and_counted(made):
    [row] = by_session(made, "sft_messages_dataset")["secret"]
    asked, answered = json.loads(row["messages"])
    assert asked["content"] == "My key is <API_KEY>, write to <EMAIL>."
    assert answered["content"].endswith("<EMAIL>")
    assert json.loads(row["redactions"]) == {"email_address": 2, "openai_key": 1}
    for name in DATASETS.values():
        text = json.dumps(rows(made, name), default=str)
        assert KEY not in text and "@" not in text


def test_repetitions_are_left_out_and_it_is_said_for_which(made):
    sft = decided(made, "sft")
    repeated = {name: sft[name] for name in ("copy", "exact", "near")}
    [kept] = [name for name, row in repeated.items() if row[0] is None]
    for name, (kind, kept_instead, similarity, _) in repeated.items():
        if name == kept:
            continue
        assert kept_instead == repeated[kept][3]
        is_exact = "near" not in (name, kept)
        assert kind == ("exact duplicate" if is_exact else "near duplicate")
        assert similarity == 1 if is_exact else 0.8 <= similarity <= 1
    assert kept in by_session(made, "sft_messages_dataset")


def test_what_is_in_an_evaluation_set_is_left_out(made):
    sft = decided(made, "sft")
    for session in ("known", "told", "quinces"):
        assert sft[session][:2] == ["in an evaluation set", "bells 7"], session
    assert not {"known", "told", "quinces"} & by_session(made, "sft_messages_dataset").keys()
    # "… tell me" is the item's alone.
    overlaps = made.query("select overlap from {lake}datasets.contaminated_messages")
    assert len(overlaps) == 3 and all(0.5 <= overlap < 1 for (overlap,) in overlaps)
    # A set that was withdrawn counts no more.
    assert sft["withdrawn"][0] is None


def test_what_cannot_be_learned_from_is_left_out(made):
    sft = decided(made, "sft")
    assert sft["odd"][0] == "not text"
    assert sft["again"][0] == "unwanted elsewhere"
    [(suppressed,)] = made.query(
        "select session_id from {lake}datasets.dataset_examples where example_id = $1",
        sft["again"][1],
    )
    assert suppressed == "pair"
    # An answer that was cut off is no example at all.
    assert not any("half" in decided(made, name) for name in DATASETS)


def test_preferences_are_pairs_with_lengths(made):
    [row] = rows(made, "dpo_preference_dataset")
    [chosen], [rejected] = json.loads(row["chosen"]), json.loads(row["rejected"])
    assert chosen["content"].startswith(LONG) and rejected["content"].startswith("I am Ana")
    assert (row["chosen_length"], row["rejected_length"]) == (
        len(chosen["content"]),
        len(rejected["content"]),
    )
    assert (row["margin"], row["labels"]) == (1.0, ["rank"])
    [judged] = json.loads(row["provenance"])["judged_by"]
    assert judged == {"labeller": "rank", "version": "people", "preferred": "chosen"}
    assert decided(made, "dpo")["s"][0] == "same answers"


def test_what_is_forgotten_has_others_beside_it(made):
    sides = defaultdict(list)
    for row in rows(made, "unlearning_dataset"):
        sides[row["partition"]].append(row)
    assert {row["selection"] for row in sides["forget"]} == {"hallucination"}
    assert len(sides["forget"]) == 2
    in_split = {side: Counter(row["split"] for row in rows) for side, rows in sides.items()}
    assert 0 < len(sides["retain"]) <= 6
    assert all(count <= 3 * in_split["forget"][s] for s, count in in_split["retain"].items())
    pears = next(row for row in sides["forget"] if "pears" in row["question"])
    assert pears["answer"] == "There are 117 pears, 118 pears and 119 pears."


def test_tokens_are_counted_by_the_named_tokenizer(made):
    from loreline.knowledge.tokens import load_tokenizer

    tokenizer = load_tokenizer("sentence-transformers/all-MiniLM-L6-v2")
    [row] = by_session(made, "sft_messages_dataset")["g1"]
    said = [message["content"] for message in json.loads(row["messages"])]
    special = tokenizer.special_tokens
    assert row["token_count"] == sum(count - special for count in tokenizer.counts(said))


# what must not happen


def leaks(lakehouse):
    """Pairs of examples in different splits whose prompts or wholes are near-copies, by all words.

    Compares everything with everything, without MinHashes.
    """
    texts = []
    for name in DATASETS.values():
        for row in rows(lakehouse, name):
            prompt, whole = said_in(row)
            texts.append((row["split"], row["example_id"], prompt, whole))
    return [
        (one[1], other[1])
        for one, other in combinations(texts, 2)
        if one[0] != other[0] and any(are_alike(one[n], other[n]) for n in (2, 3))
    ]


def said_in(row):
    """Shingles of what is said before the answer, and of all."""
    if "question" in row:
        parts = [[row["question"]], [row["answer"]]]
    else:
        messages = [
            [message["content"] for message in json.loads(row[name]) if message["role"] != "system"]
            for name in ("messages", "prompt", "completion", "chosen", "rejected")
            if name in row
        ]
        parts = messages if len(messages) > 1 else [messages[0][:-1], messages[0][-1:]]
    prompt = {shingle for text in parts[0] for shingle in shingles(text, 5)}
    return prompt, prompt.union(*(shingles(text, 5) for part in parts[1:] for text in part))


def are_alike(one, other, similarity=0.9):
    fewer, more = sorted([len(one), len(other)])
    if fewer < similarity * more or not fewer:
        return False
    return len(one & other) >= similarity * len(one | other)


def splits_of_trees(lakehouse):
    """The splits in which each tree has examples."""
    found = defaultdict(set)
    for name in DATASETS.values():
        for tree, split in lakehouse.query(
            f"select unnest(tree_groups), split from {{lake}}datasets.{name}"
            " inner join {lake}datasets.dataset_examples using (example_id)"
        ):
            found[tree].add(split)
    return found


def test_nothing_leaks_and_a_leak_would_be_seen(made):
    assert leaks(made) == []
    assert all(len(splits) == 1 for splits in splits_of_trees(made).values())
    [(example, split)] = made.query(
        "select example_id, split from {lake}datasets.unlearning_dataset"
        " where question like '%pears%' and partition = 'forget'"
    )
    change = (
        "update {lake}datasets.unlearning_dataset set split = '%s'"
        + f" where example_id='{example}'"
    )
    with duck.connect(made.settings, read_only=False) as connection:
        connection.execute(made.with_names(change % "elsewhere"))
    try:
        assert leaks(made) and max(map(len, splits_of_trees(made).values())) == 2
        faults = made.start_build(
            "test", "--select", "assert_no_conversation_crosses_splits"
        ).result()
        assert [fault.split(":")[0] for fault in faults.faults], faults
    finally:
        with duck.connect(made.settings, read_only=False) as connection:
            connection.execute(made.with_names(change % split))


def test_building_again_changes_nothing(made):
    # Once more first: another test has written to a table behind the project's back.
    made.build(*AGAIN)
    before = made.snapshots()
    made.build(*AGAIN)
    assert made.snapshots() == before


@pytest.mark.soak
def test_other_builds_leave_datasets_alone(made):
    before = made.snapshots()
    made.start_build("build", "--exclude-resource-type", "unit_test").result()
    now = made.snapshots()
    assert {
        name for name in now if name.startswith("datasets.") and now[name] != before.get(name)
    } == set()


# settings


@pytest.mark.soak
def test_settings_are_seeds(stack, tiny_model, tmp_path):
    with temporary_lakehouse(stack, tmp_path, tiny_model=tiny_model) as lakehouse:
        lakehouse.land_events(conversations())
        lakehouse.build(*UNTESTED)
        before = {name: len(rows(lakehouse, table)) for name, table in DATASETS.items()}
        count = "select count(*) from {lake}datasets.training_messages"
        [(texts,)] = lakehouse.query(count)
        seeds = lakehouse.project / "seeds"
        replace_in(seeds / "selection_sizes.csv", "positive,0,1000,", "positive,0,3,")
        replace_in(
            seeds / "selection_sizes.csv",
            "noise_reject,1,1000,,,false",
            "noise_reject,1,1000,,,true",
        )
        replace_in(seeds / "dataset_settings.csv", "retain_per_forget,3", "retain_per_forget,1")
        lakehouse.build(*AGAIN, "--exclude-resource-type", "test")
        now = {name: len(rows(lakehouse, table)) for name, table in DATASETS.items()}
        chosen = lakehouse.query(
            "select count(*), count(distinct stratum)"
            " from {lake}datasets.positive_topk_trajectories"
        )
        [(positives, strata)] = chosen
        # Copies of each other may be among them.
        assert positives == 3 * strata and 0 < now["sft"] <= positives < before["sft"]
        assert now["unlearning"] <= 4 and now["dpo"] == before["dpo"]
        # Question and answer of what was cut off and is now suppressed; nothing is made again.
        assert lakehouse.query(count) == [(texts + 2,)]
        # Other rules are another configuration: every text is made anew, the old ones stay.
        replace_in(seeds / "redaction_rules.csv", "ip_address,", "no_address,")
        replace_in(seeds / "redaction_rules.csv", ",<IP_ADDRESS>,false", ",<IP_ADDRESS>,true")
        lakehouse.build(*AGAIN, "--exclude-resource-type", "test")
        hashes = lakehouse.query(
            "select count(distinct config_hash) from {lake}datasets.training_messages"
        )
        assert hashes == [(2,)]


# frozen


# A rebuild is a build of everything; tests/end_to_end/test_freeze.py rebuilds others.
REBUILT = "unlearning"


@pytest.mark.soak
def test_each_is_frozen_verified_rebuilt_and_loaded(made, tmp_path):
    folder = tmp_path / "exports"
    project = ["--project-dir", str(made.project)]
    for name, table in DATASETS.items():
        freeze(made, name, table, folder)
        assert "equal" in said(made, "freeze", "--verify", name)
        if name == REBUILT:
            assert ": equal" in said(made, "freeze", "--rebuild", name, *project)
        load(folder / name, name, tmp_path)
        card = (folder / name / "README.md").read_text()
        assert "| theme |" in card and "## Left out" in card
    card = (folder / "sft" / "README.md").read_text()
    assert "| exact duplicate | 1 |" in card and "| in an evaluation set | 3 |" in card
    assert "| bells | 1 |" in card and "towers" not in card
    assert "| email\\_address |" in card or "email&#95;address" in card


def freeze(lakehouse, name, table, folder):
    places = ["--exports", str(folder), "--project-dir", str(lakehouse.project)]
    said(lakehouse, "freeze", table, "--name", name, *places)


def said(lakehouse, *arguments):
    done = lakehouse.command(*arguments)
    assert done.exit_code == 0, (done.output, done.errors)
    return done.output


# real conversations


@pytest.mark.soak
def test_preferences_of_real_trees(stack, tiny_model, real_data, tmp_path):
    """Of 754 ranked pairs each is in the dataset or left out for a reason; the better is chosen."""
    file = real_data / "openassistant" / "trees.jsonl"
    answers = answers_of_trees(file)
    rank = {e["data"]["turn_id"]: e["data"]["rank"] for e in rank_events(file, "t")}
    with temporary_lakehouse(stack, tmp_path, tiny_model=tiny_model) as lakehouse:
        # Ranks are all that is known of them: what was not preferred is what there is to forget.
        sizes = lakehouse.project / "seeds" / "selection_sizes.csv"
        replace_in(sizes, "hard_negative,2,1000,,,true,false", "hard_negative,2,1000,,,true,true")
        lakehouse.land_events([*requests_for(answers, "trees"), *rank_events(file, "trees")])
        lakehouse.build(*BUILD)
        decisions = decided_counts(lakehouse)
        assert sum(decisions["dpo"].values()) == 754
        pairs = lakehouse.query(
            "select one.turn_id, other.turn_id"
            " from {lake}datasets.dpo_preference_dataset as dpo"
            " inner join {lake}datasets.dataset_examples as examples using (example_id)"
            " inner join {lake}evaluation.candidate_preference_pairs as pairs"
            " on examples.subject_id = pairs.pair_id"
            " inner join {lake}conversations.conversation_links as one"
            " on one.branch_node_id = case when examples.completion_hash = pairs.answer_a"
            " then pairs.node_a else pairs.node_b end"
            " inner join {lake}conversations.conversation_links as other"
            " on other.branch_node_id = case when examples.completion_hash = pairs.answer_a"
            " then pairs.node_b else pairs.node_a end"
        )
        assert len(pairs) == decisions["dpo"][None] > 700
        assert all(rank[chosen] < rank[rejected] for chosen, rejected in pairs)
        assert not [pair for pair in pairs if rank[pair[1]] == 0]
        assert all(len(splits) == 1 for splits in splits_of_trees(lakehouse).values())
        assert leaks(lakehouse) == []
        splits = Counter(row["split"] for row in rows(lakehouse, "dpo_preference_dataset"))
        assert set(splits) == {"train", "validation", "test"}


def decided_counts(lakehouse):
    """How many examples of each dataset are in it (None), or left out, by reason."""
    found = defaultdict(Counter)
    for dataset, exclusion, count in lakehouse.query(
        "select dataset, exclusion, count(*) from {lake}datasets.example_decisions group by all"
    ):
        found[dataset][exclusion] = count
    return found
