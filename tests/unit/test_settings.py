"""Where settings come from, and what they refuse."""

import dataclasses
import json

import pytest

from loreline.errors import LorelineError
from loreline.settings import Settings


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch, tmp_path):
    for setting in dataclasses.fields(Settings):
        monkeypatch.delenv(setting.metadata["variable"], raising=False)
    monkeypatch.setenv("LORELINE_HOME", str(tmp_path))


def remember(tmp_path, **variables):
    (tmp_path / "stack.json").write_text(json.dumps({"variables": variables}))


def test_defaults_need_no_file_and_no_environment(tmp_path):
    settings = Settings.load()
    assert settings.target == "local"
    assert settings.catalog_warehouse == "lake"
    assert settings.home == tmp_path


def test_the_stack_is_found_and_the_environment_outranks_it(monkeypatch, tmp_path):
    remember(tmp_path, LORELINE_S3_REGION="eu-central-1", LORELINE_CATALOG_WAREHOUSE="pond")
    monkeypatch.setenv("LORELINE_S3_REGION", "eu-west-1")
    settings = Settings.load()
    assert settings.s3_region == "eu-west-1"
    assert settings.catalog_warehouse == "pond"


def test_an_unknown_target_is_refused(monkeypatch):
    monkeypatch.setenv("LORELINE_TARGET", "production")
    with pytest.raises(LorelineError, match="use one of local, dev, ci, prod"):
        Settings.load()


@pytest.mark.parametrize(
    ("target", "suffix", "prefix"),
    [
        ("local", "ada", ""),
        ("prod", "ada", ""),
        ("dev", "ada", "ada_"),
        ("ci", "run_4711", "run_4711_"),
    ],
)
def test_prefix_keeps_targets_apart(target, suffix, prefix):
    assert Settings(target=target, namespace_suffix=suffix).prefix == prefix


@pytest.mark.parametrize("target", ["dev", "ci"])
@pytest.mark.parametrize("suffix", ["", "4711", "Ada", "a.b", "x y", "été", "x" * 41])
def test_a_name_that_no_schema_can_begin_with_is_refused(target, suffix):
    with pytest.raises(LorelineError, match="set LORELINE_NAMESPACE"):
        _ = Settings(target=target, namespace_suffix=suffix).prefix


def test_missing_addresses_are_named():
    with pytest.raises(LorelineError, match="LORELINE_S3_ENDPOINT") as raised:
        Settings(catalog_uri="http://127.0.0.1:1").require_stores()
    assert "loreline up" in raised.value.next_step
    assert "LORELINE_CATALOG_URI" not in raised.value.what


@pytest.mark.parametrize("target", ["local", "dev"])
def test_local_never_writes_plain_names_to_another_machine(target):
    settings = Settings(
        target=target,
        catalog_uri="https://catalog.example.com",
        s3_endpoint="https://s3.example.com",
        postgres_url="postgresql://ada@127.0.0.1/loreline",
    )
    if target == "local":
        with pytest.raises(LorelineError, match=r"catalog\.example\.com"):
            settings.require_stores()
    else:
        settings.require_stores()


def test_environment_gives_back_what_was_set(monkeypatch):
    settings = Settings(target="ci", namespace_suffix="x", postgres_url="postgresql://h/d")
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings.load() == dataclasses.replace(
        settings, state_folder=Settings.load().state_folder
    )
