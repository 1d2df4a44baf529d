"""`dbt build` with the settings' stores, and what it changed."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loreline.cli.options import Json
from loreline.cli.output import is_interactive, print_json, print_table, say
from loreline.cli.progress import progress
from loreline.cli.text import visible_in_color
from loreline.errors import LorelineError

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest
    from dbt.contracts.graph.nodes import ManifestNode
    from dbt_common.events.base_types import EventMsg

    from loreline.operations.changed import Run
    from loreline.settings import Settings

DBT_FAILED = 1
DBT_BROKE = 2

RESOURCE_TYPES = (
    *("--resource-type", "--resource-types"),
    *("--exclude-resource-type", "--exclude-resource-types"),
)
MANUAL = "tag:manual"
# With what hangs from it: the tests of such a model may read others, too.
WITHOUT_MANUAL = ["--exclude", f"{MANUAL}+"]
SELECTION = (
    *("--select", "-s", "--models", "-m", "--exclude", "--selector"),
    *RESOURCE_TYPES,
)
# What else goes with `--changed`.
BESIDE_CHANGED = (
    *("--project-dir", "--profiles-dir", "--target-path", "--log-path"),
    *("--target", "-t", "--threads", "--fail-fast", "-x", "--use-colors", "--no-use-colors"),
    *("--no-write-json", "--cache-selected-only"),
)
# What a manifest also holds, and `dbt build` does not make; a unit test is one that is not wanted.
NEVER_BUILT = ("exposures", "metrics", "saved_queries", "semantic_models", "unit_tests")
# `loreline build NAME`: parts of the project that are built on request only.
PARTS = {"datasets": "tag:datasets"}


class Show(StrEnum):
    """How much of what dbt says is printed: all, each model's result, or (on stderr) problems."""

    everything = "everything"
    results = "results"
    problems = "problems"


@dataclass(frozen=True)
class ModelCommit:
    """What one model wrote to its table in a build."""

    table: str
    model: str
    rows: int
    snapshots: int
    seconds: float


@dataclass(frozen=True)
class BuildSummary:
    """What a build did.

    Attributes:
        invocation_id: dbt's id of the run, which `operations.commits` names.
        exit_code: 0, or dbt's: 1 when a model or test failed, 2 when it could not run.
        seconds: how long it took, dbt's own start included.
        commits: tables that changed, in the order of their first commit.
    """

    invocation_id: str
    exit_code: int
    seconds: float
    commits: list[ModelCommit] = field(default_factory=list)

    def rows(self, table: str) -> int:
        """Rows written to tables of this name, whatever stands before it."""
        return sum(c.rows for c in self.commits if c.table.rsplit(".", 1)[-1] == table)


@dataclass(frozen=True)
class Project:
    """The dbt project as dbt has read it.

    Attributes:
        manifest: all of it.
        within: unique ids of the nodes that are wanted.
    """

    manifest: Manifest
    within: set[str]

    def only_wanted(self) -> Project:
        """The same without what the wanted nodes need not: dbt walks the whole graph in each run.

        What such a run writes to `manifest.json` is not the project.
        """
        whole = self.manifest
        needed: set[str] = set()
        waiting = [*self.within, *(n for n, node in whole.nodes.items() if _is_hook(node))]
        while waiting:
            name = waiting.pop()
            if name not in needed:
                needed.add(name)
                waiting += whole.parent_map.get(name, [])
        manifest = dataclasses.replace(
            whole,
            nodes={name: node for name, node in whole.nodes.items() if name in needed},
            sources={name: source for name, source in whole.sources.items() if name in needed},
            **{kind: {} for kind in NEVER_BUILT},
        )
        manifest.build_parent_and_child_maps()
        return Project(manifest, self.within)


Changed = Annotated[
    bool,
    typer.Option(
        "--changed",
        help="Run only what reads something new, or is new itself, and what hangs from it.",
    ),
]


def build(context: typer.Context, changed: Changed = False, as_json: Json = False) -> None:
    """Build, embed, serve and test what changed.

    All other options are those of dbt build, as in:

    loreline build --select knowledge --full-refresh

    Models tagged manual are left out unless they are selected by name; so are dbt's unit tests,
    which look at no data. `loreline build datasets` builds the datasets, which are manual.
    """
    from loreline.settings import Settings

    show = Show.problems if as_json else Show.everything
    arguments, debug = context.args, bool(context.obj)
    summary = run(Settings.load(), arguments, show=show, debug=debug, changed=changed)
    if as_json:
        print_json(asdict(summary))
    else:
        print_summary(summary)
    if summary.exit_code:
        raise typer.Exit(summary.exit_code)


