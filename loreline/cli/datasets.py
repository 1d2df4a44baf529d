"""Frozen datasets: freeze, verify, rebuild, revoke; list, show, compare, export."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loreline.cli.options import Json
from loreline.cli.output import print_json, print_table, say
from loreline.cli.progress import progress
from loreline.errors import LorelineError

if TYPE_CHECKING:
    from loreline.datasets.card import Description
    from loreline.datasets.registry import FrozenDataset
    from loreline.settings import Settings

EXPORTS = Path("exports")
DIFFERENT = 1

Name = Annotated[str, typer.Argument(metavar="NAME", help="What it was frozen as.")]
Folder = Annotated[Path, typer.Option("--exports", help="Where the folder NAME is written.")]


def freeze(
    dataset: Annotated[
        str | None, typer.Argument(help="The model, or the beginning of its name.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="What to freeze it as.")] = None,
    where: Annotated[str, typer.Option("--where", help="A condition over its columns.")] = "",
    note: Annotated[str, typer.Option("--note", help="A line for the card.")] = "",
    licence: Annotated[str, typer.Option("--licence", help="For the card.")] = "unknown",
    exports: Folder = EXPORTS,
    verify: Annotated[
        str | None, typer.Option("--verify", metavar="NAME", help="Write it again and compare.")
    ] = None,
    rebuild: Annotated[
        str | None, typer.Option("--rebuild", metavar="NAME", help="Run its code and compare.")
    ] = None,
    revoke: Annotated[
        str | None, typer.Option("--revoke", metavar="NAME", help="Mark it as not to be used.")
    ] = None,
    successor: Annotated[str, typer.Option("--successor", help="What to use instead.")] = "",
    discard: Annotated[
        str | None,
        typer.Option("--discard", metavar="NAME", help="Remove what an unfinished freeze left."),
    ] = None,
    project: Annotated[
        Path | None, typer.Option("--project-dir", help="The dbt project; default: this one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Freeze a dataset under a name, for good.

    Its snapshot and all that it was made from are tagged, its rows are written as Parquet and JSON
    Lines with a card, and the registry gets a row:

    loreline freeze sft_messages_dataset --name sft-2026-11

    Exit code 1 where --verify or --rebuild finds a difference.
    """
    from loreline.settings import PROJECT_ROOT, Settings

    settings = Settings.load()
    folder = project or PROJECT_ROOT
    asked = [one for one in (dataset, verify, rebuild, revoke, discard) if one is not None]
    if len(asked) != 1 or (dataset is None) != (name is None):
        raise LorelineError(
            "it is not clear what to do",
            "give DATASET and --name, or one of --verify, --rebuild, --revoke, --discard",
            exit_code=2,
        )
    if verify is not None:
        _verify(settings, verify, as_json)
    elif rebuild is not None:
        _rebuild(settings, rebuild, folder, as_json)
    elif revoke is not None:
        _revoke(settings, revoke, successor, as_json)
    elif discard is not None:
        from loreline.datasets.freeze import discard as discard_draft

        discard_draft(settings, discard)
        _answer({"discarded": discard}, f"Nothing is left of {discard}.", as_json)
    else:
        from loreline.datasets.freeze import Request

        request = Request(dataset or "", name or "", where, note, licence)
        _freeze(settings, request, exports, folder, as_json)


def datasets(as_json: Json = False) -> None:
    """List the frozen datasets, and freezes that were not finished."""
    from loreline.datasets import registry
    from loreline.datasets.freeze import unfinished
    from loreline.settings import Settings

    settings = Settings.load()
    frozen, begun = registry.read(settings), unfinished(settings)
    if as_json:
        print_json({"frozen": [one.facts() for one in frozen], "unfinished": begun})
        return
    if frozen:
        columns = ["name", "dataset", "rows", "frozen (UTC)", "by", "status", "content"]
        rows = [
            [
                one.snapshot_name,
                one.dataset.rsplit(".", 1)[-1],
                one.row_count,
                one.frozen_at.replace(microsecond=0),
                one.frozen_by,
                f"{one.status} → {one.successor}" if one.successor else one.status,
                one.content_sha256[:12],
            ]
            for one in frozen
        ]
        print_table(columns, rows, optional=["by", "content"])
    else:
        say("No dataset is frozen: `loreline freeze DATASET --name NAME` freezes one.")
    for name in begun:
        say(f"{name} is being frozen, or was not finished: freeze it again, or --discard {name}.")


dataset = typer.Typer(help="Look at frozen datasets.", no_args_is_help=True)


@dataset.command()
def show(name: Name, as_json: Json = False) -> None:
    """Show what was frozen under a name: rows, files, code, and what it was made from."""
    from loreline.datasets import registry
    from loreline.settings import Settings

    frozen = registry.find(Settings.load(), name)
    if as_json:
        print_json(frozen.facts())
        return
    _print(frozen)


@dataset.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A")],
    b: Annotated[str, typer.Argument(metavar="B")],
    as_json: Json = False,
) -> None:
    """Show what B has that A has not: rows by example_id, counts, settings."""
    from loreline.datasets import registry
    from loreline.datasets.diff import difference
    from loreline.settings import Settings

    settings = Settings.load()
    found = difference(settings, registry.find(settings, a), registry.find(settings, b))
    if as_json:
        print_json(asdict(found))
        return
    print_table(
        ["", a, b],
        [["rows", *found.rows], *([k, str(x), str(y)] for k, (x, y) in found.settings.items())],
    )
    rows = [
        [what, number, ", ".join(found.examples[what])]
        for what, number in (
            ("added", found.added),
            ("removed", found.removed),
            ("changed", found.changed),
        )
    ]
    print_table(["rows", "number", "such as"], rows)
    if found.columns_changed:
        print_table(["column", "rows that differ in it"], found.columns_changed.items())
    for column, values in found.counts.items():
        print_table([column, a, b], [[value, *pair] for value, pair in values.items()])


