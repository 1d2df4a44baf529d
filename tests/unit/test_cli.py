"""What every command shares: help, exit codes, and errors as one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from loreline.cli import main
from loreline.errors import LorelineError

HEAVY = ("duckdb", "psycopg", "pyiceberg", "pyarrow", "numpy", "dbt", "dlt", "torch", "pandas")


def test_help_lists_the_commands_by_job(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    panels = ["Stack", "up", "Load and build", "ingest", "Ask", "search", "Look after", "maintain"]
    places = [shown.index(text) for text in panels]
    assert places == sorted(places)


def test_no_command_is_a_call_for_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Usage: loreline" in capsys.readouterr().out


def test_help_imports_nothing_that_is_slow() -> None:
    code = (
        "import sys; from loreline.cli import main; code = main(['--help']);"
        "print(*sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr);"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(HEAVY) & set(done.stderr.split())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import loreline

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"loreline {loreline.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["seearch"], "No such command 'seearch'. Did you mean 'search'? See `loreline --help`."),
        (["status", "--port"], "No such option: --port"),
        (["history"], "Missing argument"),
        (["ingest", "--sample", "day_nine"], "See `loreline ingest --help`."),
        (["search", "x", "-k", "0"], "greater than or equal to 1"),
    ],
)
def test_a_wrong_call_is_one_line_and_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert said in _only_line(capsys)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Let `loreline down` end in the exception that it is called with."""

    def fail_with(error: BaseException) -> None:
        def down(_: object) -> list[str]:
            raise error

        monkeypatch.setattr("loreline.stack.lifecycle.down", down)

    return fail_with


def test_an_error_is_one_line_with_its_next_step_and_its_code(
    failing: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failing(LorelineError("the catalog\nrefused", "check \x1b[31mit", exit_code=3))
    assert main(["down"]) == 3
    assert _only_line(capsys) == "loreline: the catalog refused: check \\x1b[31mit"


def test_an_unexpected_error_is_one_line_too(
    failing: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failing(KeyError("ports"))
    assert main(["down"]) == 1
    line = _only_line(capsys)
    assert line.startswith("loreline: KeyError: 'ports'")
    assert "--debug" in line


@pytest.mark.parametrize("arguments", [["--debug", "down"], ["down", "--debug"]])
def test_debug_shows_where_it_happened(
    arguments: list[str],
    failing: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing(LorelineError("no"))
    assert main(arguments) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith("loreline: no\n")


def test_ctrl_c_is_code_130_without_a_word(
    failing: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failing(KeyboardInterrupt())
    assert main(["down"]) == 130
    assert capsys.readouterr() == ("", "")


def test_status_of_a_stack_that_was_never_started(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [(s["name"], s["ready"], s["pid"]) for s in told["services"]] == [
        ("seaweedfs", False, None),
        ("postgres", False, None),
    ]
    assert [each["command"] for each in told["attention"]] == ["loreline up"]
    assert main(["status"]) == 1
    assert capsys.readouterr().out.count("stopped") == 2


def test_down_without_a_stack_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["down"]) == 0
    assert capsys.readouterr().out == "Nothing was running.\n"


def test_without_its_packages_it_is_said_how_to_get_a_stack(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    for name in [name for name in sys.modules if name.startswith("loreline.stack")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["up"]) == 1
    assert "pip install 'loreline[stack]'" in _only_line(capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        ["sql", "select 1"],
        ["history", "documents"],
        ["build"],
        ["search", "x"],
        ["contents"],
        ["freshness"],
        ["health"],
        ["quarantine", "list"],
    ],
)
def test_without_stores_it_is_said_how_to_start_them(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert "start the local stack with `loreline up`" in _only_line(capsys)


def test_a_stack_that_the_environment_outranks_is_pointed_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from loreline.settings import Settings
    from loreline.stack.state import StackState

    home = Settings.load().home
    home.mkdir()
    StackState(variables={"LORELINE_S3_ENDPOINT": "http://127.0.0.1:1"}).save(home)
    main(["status"])
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("LORELINE_S3_ENDPOINT", "https://elsewhere.example")
    main(["status"])
    assert "LORELINE_S3_ENDPOINT in the environment" in capsys.readouterr().err


@pytest.fixture(autouse=True)
def _nowhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No stack, and no setting of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("LORELINE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LORELINE_HOME", str(tmp_path_factory.mktemp("empty") / "home"))


def _only_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("\n")
    assert captured.err.count("\n") == 1
    return captured.err.rstrip("\n")
