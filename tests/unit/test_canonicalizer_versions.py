"""What dbt writes into `documents.canonicalizer_version` is what the functions say."""

import yaml

from loreline.knowledge import (
    google_docs_markdown,
    linear_markdown,
    notion_markdown,
    slack_markdown,
)
from loreline.settings import PROJECT_ROOT


def test_dbt_and_the_functions_name_the_same_versions() -> None:
    variables = yaml.safe_load((PROJECT_ROOT / "dbt_project.yml").read_text())["vars"]
    google_docs = variables["google_docs_canonicalizer_version"]
    assert google_docs == google_docs_markdown.CANONICALIZER_VERSION
    assert variables["linear_canonicalizer_version"] == linear_markdown.CANONICALIZER_VERSION
    assert variables["notion_canonicalizer_version"] == notion_markdown.CANONICALIZER_VERSION
    assert variables["slack_canonicalizer_version"] == slack_markdown.CANONICALIZER_VERSION
