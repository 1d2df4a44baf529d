"""Great Expectations' Data Docs of the contracts: a static site, which needs no network.

The pages that it writes fetch styles and scripts from a dozen hosts, and show values as they are,
markup included. Here values are escaped before it sees them, everything remote and every script is
taken out, a policy in each page keeps browsers from running or fetching any, and one style sheet
and a first page of our own stand for what scripts would have made.
"""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment

from loreline.contracts.odcs import Contract
from loreline.contracts.results import Result
from loreline.contracts.suite import context, expectations
from loreline.errors import LorelineError

STYLE_SHEET = Path(__file__).with_name("site.css")
# A folder with this file in it was written by us, and may be written anew.
MARK = ".data-docs"
POLICY = "default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self'; font-src 'self'"
_TAKEN_OUT = re.compile(
    r"<script\b.*?</script\s*>|<link\b[^>]*>|<img\b[^>]*\bsrc=\"https?:[^>]*>",
    re.IGNORECASE | re.DOTALL,
)
_REMOTE_STYLE = re.compile(r"url\(\s*['\"]?https?:[^)]*\)", re.IGNORECASE)

INDEX = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Contracts</title></head>
<body>
<h1>Contracts of what sources send</h1>
<table>
<tr><th>table</th><th>contract</th><th>demands</th><th>last judged</th><th>rows</th><th></th></tr>
{% for contract in contracts %}
{% set result = results.get(contract.name) %}
<tr>
<td>{{ contract.name }}</td>
<td><a href="expectations/{{ contract.name.replace(".", "/") }}.html">version {{ contract.version }}</a></td>
<td>{{ contract.rules | length }}</td>
{% if result %}
<td>{{ result.validated_at.strftime("%Y-%m-%d %H:%M") }}</td>
<td>{{ "{:,}".format(result.rows) }}</td>
<td><a href="{{ pages[contract.name] }}">
{% if result.result.success %}<span class="kept">kept</span>
{% else %}<span class="broken">{{ result.result.statistics.unsuccessful_expectations }} broken</span>
{% endif %}</a></td>
{% else %}<td>never</td><td></td><td></td>{% endif %}
</tr>
{% endfor %}
</table>
</body>
</html>
"""  # noqa: E501 - a link is one line


def build(contracts: Sequence[Contract], results: Sequence[Result], folder: Path) -> Path:
    """Write the site anew: what each contract demands, and what was said last of each table.

    Args:
        contracts: all of them.
        results: as they are kept.
        folder: where to; what an earlier call wrote there is replaced.

    Returns:
        The page to begin with.

    Raises:
        LorelineError: the folder holds something else.
    """
    import great_expectations as gx

    _clear(folder)
    name = f"loreline-{folder}"
    made = context()
    if name in made.get_site_names():
        made.delete_data_docs_site(name)
    made.add_data_docs_site(name, _site(folder))
    # The context is the process's: what an earlier call put into it is not of this site.
    for suite in made.suites.all():
        made.suites.delete(suite.name)
    for key in made.validation_results_store.list_keys():
        made.validation_results_store.remove_key(key)
    for contract in contracts:
        made.suites.add_or_update(
            gx.ExpectationSuite(name=contract.name, expectations=expectations(contract.rules))
        )
    for result in results:
        made.validation_results_store.set(_key(result), _validation(result.result))
    made.build_data_docs(site_names=[name])
    (folder / "index.html").write_text(_index(contracts, results, folder))
    for page in folder.rglob("*.html"):
        page.write_text(static(page.read_text(), _way_up(page, folder)))
    (folder / "static" / "styles" / STYLE_SHEET.name).write_bytes(STYLE_SHEET.read_bytes())
    (folder / MARK).touch()
    return folder / "index.html"


def static(page: str, way_up: str) -> str:
    """A page that runs no script and fetches nothing from elsewhere, with our style sheet."""
    own = (
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<link rel="stylesheet" href="{way_up}static/styles/{STYLE_SHEET.name}">'
    )
    page = _REMOTE_STYLE.sub("none", _TAKEN_OUT.sub("", page))
    return page.replace("<head>", f"<head>{own}", 1)


def _index(contracts: Sequence[Contract], results: Sequence[Result], folder: Path) -> str:
    pages = {}
    for result in results:
        for page in folder.glob(f"validations/{result.name.replace('.', '/')}/**/*.html"):
            pages[result.name] = quote(str(page.relative_to(folder)))
    template = Environment(autoescape=True).from_string(INDEX)
    named = {result.name: result for result in results}
    return template.render(contracts=contracts, results=named, pages=pages)


def _clear(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            raise LorelineError(
                f"{folder} holds something else than Data Docs", "name an empty or another folder"
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)


def _site(folder: Path) -> dict[str, Any]:
    return {
        "class_name": "SiteBuilder",
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "show_how_to_buttons": False,
        "store_backend": {
            "class_name": "TupleFilesystemStoreBackend",
            "base_directory": str(folder.resolve()),
        },
    }


def _key(result: Result) -> Any:
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.data_context.types.resource_identifiers import (
        ExpectationSuiteIdentifier,
        ValidationResultIdentifier,
    )

    return ValidationResultIdentifier(
        expectation_suite_identifier=ExpectationSuiteIdentifier(result.name),
        run_id=RunIdentifier(run_name="last", run_time=result.validated_at),
        batch_identifier=result.name,
    )


def _validation(result: dict[str, Any]) -> Any:
    from great_expectations.core import ExpectationSuiteValidationResult
    from great_expectations.core.expectation_validation_result import (
        expectationSuiteValidationResultSchema,
    )

    told = {**result, "results": [_escaped(each) for each in result["results"]]}
    read = expectationSuiteValidationResultSchema.load(told)
    return ExpectationSuiteValidationResult(**read) if isinstance(read, dict) else read


def _escaped(value: Any) -> Any:
    """What a source has sent, as text in a page: Great Expectations puts it there as it is."""
    if isinstance(value, str):
        return html.escape(value)
    if isinstance(value, dict):
        return {key: _escaped(each) for key, each in value.items()}
    return [_escaped(each) for each in value] if isinstance(value, list) else value


def _way_up(page: Path, folder: Path) -> str:
    return "../" * (len(page.relative_to(folder).parts) - 1)
