"""Messages as trainers read them: what is taken out, how they are compared."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loreline.datasets.near_copies import agreement, components, least, near_copies
from loreline.datasets.training_text import (
    NO_MINHASH,
    PLACE,
    minhashes,
    redact,
    shingles,
    text_hash,
    training_messages,
)
from loreline.errors import LorelineError
from loreline.redaction import Redactor, Rule
from loreline.settings import PROJECT_ROOT


@pytest.fixture(scope="module")
def redactor():
    """The rules as they are delivered."""
    with (PROJECT_ROOT / "seeds" / "redaction_rules.csv").open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["position"]))
    return Redactor(
        [
            Rule(row["rule"], row["pattern"], row["replacement"])
            for row in rows
            if row["is_active"] == "true"
        ]
    )


def message(**fields):
    row = dict.fromkeys(("role", "content", "name", "tool_calls", "tool_call_id"))
    [made] = training_messages({"message_hash": "h", "kind": "message", **row, **fields})
    return made


# Put together here, so that nobody takes them for keys that were leaked.
SECRETS = {
    "private_key": "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----",
    "openai_key": "sk-" + "proj-" + "a1B2" * 8,
    "aws_key_id": "AKIA" + "ABCDEFGH" * 2,
    "google_key": "AIza" + "a" * 35,
    "github_token": "ghp_" + "a1" * 18,
    "hugging_face_token": "hf_" + "aB3" * 8,
    "gitlab_token": "glpat-" + "aB3-" * 5,
    "slack_token": "xoxb-" + "1234567890-abc",
    "stripe_key": "sk_" + "live_" + "a1B2" * 5,
    "json_web_token": "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjMifQ." + "c2lnbmF0dXJl",
    "email_address": "ana.lopez+shop@mail.example.co.uk",
    "payment_card": "4111 1111 1111 1111",
    "iban": "GB82 WEST 1234 5698 7654 32",
}


@pytest.mark.parametrize("rule", SECRETS)
def test_each_rule_finds_its_secret_and_nothing_else_changes(redactor, rule):
    secret = SECRETS[rule]
    [clean], [finds] = redactor.redact([f"Before ({secret}) after."])
    assert secret not in clean and finds == [rule]
    assert clean.startswith("Before (<") and clean.endswith(">) after.")


@pytest.mark.parametrize(
    ("text", "clean", "rule"),
    [
        ("https://ana:hunter22@db.example.com/x", "https://<CREDENTIALS>@db.example.com/x",
         "url_credentials"),
        ("Authorization: Bearer abcdefghijklmnop123", "Authorization: Bearer <TOKEN>",
         "bearer_token"),
        ("password = hunter22", "password = <SECRET>", "assigned_secret"),
        ('{"api_key": "q1w2e3r4t5"}', '{"api_key": "<SECRET>"}', "quoted_secret"),
        ('{\\"password\\": \\"two words\\"}', '{\\"password\\": \\"<SECRET>\\"}', "quoted_secret"),
        ("AWS_SECRET_ACCESS_KEY=abc/def+1", "AWS_SECRET_ACCESS_KEY=<SECRET>", "assigned_secret"),
        ("POSTGRES_PASSWORD: hunter22", "POSTGRES_PASSWORD: <SECRET>", "assigned_secret"),
        ("AccountKey=abc123==;x", "AccountKey=<SECRET>;x", "assigned_secret"),
        ("redis://:hunter22@cache:6379", "redis://<CREDENTIALS>@cache:6379", "url_credentials"),
        ('"token": "abcdefgh12345678"', '"token": "<TOKEN>"', "assigned_token"),
        ("Authorization: Basic YW5hOmh1bnRlcjIyMjI=", "Authorization: Basic <TOKEN>",
         "bearer_token"),
        ("cut -----BEGIN PRIVATE KEY-----\nMIIE", "cut <PRIVATE_KEY>", "private_key"),
    ],
)  # fmt: skip
def test_what_is_around_a_secret_stays(redactor, text, clean, rule):
    assert redactor.redact([text]) == ([clean], [[rule]])


@pytest.mark.parametrize(
    "text",
    [
        "Order 48213 of 2026-10-01 costs £212.00, see ENG-123.",
        "git@ is no address, nor is a@b",
        "1790848800.000001 is a ts",
        "The token is valid for an hour; the password field is empty.",
        "",
        "def f(x): return x @ y",
    ],
)
def test_what_is_no_secret_stays(redactor, text):
    assert redactor.redact([text]) == ([text], [[]])


def test_finds_are_counted_once_each_and_texts_keep_their_order(redactor):
    texts = ["a@x.org and b@x.org", "nothing", "c@x.org"]
    clean, finds = redactor.redact(texts)
    assert clean == ["<EMAIL> and <EMAIL>", "nothing", "<EMAIL>"]
    assert finds == [["email_address"] * 2, [], ["email_address"]]


def test_a_rule_that_is_no_expression_is_named():
    with pytest.raises(LorelineError, match=r"rule broken is no regular expression"):
        Redactor([Rule("broken", "(", "")])


def test_hostile_text_takes_no_longer_than_its_length(redactor):
    texts = ["a" * 1_000_000, "@" * 1_000_000, "eyJ" * 300_000, "-----BEGIN " * 90_000]
    clean, _ = redactor.redact(texts)
    assert clean == texts


def test_calls_are_those_of_a_chat_and_their_ids_wait_for_a_place():
    made = message(role="assistant", tool_calls='[{"name":"search","arguments":{"q":"a \\"b\\""}}]')
    text = made.as_json()
    assert json.loads(text.replace(PLACE, "3")) == {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "call_3_0",
                "type": "function",
                "function": {"name": "search", "arguments": '{"q": "a \\"b\\""}'},
            }
        ],
    }
    result = message(role="tool", content="found", tool_call_id="1").as_json()
    assert json.loads(result.replace(PLACE, "3")) == {
        "role": "tool",
        "content": "found",
        "tool_call_id": "call_3_1",
    }


def test_what_somebody_wrote_is_never_taken_for_a_place():
    text = message(role="user", content=f"call_{PLACE}_0").as_json()
    assert PLACE not in text


def test_older_functions_become_tools():
    assert message(role="function", content="x", name="f").role == "tool"
    [tools] = training_messages(
        {"message_hash": "h", "kind": "tools", "content": '[{"name":"f","parameters":{}}]'}
    )
    assert json.loads(tools.as_json()) == [
        {"type": "function", "function": {"name": "f", "parameters": {}}}
    ]


@pytest.mark.parametrize("offered", ['["f"]', '{"name":"f"}', '"f"', '[{"name":"f"},null]'])
def test_tools_that_are_no_list_of_objects_are_not_learned_from(offered):
    row = {"message_hash": "h", "kind": "tools", "content": offered}
    assert not any(made.is_usable for made in training_messages(row))


def test_a_picture_is_not_text():
    parts = [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {"url": "x"}}]
    content = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    made = message(role="user", content=content)
    assert (made.texts, made.is_usable) == (["See"], False)


def test_texts_of_a_system_know_their_places():
    texts = [{"position": 0, "content": "One"}, {"position": 3, "content": "Two"}]
    made = list(
        training_messages({"message_hash": "h", "kind": "system", "content": json.dumps(texts)})
    )
    assert [(one.part, one.before_message, one.texts) for one in made] == [
        (0, 0, ["One"]),
        (1, 2, ["Two"]),
    ]


@pytest.mark.parametrize(
    ("arguments", "clean"),
    [
        ({"text": "Hi\nalice@example.com"}, {"text": "Hi\n<EMAIL>"}),
        ({"api_key": 12345678}, {"api_key": "<SECRET>"}),
        ({"a": {"password": None, "n": 1}}, {"a": {"password": None, "n": 1}}),
        ({"card": [4111111111111111]}, {"card": ["<CARD_NUMBER>"]}),
        ({"code": 'api_key = "abc123def456"'}, {"code": 'api_key = "<SECRET>"'}),
        ({"body": '{"password": "hunter2 hunter"}'}, {"body": '{"password": "<SECRET>"}'}),
    ],
)  # fmt: skip
def test_arguments_stay_json_whatever_is_taken_out(redactor, arguments, clean):
    calls = json.dumps([{"name": "f", "arguments": arguments}])
    made = message(role="assistant", tool_calls=calls)
    redact([made], redactor)
    assert json.loads(made.texts[1]) == clean


def test_tools_stay_json_and_arguments_that_are_none_are_text(redactor):
    offered = '[{"type":"function","function":{"name":"f","description":"Ask\\nana@x.org"}}]'
    tools = list(training_messages({"message_hash": "h", "kind": "tools", "content": offered}))
    broken = message(role="assistant", tool_calls='[{"name":"f","arguments":"{ana@x.org"}]')
    redact([*tools, broken], redactor)
    assert json.loads(tools[0].texts[0])[0]["function"]["description"] == "Ask\n<EMAIL>"
    assert broken.texts[1] == "{<EMAIL>"


def test_arguments_are_redacted_and_equal_texts_have_equal_hashes(redactor):
    one, other = (
        message(role="assistant", tool_calls=f'[{{"name":"mail","arguments":{{"to":"{to}"}}}}]')
        for to in ("ana@x.org", "bo@y.org")
    )
    assert text_hash(one) != text_hash(other)
    redact([one, other], redactor)
    assert one.texts == ["", '{"to":"<EMAIL>"}']
    assert text_hash(one) == text_hash(other)


def test_names_of_authors_are_redacted_too(redactor):
    made = message(role="user", content="Hi", name="ana@example.com")
    redact([made], redactor)
    assert (made.texts, made.name, made.redactions) == (["Hi"], "<EMAIL>", ["email_address"])


# near-copies


def test_shingles():
    assert shingles("One two, THREE four", 3) == ["one two three", "two three four"]
    assert shingles("One", 3) == ["one"]
    assert shingles(" \N{THUMBS UP SIGN} ", 3) == ["\N{THUMBS UP SIGN}"]
    assert shingles("猫が好き", 2) == ["猫 が", "が 好", "好 き"]
    assert shingles("  ", 3) == []


def words(first, last):
    return " ".join(f"w{n}" for n in range(first, last))


def hashes(*texts):
    return minhashes(texts, words=5, permutations=128)


def test_a_minhash_estimates_the_share_of_common_shingles():
    found = hashes(words(0, 304), words(60, 364), words(0, 304))
    jaccard = 240 / 360
    assert agreement(found, np.array([0]), np.array([1]))[0] == pytest.approx(jaccard, abs=0.12)
    assert (found[0] == found[2]).all()
    assert (hashes("")[0] == NO_MINHASH).all()


def test_minhashes_are_the_same_in_every_process():
    assert hashes("a b c d e f")[0, :3].tolist() == [3_376_583_085, 4_069_946_781, 3_539_749_984]


def test_the_least_of_several_is_that_of_all_together():
    one, other = words(0, 50), words(100, 150)
    found = least(hashes(one, other), np.array([0, 1, 1]), np.array([0, 0, 2]), 3)
    together = set(shingles(one, 5)) | set(shingles(other, 5))
    both = np.minimum.reduce([hashes(text)[0] for text in together])
    assert (found[0] == both).all()
    assert (found[1] == NO_MINHASH).all()
    assert (found[2] == hashes(other)[0]).all()


def groups_of(pairs, count):
    found = {}
    for place, group in enumerate(components(count, pairs)):
        found.setdefault(group, set()).add(place)
    return {frozenset(group) for group in found.values()}


def test_near_copies_are_found_and_others_are_not():
    texts = [words(0, 200), words(5, 205), words(300, 500), words(0, 60), words(302, 500), ""]
    assert groups_of(near_copies(hashes(*texts), 0.8), 6) == {
        frozenset({0, 1}),
        frozenset({2, 4}),
        frozenset({3}),
        frozenset({5}),
    }


def test_near_copies_stay_within_and_other_parts_must_be_alike_too():
    wholes = hashes(*[words(0, 200)] * 4)
    parts = hashes(words(0, 20), words(0, 20), words(50, 70), words(0, 20))
    pairs = near_copies(wholes, 0.8, within=np.array([0, 0, 0, 1]), also=[parts])
    assert pairs.tolist() == [[0, 1]]


def test_texts_that_say_nothing_are_no_copies_of_each_other():
    assert near_copies(hashes("", " ", ""), 0.8).tolist() == []
    assert near_copies(hashes(), 0.8).tolist() == []


@given(st.lists(st.integers(0, 11), min_size=2, max_size=40))
def test_copies_of_whatever_number_hang_together(originals):
    found = near_copies(hashes(*[words(1000 * n, 1000 * n + 90) for n in originals]), 0.8)
    expected = {
        frozenset(place for place, other in enumerate(originals) if other == one)
        for one in originals
    }
    assert groups_of(found, len(originals)) == expected


def test_a_crowd_that_shares_a_band_is_told_apart():
    crowd = hashes(*[words(1000 * n, 1000 * n + 90) for n in range(200)])
    crowd[:, :5] = 7
    copies = np.concatenate([crowd, crowd])
    assert len(groups_of(near_copies(copies, 0.8), 400)) == 200
