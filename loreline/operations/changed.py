"""Which nodes of the dbt project a build has to run: those that read or are something new.

A node is up to date where it was built, or passed, by the code of now, from tables that nothing was
written to since, and its own table is as it left it. What is recorded of a run is what was there
when it was planned, so whatever happens meanwhile counts as new for the next one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.sql import SQL, Identifier

import loreline
from loreline.lake.catalog import list_tables, load_catalog
from loreline.postgres import connect
from loreline.settings import Settings

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest
    from dbt.contracts.results import RunResult

# A node whose result depends on more than what it reads from the lake says so in its `meta`.
ALWAYS = "runs_always"
PASSED = ("success", "pass")
# What runs always may write, and what reads it is run then; more rounds follow only what others do.
MOST_ROUNDS = 3

# The last commit of each table as its number and when it was made. A compaction is none: the rows
# stay what they are.
Commits = Mapping[str, tuple[int, str]]
_NEVER = (-1, "-infinity")


@dataclass(frozen=True)
class Run:
    """One run of dbt.

    Attributes:
        invocation_id: dbt's id of it; empty where it never began.
        exit_code: 0, or dbt's.
        results: of its nodes.
    """

    invocation_id: str
    exit_code: int
    results: list[RunResult] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """What a build is to run.

    Attributes:
        nodes: unique ids.
        commits: of all tables of the project, as they were when this was planned.
        codes: of each node, a digest of the code that makes it.
    """

    nodes: frozenset[str]
    commits: Commits
    codes: Mapping[str, str]


def plan(
    settings: Settings,
    project: Path,
    manifest: Manifest,
    within: Collection[str],
    *,
    with_always: bool = True,
) -> Plan:
    """What to run now: what is not up to date, and what hangs from that.

    Args:
        settings: the stores.
        project: the folder of the dbt project.
        manifest: what dbt has read there.
        within: the nodes that are wanted.
        with_always: also what runs in every build.
    """
    nodes = {
        name: node
        for name, node in manifest.nodes.items()
        if name in within and node.resource_type in ("model", "seed", "test")
    }
    tables = _tables(manifest)
    common = _common_code(settings, project, manifest)
    codes = {name: _code(node, common) for name, node in nodes.items()}
    with connect(settings) as connection:
        commits = _last_commits(connection, settings, set(tables.values()))
        built = _built(connection, settings)
    own = {name: table for name, table in tables.items() if name in nodes}
    there = _existing(settings, own.values())
    stale = {
        name
        for name in nodes
        if built.get(name) != _state(manifest, name, codes[name], commits, tables)
        or (name in own and own[name] not in there)
    }
    # What hangs from these is run in another round, where they have written something.
    always = {name for name in nodes if with_always and _runs_always(manifest, nodes[name])}
    found = nodes.keys() & (_with_children(manifest, stale) | always)
    return Plan(frozenset(found), commits, codes)


def build_changed(
    settings: Settings,
    project: Path,
    manifest: Manifest,
    within: Collection[str],
    run: Callable[[list[str]], Run],
) -> None:
    """Run what changed, and then what that has changed, until all is up to date or something fails.

    Args:
        settings: the stores.
        project: the folder of the dbt project.
        manifest: what dbt has read there.
        within: the nodes that are wanted.
        run: runs `dbt build` with a selection.
    """
    for rounds in range(MOST_ROUNDS):
        planned = plan(settings, project, manifest, within, with_always=rounds == 0)
        if not planned.nodes:
            return
        done = run(_selection(manifest, planned))
        _record(settings, manifest, planned, done)
        if done.exit_code:
            return


def _selection(manifest: Manifest, planned: Plan) -> list[str]:
    # By their places in the project, which no two share.
    named = sorted("fqn:" + ".".join(manifest.nodes[name].fqn) for name in planned.nodes)
    unasked = ["--indirect-selection", "empty", "--exclude-resource-type", "unit_test"]
    return [*unasked, "--select", *named]


def _record(settings: Settings, manifest: Manifest, planned: Plan, run: Run) -> None:
    """Remember the nodes that went well as up to date."""
    tables = _tables(manifest)
    done = [
        result.node.unique_id
        for result in run.results
        if result.status in PASSED and result.node.unique_id in planned.nodes
    ]
    with connect(settings) as connection:
        commits = _with_own(connection, settings, planned.commits, run.invocation_id)
        connection.cursor().executemany(
            SQL(
                "insert into {} (node, state) values (%s, %s)"
                " on conflict (node) do update set state = excluded.state, built_at = now()"
            ).format(_place(settings, "built_nodes")),
            [(n, _state(manifest, n, planned.codes[n], commits, tables)) for n in done],
        )


def _state(
    manifest: Manifest, name: str, code: str, commits: Commits, tables: Mapping[str, str]
) -> str:
    """What a node is known by: its code, and the last commits of what it reads and writes."""
    concerned = sorted({name, *manifest.nodes[name].depends_on_nodes} & tables.keys())
    return json.dumps([code, [(each, commits[tables[each]]) for each in concerned]])


def _tables(manifest: Manifest) -> dict[str, str]:
    """The tables of the lake, as `namespace.table`, that nodes and sources are."""
    relations = {
        **{
            n: node for n, node in manifest.nodes.items() if node.resource_type in ("model", "seed")
        },
        **manifest.sources,
    }
    return {
        name: f"{node.schema}.{node.identifier}"
        for name, node in relations.items()
        if node.database == "lake"
    }


def _existing(settings: Settings, tables: Collection[str]) -> set[str]:
    """Those of the tables that are in the catalog: somebody may have dropped one."""
    catalog = load_catalog(settings)
    namespaces = {table.partition(".")[0] for table in tables}
    return {f"{each}.{table}" for each in namespaces for table in list_tables(catalog, each)}


def _with_children(manifest: Manifest, names: Collection[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += manifest.child_map.get(name, [])
    return found


def _runs_always(manifest: Manifest, node: Any) -> bool:
    if node.config.meta.get(ALWAYS):
        return True
    sources = (manifest.sources.get(name) for name in node.depends_on_nodes)
    return any(source is not None and source.database != "lake" for source in sources)


def _common_code(settings: Settings, project: Path, manifest: Manifest) -> str:
    """A digest of what every node is made with."""
    macros = {name: macro.macro_sql for name, macro in manifest.macros.items()}
    variables = (project / "dbt_project.yml").read_text()
    libraries = [version(name) for name in ("dbt-core", "dbt-duckdb", "duckdb")]
    return _digest(macros, variables, libraries, _package(), settings.model_path)


@cache
def _package() -> str:
    """A digest of Loreline's own modules, which SQL functions and Python models are made of."""
    folder = Path(loreline.__file__).parent
    return _digest({str(file): file.read_text() for file in sorted(folder.rglob("*.py"))})