def run(
    settings: Settings,
    arguments: Sequence[str],
    *,
    show: Show = Show.everything,
    debug: bool = False,
    changed: bool = False,
    project: Project | None = None,
) -> BuildSummary:
    """Run `dbt build` and print what it says.

    Args:
        settings: the stores.
        arguments: of `dbt build`.
        show: how much of it.
        debug: also dbt's stack traces.
        changed: run what is not up to date, until all is.
        project: what `read_project` gave for the same arguments, where it was read before.

    Raises:
        LorelineError: the stores are not there, or hold another schema; the arguments are wrong.
    """
    from loreline.lake.catalog import load_catalog
    from loreline.operations import builds
    from loreline.operations.changed import build_changed
    from loreline.postgres import check_schema

    started = time.monotonic()
    settings = with_target(settings, arguments)
    # What is wrong with the stores is said here in one line; dbt would wrap it into its own.
    load_catalog(settings)
    check_schema(settings)
    complete = dbt_arguments(arguments)
    if changed:
        _, complete = divided(complete)
    runs: list[Run] = []

    def dbt(selection: Sequence[str] = (), manifest: Manifest | None = None) -> Run:
        runs.append(
            _dbt([*complete, *selection], settings, show, debug=debug, told=told, project=manifest)
        )
        return runs[-1]

    is_quiet = show is Show.problems
    with progress("building", in_place=False) if is_quiet else nullcontext() as told:
        if changed:
            known = project or read_project(settings, arguments)[0]
            build_changed(
                settings,
                _folder(arguments),
                known.manifest,
                known.within,
                lambda stale: dbt(stale, known.manifest),
            )
        else:
            dbt()
    for each in runs:
        if changed and each.invocation_id:
            builds.named(settings, each.invocation_id, "what changed")
        if each.invocation_id and each.exit_code:
            # Where it failed before the first node, dbt runs nothing at its end that would say so.
            failure = {
                "node": "",
                "status": "error",
                "message": "it failed before it built anything",
            }
            builds.ended(settings, each.invocation_id, [failure])
    seconds = time.monotonic() - started
    invocations = [each.invocation_id for each in runs if each.invocation_id]
    exit_code = runs[-1].exit_code if runs else 0
    commits = list(_commits(settings, invocations))
    return BuildSummary((invocations or [""])[-1], exit_code, seconds, commits)


def read_project(settings: Settings, *parts: Sequence[str]) -> list[Project]:
    """Have dbt read the project, once, and tell which nodes each arguments of `dbt build` select.

    Raises:
        LorelineError: it cannot, or the arguments do not go with `--changed`.
    """
    read: Manifest | None = None
    projects = []
    for arguments in parts:
        selection, _ = divided(dbt_arguments(arguments))
        folder = _folder(arguments)
        read = read or manifest(settings, folder)
        projects.append(Project(read, selected(settings, folder, read, selection)))
    return projects


def child_map(settings: Settings) -> Mapping[str, list[str]]:
    """What hangs from each node of the project: unique ids, as dbt gives them.

    Raises:
        LorelineError: dbt cannot read the project.
    """
    from loreline.settings import PROJECT_ROOT

    return manifest(settings, PROJECT_ROOT).child_map


def manifest(settings: Settings, project: Path) -> Manifest:
    """A dbt project as dbt reads it.

    Raises:
        LorelineError: it cannot.
    """
    from dbt.cli.main import dbtRunner

    folders = ["--project-dir", str(project), "--profiles-dir", str(project)]
    with _environment(settings):
        quiet = ["--quiet", "--log-level", "none", "--no-write-json"]
        result = dbtRunner().invoke([*quiet, "parse", *folders])
    if not result.success:
        raise LorelineError("dbt cannot read the project", "see what `dbt parse` says")
    return result.result


