"""Which of several examples that are alike is kept."""

import importlib.util

import numpy as np
import pyarrow as pa
import pytest

from loreline.datasets.training_text import NO_MINHASH, minhashes
from loreline.settings import PROJECT_ROOT


@pytest.fixture(scope="module")
def model():
    """The Python model, as a module."""
    file = PROJECT_ROOT / "python_models" / "datasets" / "example_groups.py"
    spec = importlib.util.spec_from_file_location("example_groups", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words(first, last):
    return " ".join(f"w{n}" for n in range(first, last))


def repeated(model, dataset, texts, **columns):
    """What each example repeats: its place, or -1. All ask the same, and answer a text each."""
    count = len(texts)
    defaults = {
        "dataset": [dataset] * count,
        "collection": [0] * count,
        "problem": [None] * count,
        "partition": [""] * count,
        "example_rank": list(range(count)),
        "content_hash": texts,
    }
    examples = pa.table(
        {
            name: pa.array(values, pa.string() if name == "problem" else None)
            for name, values in (defaults | columns).items()
        }
    )
    asked, answered = (
        minhashes(said, words=5, permutations=128)
        for said in ([words(9_000, 9_400)] * count, texts)
    )
    found = {
        "prompt": asked,
        "completion": answered,
        "rejected": np.full_like(asked, NO_MINHASH),
        "whole": np.minimum(asked, answered),
    }
    kinds, owners, _ = model.repeated(examples, found, 0.8)
    return owners.tolist(), kinds.tolist()


SAME = words(0, 90)


def test_the_first_by_rank_is_kept(model):
    owners, kinds = repeated(model, "dpo", [SAME, SAME], example_rank=[2, 1])
    assert (owners, kinds) == ([1, -1], ["exact duplicate", None])


def test_what_is_to_be_forgotten_is_never_taken_for_what_is_retained(model):
    owners, _ = repeated(model, "unlearning", [SAME, SAME], partition=["retain", "forget"])
    assert owners == [1, -1]


def test_something_that_is_left_out_anyway_is_not_kept_instead(model):
    owners, _ = repeated(model, "dpo", [SAME, SAME], problem=["incomplete", None])
    assert owners == [-1, -1]


def test_the_ends_of_a_chain_are_not_alike(model):
    chain = [words(0, 200), words(18, 218), words(36, 236), words(0, 200)]
    owners, kinds = repeated(model, "dpo", chain)
    assert owners == [-1, 0, -1, 0]
    assert kinds == [None, "near duplicate", None, "exact duplicate"]


def test_answers_to_one_long_question_are_alike_as_wholes_only(model):
    answers = [words(0, 20), words(100, 120)]
    assert repeated(model, "suppression", answers)[0] == [-1, -1]
    assert repeated(model, "sft", answers)[0] == [-1, 0]


def test_no_examples(model):
    assert repeated(model, "dpo", [])[0] == []
