"""The shell lines of `loreline env`."""

import subprocess

import pytest

from loreline.settings import Settings
from loreline.stack.environment import NO_TELEMETRY, export_lines


def after_eval(lines, name):
    script = f'eval "$LINES_TO_EVAL"; printf %s "${name}"'
    environment = {"LINES_TO_EVAL": lines, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, check=True)
    return done.stdout.decode()


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        "two words",
        "it's",
        "'; touch /tmp/owned; '",
        "$HOME `id` $(id)",
        'back\\slash "quoted"',
        "line\nbreak",
        "*",
        "ünïcode",
    ],
)
def test_any_value_survives_the_shell(value):
    lines = export_lines(Settings(postgres_url=value))
    assert after_eval(lines, "LORELINE_POSTGRES_URL") == value


def test_what_is_not_set_is_not_exported():
    lines = export_lines(Settings(s3_endpoint="http://127.0.0.1:8333"))
    assert "export LORELINE_S3_ENDPOINT='http://127.0.0.1:8333'\n" in lines
    assert "LORELINE_POSTGRES_URL" not in lines


@pytest.mark.parametrize("name", NO_TELEMETRY)
def test_nothing_reports_home(name):
    assert after_eval(export_lines(Settings()), name) == NO_TELEMETRY[name]