def _code(node: Any, common: str) -> str:
    columns = {n: column.to_dict() for n, column in node.columns.items()} if node.columns else {}
    checksum = node.checksum.checksum if node.checksum else ""
    if node.resource_type == "seed":
        # dbt knows a large one by its path alone.
        checksum = hashlib.sha256(
            Path(node.root_path, node.original_file_path).read_bytes()
        ).hexdigest()
    return _digest(common, checksum, node.raw_code, node.config.to_dict(), columns)


def _digest(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _last_commits(
    connection: psycopg.Connection, settings: Settings, tables: Collection[str]
) -> dict[str, tuple[int, str]]:
    query = SQL(
        "select wanted.name, last.batch, last.committed_at::text"
        " from unnest(%s::text[]) as wanted (name)"
        " cross join lateral (select batch, committed_at from {}"
        "  where table_name = wanted.name and operation <> 'compact'"
        "  order by batch desc, committed_at desc limit 1) as last"
    ).format(_place(settings, "commits"))
    rows = connection.execute(query, [sorted(tables)]).fetchall()
    return dict.fromkeys(tables, _NEVER) | {n: (batch, moment) for n, batch, moment in rows}


def _with_own(
    connection: psycopg.Connection, settings: Settings, planned: Commits, invocation_id: str
) -> dict[str, tuple[int, str]]:
    """The commits as planned; the later ones of tables that nobody else has written to since."""
    query = SQL(
        "select later.table_name, later.batch, later.committed_at::text,"
        " later.invocation_id = %s as is_own"
        " from unnest(%s::text[], %s::bigint[], %s::timestamptz[]) as planned (name, batch, moment)"
        " inner join {} as later on planned.name = later.table_name"
        " and (later.batch, later.committed_at) > (planned.batch, planned.moment)"
        " and later.operation <> 'compact'"
        " order by later.batch, later.committed_at"
    ).format(_place(settings, "commits"))
    names = list(planned)
    numbers, moments = zip(*planned.values(), strict=True) if planned else ((), ())
    rows = connection.execute(query, [invocation_id, names, list(numbers), list(moments)])
    now, others = dict(planned), set()
    for name, batch, moment, is_own in rows:
        now[name] = batch, moment
        if not is_own:
            others.add(name)
    return now | {name: planned[name] for name in others}


def _built(connection: psycopg.Connection, settings: Settings) -> dict[str, str]:
    query = SQL("select node, state from {}").format(_place(settings, "built_nodes"))
    return dict(connection.execute(query).fetchall())


def _place(settings: Settings, table: str) -> Identifier:
    return Identifier(f"{settings.prefix}operations", table)
