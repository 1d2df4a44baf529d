"""What was agreed about what sources send, and whether it holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loreline.cli.instants import instant
from loreline.cli.options import Json
from loreline.cli.output import print_json, print_table, say
from loreline.cli.progress import progress
from loreline.errors import LorelineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlt_sources.border import Findings
    from loreline.contracts.odcs import Contract
    from loreline.settings import Settings

contracts = typer.Typer(
    help="Contracts of what sources send: check them, show them.", no_args_is_help=True
)


@dataclass(frozen=True)
class Checked:
    """What became of one rule, or of a table as a whole.

    Attributes:
        contract: the table, as `raw_slack.messages`.
        rule: what is demanded.
        state: kept, broken, new (a field that the contract does not know), unchecked or stale.
        rows: that break the rule, or have the field.
        of: rows that were judged.
        examples: values that break it.
    """

    contract: str
    rule: str
    state: str
    rows: int | None = None
    of: int | None = None
    examples: tuple[Any, ...] = ()


@contracts.command()
def check(
    source: Annotated[str | None, typer.Argument(help="Only this source; default: all.")] = None,
    location: Annotated[
        str | None,
        typer.Option("--from", metavar="LOCATION", help="Check files instead, before they land."),
    ] = None,
    observed_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="When they were exported.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Show also the rules that hold.")] = False,
    as_json: Json = False,
) -> None:
    """Check what is landed, or files before they land, by the contracts.

    Of raw tables, the newest version of each object is judged. Exit code 1 when a rule is broken,
    or a table is stale: nothing new has landed in it for longer than was agreed.
    """
    from loreline.settings import Settings

    settings = Settings.load()
    if location is not None:
        if source is None:
            raise LorelineError(
                "--from is for one source", "loreline contracts check slack --from export.zip"
            )
        seen_at = instant(observed_at, "--observed-at") if observed_at else None
        with progress("checking") as told:
            found = _of_files(settings, source, location, seen_at, told)
    else:
        with progress("checking") as told:
            found = _of_lake(settings, source, told)
    if as_json:
        print_json([asdict(each) for each in found])
    else:
        _print(found, every)
    if any(each.state in ("broken", "stale") for each in found):
        raise typer.Exit(1)


@contracts.command()
def docs(
    folder: Annotated[
        Path | None,
        typer.Option("--to", help="Where to write it; default: contracts in LORELINE_HOME."),
    ] = None,
) -> None:
    """Write the contracts, and the last result of each table, as a site for a browser.

    The site is Great Expectations' Data Docs; it needs no network.
    """
    from loreline.contracts import results, site
    from loreline.contracts.odcs import contracts as all_contracts
    from loreline.postgres import connect
    from loreline.settings import Settings

    settings = Settings.load()
    with connect(settings) as connection:
        kept = results.kept(settings, connection)
    page = site.build(all_contracts(settings), kept, folder or settings.home / "contracts")
    say(f"{len(kept)} tables with a result. Open {page}")


@contracts.command()
def export(
    folder: Annotated[Path, typer.Option("--to", help="Folder to write the files to.")],
) -> None:
    """Write the contracts of published models, as dbt enforces them, in the same standard.

    One file for each model that others may read (`access: public` in dbt).
    """
    from loreline.cli.build import manifest
    from loreline.contracts.models import published
    from loreline.contracts.odcs import SUFFIX
    from loreline.settings import PROJECT_ROOT, Settings

    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for contract in published(manifest(Settings.load(), PROJECT_ROOT)):
        (folder / f"{contract.id}{SUFFIX}").write_text(contract.to_yaml())
        count += 1
    say(f"{count} contracts are in {folder}.")


def _of_lake(settings: Settings, source: str | None, told: Callable[[str], None]) -> list[Checked]:
    from dlt_sources.inspection import judge_landed
    from loreline.contracts.odcs import contracts as all_contracts

    agreed = [each for each in all_contracts(settings) if source in (None, each.source)]
    landed = _raw_tables(settings, source)
    if source and not agreed and not landed:
        raise LorelineError(
            f"nothing is landed of a source called {source}, and no contract is",
            "loreline contracts check names all that there are",
        )
    found = []
    for contract in agreed:
        if contract.name in landed:
            findings = judge_landed(settings, contract, told)
            found += _rules(findings) + _latency(settings, contract)
        else:
            found.append(Checked(contract.name, "nothing is landed", "unchecked"))
    without = sorted(landed - {contract.name for contract in agreed})
    return found + [_without_contract(name) for name in without]


def _of_files(
    settings: Settings,
    source: str,
    location: str,
    observed_at: Any,
    told: Callable[[str], None],
) -> list[Checked]:
    from dlt_sources import SOURCES, STORED_SOURCES
    from dlt_sources.inspection import inspect

    known = [name for name in SOURCES if name not in STORED_SOURCES]
    if source not in known:
        raise LorelineError(
            f"files of no source called {source} can be checked", f"there are {', '.join(known)}"
        )
    seen = inspect(settings, source, location, observed_at, told)
    found = [each for findings in seen.findings for each in _rules(findings)]
    found += [_without_contract(f"raw_{source}.{name}") for name in seen.without_contract]
    return found + [
        Checked(f"raw_{source}", f"input can be read: {reason}", "broken", count)
        for reason, count in seen.rejected.items()
    ]


def _rules(findings: Findings) -> list[Checked]:
    contract = findings.contract
    broken = {text: rows for (text, _), rows in findings.breaches.items()}
    of_rows = [rule.text for rule in contract.rules]
    return [
        Checked(
            contract.name,
            text,
            "broken" if text in broken else "kept",
            broken.get(text, 0),
            findings.rows,
            tuple(findings.examples.get(text, ())),
        )
        for text in [*of_rows, *(text for text in broken if text not in of_rows)]
    ] + [
        Checked(contract.name, f"{name} is no field of the contract", "new", rows, findings.rows)
        for name, rows in findings.new_fields.most_common()
    ]


def _latency(settings: Settings, contract: Contract) -> list[Checked]:
    from psycopg.sql import SQL, Identifier

    from loreline.postgres import connect

    if contract.latency_days is None:
        return []
    with connect(settings) as connection:
        row = connection.execute(
            SQL(
                "select extract(epoch from now() - last_landed_at) / 86400 from {}"
                " where source = %s and resource = %s"
            ).format(Identifier(f"{settings.prefix}operations", "source_freshness")),
            (contract.source, contract.resource),
        ).fetchone()
    if row is None:
        # A table is made before its first row, for models that read it.
        return [Checked(contract.name, "nothing is landed", "unchecked")]
    days = float(row[0])
    rule = f"rows landed within {contract.latency_days:g} days"
    if days <= contract.latency_days:
        return [Checked(contract.name, rule, "kept")]
    return [Checked(contract.name, rule, "stale", examples=(f"{days:.0f} days ago",))]


def _raw_tables(settings: Settings, source: str | None) -> set[str]:
    from loreline.lake.catalog import load_catalog

    catalog = load_catalog(settings)
    names = set()
    for namespace, *_ in catalog.list_namespaces():
        if not namespace.startswith(f"{settings.prefix}raw_"):
            continue
        own = namespace.removeprefix(settings.prefix)
        if source in (None, own.removeprefix("raw_")):
            names |= {f"{own}.{table}" for (*_, table) in catalog.list_tables(namespace)}
    return {name for name in names if not name.rpartition(".")[2].startswith("_dlt")}


def _without_contract(name: str) -> Checked:
    return Checked(name, "there is no contract: rows land unchecked", "unchecked")


def _print(found: list[Checked], every: bool) -> None:
    shown = [each for each in found if every or each.state != "kept"]
    if shown:
        print_table(
            ["contract", "rule", "is", "rows", "of", "examples"],
            [
                [e.contract, e.rule, e.state, e.rows, e.of, ", ".join(map(str, e.examples))]
                for e in shown
            ],
            optional=["of", "examples"],
        )
        say()
    kept = sum(each.state == "kept" for each in found)
    tables = len({each.contract for each in found if each.state == "kept"})
    say(f"{kept} rules of {tables} tables hold.")