@dataset.command()
def export(name: Name, exports: Folder = EXPORTS, as_json: Json = False) -> None:
    """Copy the stored files of a frozen dataset into a folder."""
    from loreline.datasets import registry
    from loreline.datasets.freeze import export as export_files
    from loreline.settings import Settings

    settings = Settings.load()
    target = export_files(settings, registry.find(settings, name), exports)
    _answer({"folder": str(target)}, f"Its files are in {target}.", as_json)


def description(project: Path, model: str) -> Description:
    """What a dbt project says of a model; nothing where it does not know it."""
    from loreline.cli.build import manifest
    from loreline.datasets.card import Description
    from loreline.settings import Settings

    nodes = manifest(Settings.load(), project).nodes.values()
    found = [node for node in nodes if node.name == model and node.resource_type == "model"]
    if not found:
        return Description()
    columns = {column.name: column.description for column in found[0].columns.values()}
    return Description(found[0].description, columns)


def _freeze(settings: Settings, request: Any, exports: Path, project: Path, as_json: bool) -> None:
    from loreline.datasets.freeze import check_free, freeze
    from loreline.datasets.freeze import export as export_files
    from loreline.datasets.registry import check_name

    check_free(exports / check_name(request.name))
    with progress(f"freezing {request.name}") as told:
        frozen = freeze(
            settings,
            request,
            describe=lambda model: description(project, model),
            progress=told,
        )
    target = export_files(settings, frozen, exports)
    if as_json:
        print_json(frozen.facts() | {"folder": str(target)})
        return
    _print(frozen)
    say(f"Its files are in {target}.")


def _verify(settings: Settings, name: str, as_json: bool) -> None:
    from loreline.datasets import registry
    from loreline.datasets.verify import verify

    with progress(f"verifying {name}") as told:
        found = verify(settings, registry.find(settings, name), told)
    if as_json:
        print_json(asdict(found) | {"is_equal": found.is_equal})
    else:
        rows = [
            [file.path, file.recorded[:12], file.stored[:12] or "gone", file.rewritten[:12] or "–"]
            for file in found.files
        ]
        print_table(["file", "recorded", "stored", "written again"], rows)
        content = "the same rows" if found.is_same_content else "OTHER ROWS"
        say(f"{name}: {'equal' if found.is_equal else 'NOT EQUAL'}, {content}.")
        for library in found.other_libraries:
            say(f"Written by other libraries: {library}.")
    if not found.is_equal:
        raise typer.Exit(DIFFERENT)


def _rebuild(settings: Settings, name: str, project: Path, as_json: bool) -> None:
    from loreline.datasets import registry
    from loreline.datasets.rebuild import rebuild

    frozen = registry.find(settings, name)
    with progress(f"rebuilding {name}") as told:
        models = rebuild(settings, frozen, project=project, progress=told)
    is_equal = all(model.is_equal for model in models)
    if as_json:
        print_json({"models": [asdict(model) for model in models], "is_equal": is_equal})
    else:
        print_table(
            ["model", "commit", "frozen rows", "rebuilt rows", "missing", "extra", "same SQL"],
            [
                [m.table, m.commit[:12], m.rows, m.rebuilt, m.missing, m.extra, m.is_same_sql]
                for m in models
            ],
        )
        say(f"{name}: {'equal' if is_equal else 'NOT EQUAL'}.")
    if not is_equal:
        raise typer.Exit(DIFFERENT)


def _revoke(settings: Settings, name: str, successor: str, as_json: bool) -> None:
    from loreline.datasets.freeze import revoke

    frozen = revoke(settings, name, successor)
    instead = f"; use {successor}" if successor else ""
    _answer(frozen.facts(), f"{name} is revoked{instead}. Nothing of it was changed.", as_json)


def _print(frozen: FrozenDataset) -> None:
    facts = [
        ("dataset", frozen.dataset),
        ("status", f"{frozen.status} {frozen.successor and '→ ' + frozen.successor}".strip()),
        ("rows", frozen.row_count),
        ("content SHA-256", frozen.content_sha256),
        ("condition", frozen.where or "all rows"),
        ("note", frozen.parameters["note"]),
        ("licence", frozen.parameters["licence"]),
        ("code", frozen.code_version),
        ("snapshot", f"{frozen.iceberg_snapshot_id}, tag {frozen.tag}"),
        ("stored in", frozen.writer["address"]),
        ("MLflow run", frozen.mlflow_run_id),
        ("frozen", f"{frozen.frozen_at:%Y-%m-%d %H:%M:%S} UTC by {frozen.frozen_by}"),
    ]
    print_table(["", frozen.snapshot_name], [fact for fact in facts if fact[1] != ""])
    print_table(
        ["file", "rows", "bytes", "SHA-256"],
        [[file.path, file.rows, file.size, file.sha256[:12]] for file in frozen.files],
    )
    print_table(
        ["made from", "snapshot", "read by"],
        [[one.table, str(one.snapshot_id), ", ".join(one.read_by)] for one in frozen.upstream],
    )


def _answer(facts: dict[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        print_json(facts)
    else:
        say(text)