def selected(
    settings: Settings, folder: Path, project: Manifest, selection: Sequence[str]
) -> set[str]:
    """The unique ids of the nodes that dbt's options select.

    Raises:
        LorelineError: dbt does not understand them.
    """
    from dbt.cli.main import dbtRunner

    quiet = ["--quiet", "--log-level", "none", "--no-write-json"]
    form = ["--output", "json", "--output-keys", "unique_id"]
    folders = ["--project-dir", str(folder), "--profiles-dir", str(folder)]
    with _environment(settings):
        result = dbtRunner(manifest=project).invoke([*quiet, "ls", *selection, *form, *folders])
    if not result.success:
        raise LorelineError(f"dbt cannot select: {result.exception}", "see `dbt build --help`")
    return {json.loads(line)["unique_id"] for line in result.result}


def print_summary(summary: BuildSummary, *, with_tables: bool = True) -> None:
    """Say which tables changed, and what was embedded and pushed."""
    say()
    if summary.exit_code:
        say("The build failed; what is above the failure in the graph is built.")
    if not summary.commits:
        say(f"Nothing changed: no new snapshot, nothing embedded ({summary.seconds:.1f} s).")
        return
    rows = [[c.table, c.rows, c.snapshots, round(c.seconds, 2)] for c in summary.commits]
    if with_tables:
        print_table(["table", "rows written", "snapshots", "seconds"], rows)
    embedded, changed = summary.rows("text_embeddings"), summary.rows("vector_manifest")
    tables = len(summary.commits)
    say(
        f"{tables} table{'s' if tables > 1 else ''} changed, {embedded:,} texts embedded, "
        f"{changed:,} rows of the vector manifest changed ({summary.seconds:.1f} s)."
    )


def with_target(settings: Settings, arguments: Sequence[str]) -> Settings:
    """The settings under dbt's `--target`, where the arguments name one."""
    from loreline.settings import TARGETS

    target = _value(arguments, "--target", "-t")
    if target is None:
        return settings
    if target not in TARGETS:
        raise LorelineError(f"there is no target {target}", f"use one of {', '.join(TARGETS)}")
    return dataclasses.replace(settings, target=target)


def dbt_arguments(arguments: Sequence[str]) -> list[str]:
    """What `dbt` is called with: our project, nothing manual and no unit test unasked."""
    from loreline.settings import PROJECT_ROOT

    arguments = _with_part(arguments)
    complete = ["build", *arguments]
    for option in ("--project-dir", "--profiles-dir"):
        if _value(arguments, option) is None:
            complete += [option, str(PROJECT_ROOT)]
    # dbt takes several --exclude, but not one beside --selector.
    is_selector = any(_names(argument, "--selector") for argument in arguments)
    if not is_selector and not _asks_by_name(arguments):
        complete += WITHOUT_MANUAL
    # Unit tests look at the code, not at the data: `dbt build` and `dbt test` in CI run them.
    if not any(_names(argument, *RESOURCE_TYPES) for argument in arguments):
        complete += ["--exclude-resource-type", "unit_test"]
    if not is_interactive():
        complete.append("--no-use-colors")
    return complete


