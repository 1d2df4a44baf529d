"""Lakehouses for tests of the whole way from files to answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from loreline.embedding import DEFAULT_MODEL, model_folder
from loreline.settings import Settings
from tests.end_to_end.lakehouse import (
    PROMPTED_DIMENSIONS,
    PROMPTED_MODEL,
    PROMPTS,
    TINY_DIMENSIONS,
    TINY_MODEL,
    Lakehouse,
    temporary_lakehouse,
)
from tests.steps import Step


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models, in it a real one that is small enough to embed hundreds of texts."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = Path(model_folder(DEFAULT_MODEL, Settings()))
    arguments = {"tokenizer": tokenizer, "dimensions": TINY_DIMENSIONS}
    Step("make_model", {}, folder=folder / TINY_MODEL, **arguments).result()
    return folder


@pytest.fixture(scope="session")
def tiny_models(tiny_model: Path) -> Path:
    """The same folder with a second model in it: longer vectors, and prompts of its own."""
    folder = tiny_model / PROMPTED_MODEL
    Step(
        "make_model",
        {},
        folder=folder,
        tokenizer=Path(model_folder(DEFAULT_MODEL, Settings())),
        dimensions=PROMPTED_DIMENSIONS,
        prompts=PROMPTS,
    ).result()
    return tiny_model


@pytest.fixture(scope="module")
def lakehouse(
    stack: Settings, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lakehouse]:
    """One that the tests of a module share, each with documents of its own."""
    folder = tmp_path_factory.mktemp("lakehouse")
    with temporary_lakehouse(stack, folder, tiny_model=tiny_model) as lakehouse:
        yield lakehouse


@pytest.fixture
def own_lakehouse(stack: Settings, tiny_model: Path, tmp_path: Path) -> Iterator[Lakehouse]:
    """One that a test has for itself."""
    with temporary_lakehouse(stack, tmp_path, tiny_model=tiny_model) as lakehouse:
        yield lakehouse
