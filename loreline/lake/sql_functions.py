"""Scalar functions that the models call where SQL has no word for it, registered in DuckDB.

Each has a macro in `macros/portable/`; another engine registers the same Python functions.
"""

from __future__ import annotations

import json
from functools import lru_cache

import duckdb

from loreline.knowledge.google_docs_markdown import google_docs_markdown
from loreline.knowledge.linear_markdown import linear_markdown
from loreline.knowledge.notion_export import same_text
from loreline.knowledge.notion_markdown import notion_markdown, notion_title
from loreline.knowledge.slack_markdown import slack_markdown
from loreline.knowledge.source_text import canonical_text
from loreline.lake.objects import read_object
from loreline.settings import Settings


def register(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Register the functions in a connection; each gives null for null."""

    def stored_payload(uri: str) -> str:
        return read_object(settings, uri).decode()

    names_of = lru_cache(maxsize=1_000)(json.loads)

    def slack_message(message: str, names: str) -> str:
        return slack_markdown(message, names_of(names))

    text = "VARCHAR"
    connection.create_function("google_docs_markdown", google_docs_markdown, [text], text)
    connection.create_function("linear_markdown", linear_markdown, [text, "BOOLEAN"], text)
    connection.create_function("canonical_text", canonical_text, [text], text)
    connection.create_function("notion_markdown", notion_markdown, [text], text)
    connection.create_function("notion_same_text", same_text, [text, text], "BOOLEAN")
    connection.create_function("notion_title", notion_title, [text], text)
    connection.create_function("slack_markdown", slack_message, [text, text], text)
    connection.create_function("stored_payload", stored_payload, [text], text)