def divided(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments of `dbt build` that select, and the others.

    Raises:
        LorelineError: one of the others would build something else than what changed.
    """
    parts: tuple[list[str], list[str]] = ([], [])
    is_other = True
    for argument in arguments:
        if argument.startswith("-"):
            is_other = not _names(argument, *SELECTION)
            if is_other and not _names(argument, *BESIDE_CHANGED):
                raise LorelineError(
                    f"--changed does not go with {argument}",
                    "leave one of the two out",
                    exit_code=DBT_BROKE,
                )
        parts[is_other].append(argument)
    return parts


def _is_hook(node: ManifestNode) -> bool:
    return node.resource_type == "operation"


def _with_part(arguments: Sequence[str]) -> list[str]:
    """The arguments, with a part's name at their beginning as what it selects."""
    if arguments and arguments[0] in PARTS:
        return ["--select", PARTS[arguments[0]], *arguments[1:]]
    return list(arguments)


def _asks_by_name(arguments: Sequence[str]) -> bool:
    """Whether the selection holds nothing but plain names, or the tag itself."""
    selected: list[str] = []
    is_selection = False
    for argument in arguments:
        if _names(argument, "--select", "--models", "-s", "-m"):
            is_selection = True
            selected += argument.partition("=")[2].split()
        elif argument.startswith("-"):
            is_selection = False
        elif is_selection:
            selected += argument.split()
    names = [name for name in selected if name not in (MANUAL, *PARTS.values())]
    return bool(selected) and all(name.replace("_", "").isalnum() for name in names)


def _names(argument: str, *options: str) -> bool:
    return argument.partition("=")[0] in options


def _value(arguments: Sequence[str], *options: str) -> str | None:
    for position, argument in enumerate(arguments):
        if argument in options:
            return next(iter(arguments[position + 1 :]), "")
        if _names(argument, *options):
            return argument.partition("=")[2]
    return None


def _folder(arguments: Sequence[str]) -> Path:
    from loreline.settings import PROJECT_ROOT

    return Path(_value(arguments, "--project-dir") or PROJECT_ROOT)


class _DbtLog:
    """What dbt says, without its time stamps and stack traces; it remembers the invocation's id."""

    def __init__(
        self, show: Show, *, debug: bool, told: Callable[[str], None] | None = None
    ) -> None:
        self.invocation_id = ""
        self._told = told
        self._show = show
        self._debug = debug
        self._stream = sys.stderr if show is Show.problems else sys.stdout

    def __call__(self, event: EventMsg) -> None:
        self.invocation_id = self.invocation_id or event.info.invocation_id
        if self._told and event.info.name == "LogStartLine":
            self._told(f"{event.data.index} of {event.data.total}, {event.data.description}")
        if self._is_wanted(event) and (self._debug or not self._is_noise(event)):
            # One write a line: dbt's threads talk at once.
            self._stream.write(visible_in_color(event.info.msg) + "\n")
            self._stream.flush()

    def _is_wanted(self, event: EventMsg) -> bool:
        if event.info.level != "info":
            return event.info.level in ("warn", "error")
        if self._show is Show.results:
            return event.info.name in ("LogModelResult", "LogSeedResult", "StatsLine")
        return self._show is Show.everything

    @staticmethod
    def _is_noise(event: EventMsg) -> bool:
        if event.info.name == "MainEncounteredError":
            return not event.data.exc  # Ctrl-C
        if event.info.name == "NoNodesForSelectionCriteria":
            return event.data.spec_raw in WITHOUT_MANUAL
        return event.info.name == "MainStackTrace"


def _dbt(
    arguments: list[str],
    settings: Settings,
    show: Show,
    *,
    debug: bool,
    told: Callable[[str], None] | None = None,
    project: Manifest | None = None,
) -> Run:
    """Run dbt in this process, on a project that it need not read."""
    from dbt.cli.exceptions import DbtUsageException
    from dbt.cli.main import dbtRunner

    from loreline.operations.changed import Run

    log = _DbtLog(show, debug=debug, told=told)
    with _environment(settings):
        dbt = dbtRunner(manifest=project, callbacks=[log])
        result = dbt.invoke(["--log-level", "none", *arguments])
    error = result.exception
    if isinstance(error, KeyboardInterrupt):
        raise error
    if isinstance(error, DbtUsageException):
        message = str(error).rstrip(".")
        raise LorelineError(message, "see `dbt build --help`", exit_code=DBT_BROKE)
    if error is not None:
        return Run(log.invocation_id, DBT_BROKE)
    exit_code = 0 if result.success else DBT_FAILED
    return Run(log.invocation_id, exit_code, list(result.result or []))


@contextmanager
def _environment(settings: Settings) -> Iterator[None]:
    """Let dbt, which reads the environment, see the settings."""
    from loreline.stack.environment import NO_TELEMETRY

    before = dict(os.environ)
    os.environ.update(settings.environment() | NO_TELEMETRY)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _commits(settings: Settings, invocations: list[str]) -> Iterator[ModelCommit]:
    from psycopg import sql
    from psycopg.rows import class_row

    from loreline.postgres import connect

    # A merge may take two snapshots, each of which is recorded with the time of both.
    query = sql.SQL(
        "with writes as ("
        "select table_name, batch, min(model) as model, sum(rows) as rows,"
        " count(*) as snapshots, max(seconds) as seconds"
        " from {} where invocation_id = any(%s) group by table_name, batch)"
        " select table_name as table, min(model) as model, sum(rows)::bigint as rows,"
        " sum(snapshots)::bigint as snapshots, sum(seconds) as seconds"
        " from writes group by table_name order by min(batch)"
    ).format(sql.Identifier(f"{settings.prefix}operations", "commits"))
    with (
        connect(settings) as connection,
        connection.cursor(row_factory=class_row(ModelCommit)) as cursor,
    ):
        yield from cursor.execute(query, (invocations,))
