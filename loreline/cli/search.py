"""Ask the served collections, or the lake as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loreline.cli import people
from loreline.cli.instants import instant
from loreline.cli.options import Json
from loreline.cli.output import is_interactive, print_json, say
from loreline.errors import LorelineError

if TYPE_CHECKING:
    import duckdb
    import numpy as np

    from loreline.serving.search import Hit
    from loreline.settings import Settings

CONFIGURATION = """
select configurations.*
from lake.{prefix}embedding.embedding_configurations as configurations
left join lake.{prefix}serving.served_collections as collections
    on configurations.config_hash = collections.embedding_config_hash
    and collections.vector_collection = $vector_collection
where configurations.embedding_model = $embedding_model
order by collections.vector_collection is null, configurations.config_hash
limit 1
"""

READERS = """
select chunk_id, allowed_principals
from lake.{prefix}serving.vector_manifest
where vector_collection = $vector_collection and list_contains($chunk_ids, chunk_id)
"""


@dataclass(frozen=True)
class Question:
    """What is asked, for whom, and of what part of the knowledge."""

    text: str
    principals: tuple[str, ...]
    k: int
    filters: Mapping[str, Any]
    as_of: datetime | None = None


@dataclass(frozen=True)
class Answer:
    """What was found.

    Attributes:
        collection: where.
        embedding_model: the variant that the question was embedded with.
        hits: best first.
        readers: the principals that may read each hit, by chunk; empty unless asked for.
    """

    question: Question
    collection: str
    embedding_model: str
    hits: list[Hit]
    readers: Mapping[str, Sequence[str]]


def search(
    query: Annotated[str, typer.Argument(help="A question, or some words.")],
    asker: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="WHO",
            help="Ask as somebody: a principal, an e-mail address, a handle or a name.",
        ),
    ] = None,
    source: Annotated[
        list[str] | None, typer.Option(metavar="SOURCE", help="Only from here: notion, slack, ….")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only what changed from then on.")
    ] = None,
    author: Annotated[
        str | None, typer.Option(metavar="WHO", help="Only what this person wrote.")
    ] = None,
    k: Annotated[
        int, typer.Option("--k", "-k", metavar="N", min=1, max=1000, help="How many answers.")
    ] = 5,
    as_of: Annotated[
        str | None, typer.Option(metavar="TIME", help="Answer from the lake as it was then.")
    ] = None,
    collection: Annotated[
        str | None, typer.Option(metavar="NAME", help="Another collection than the default one.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show ranks, filters and why each row is visible.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Search by meaning and by words.

    Without --as, only in what is public.
    """
    from loreline.lake.duck import connect
    from loreline.settings import Settings

    settings = Settings.load()
    moment = instant(as_of, "--as-of") if as_of else None
    earliest = instant(since, "--since") if since else None
    with connect(settings.as_reader()) as lake, _built():
        filters = {
            "source": source or None,
            "since": earliest,
            "author": list(people.find(lake, settings, author).account_ids) if author else None,
        }
        question = Question(
            query,
            people.principals(lake, settings, asker),
            k,
            {name: value for name, value in filters.items() if value is not None},
            moment,
        )
        ask = ask_past if moment else ask_present
        answer = ask(lake, settings, question, collection, explain=explain)
    if as_json:
        print_json(_record(answer, explain=explain))
    else:
        print_answer(answer, explain=explain)


def ask_present(
    lake: duckdb.DuckDBPyConnection,
    settings: Settings,
    question: Question,
    collection: str | None = None,
    *,
    explain: bool = False,
) -> Answer:
    """Ask what Postgres serves now.

    Raises:
        LorelineError: the collection is not served.
    """
    from loreline.postgres import connect
    from loreline.serving.search import search as search_postgres

    with connect(settings.as_reader()) as postgres:
        state = _served(postgres, settings, collection)
        names = {
            "vector_collection": state.vector_collection,
            "embedding_model": state.embedding_model,
        }
        row = _one(lake, CONFIGURATION.format(prefix=settings.prefix), names)
        hits = search_postgres(
            postgres,
            settings,
            question.text,
            embed(question.text, row, settings),
            question.principals,
            question.k,
            question.filters,
            state.vector_collection,
        )
    readers = {}
    if explain:
        parameters = {
            "vector_collection": state.vector_collection,
            "chunk_ids": [hit.chunk_id for hit in hits],
        }
        readers = dict(lake.execute(READERS.format(prefix=settings.prefix), parameters).fetchall())
    return Answer(question, state.vector_collection, state.embedding_model, hits, readers)


def ask_past(
    lake: duckdb.DuckDBPyConnection,
    settings: Settings,
    question: Question,
    collection: str | None = None,
    *,
    explain: bool = False,
) -> Answer:
    """Ask the lake as it was at `question.as_of`.

    Raises:
        LorelineError: the time lies before what is kept, or the collection was not served then.
    """
    from loreline.cli.search_as_of import PastLake
    from loreline.lake.catalog import load_catalog

    assert question.as_of is not None
    past = PastLake.at(load_catalog(settings), settings, question.as_of)
    chosen = past.collection(lake, collection)
    embedding = embed(question.text, chosen, settings)
    found = past.search(lake, chosen, embedding, question.principals, question.k, question.filters)
    return Answer(
        question,
        chosen["vector_collection"],
        chosen["embedding_model"],
        [hit for hit, _ in found],
        {hit.chunk_id: readers for hit, readers in found} if explain else {},
    )


def embed(text: str, configuration: Mapping[str, Any], settings: Settings) -> np.ndarray:
    """The question's embedding, shape (dimensions,); what the model does not read is cut off."""
    with _waiting("loading the embedding model"):
        from loreline.embedding import EmbeddingConfiguration, load_encoder

        encoder = load_encoder(EmbeddingConfiguration.from_row(configuration), settings)
        return encoder.encode([text])[0]


def print_answer(answer: Answer, *, explain: bool) -> None:
    """Print hits as a list to read."""
    from loreline.cli.hits import print_hit

    question = answer.question
    if explain:
        _print_explanation(answer)
    if not answer.hits:
        say(
            "Nothing was found"
            + (" that is public." if question.principals == ("public",) else ".")
        )
    for place, hit in enumerate(answer.hits, start=1):
        readers = answer.readers.get(hit.chunk_id)
        print_hit(place, hit, question.text, question.principals, readers)


def _print_explanation(answer: Answer) -> None:
    question = answer.question
    when = question.as_of.isoformat() if question.as_of else "now"
    filters = [f"{name} = {_text(value)}" for name, value in question.filters.items()]
    say(f"collection  {answer.collection} ({answer.embedding_model}), as of {when}")
    say(f"principals  {', '.join(question.principals)}")
    say(f"filters     {'; '.join(filters) or 'none'}")
    say(
        "ranking     every vector compared"
        if question.as_of
        else "ranking     nearest vectors (dense) and best words (lexical), fused"
    )
    say()


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return ", ".join(value) if isinstance(value, list) else str(value)


def _record(answer: Answer, *, explain: bool) -> dict[str, Any]:
    question = answer.question
    hits = [asdict(hit) for hit in answer.hits]
    if explain:
        for hit in hits:
            readers = answer.readers.get(hit["chunk_id"], [])
            hit["allowed_principals"] = readers
            hit["visible_to"] = [p for p in question.principals if p in readers]
    return {
        "query": question.text,
        "collection": answer.collection,
        "embedding_model": answer.embedding_model,
        "principals": question.principals,
        "filters": question.filters,
        "as_of": question.as_of,
        "hits": hits,
    }


def _served(postgres: Any, settings: Settings, name: str | None) -> Any:
    """The collection that a search of this name reads."""
    from loreline.serving.collections import states

    served = [state for state in states(postgres, settings) if state.status == "served"]
    wanted = [s for s in served if (s.vector_collection == name if name else s.is_default)]
    if wanted:
        return wanted[0]
    if not served:
        raise LorelineError("no collection is served yet", "run `loreline build`")
    names = ", ".join(state.vector_collection for state in served)
    raise LorelineError(f"collection {name or '(default)'} is not served", f"there are {names}")


def _one(
    lake: duckdb.DuckDBPyConnection, query: str, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    result = lake.execute(query, parameters)
    names = [column[0] for column in result.description]
    row = result.fetchone()
    if row is None:
        raise LorelineError(
            f"the lake does not know embedding model {parameters['embedding_model']}",
            "run `loreline build`",
        )
    return dict(zip(names, row, strict=True))


@contextmanager
def _built() -> Iterator[None]:
    import duckdb

    try:
        yield
    except duckdb.CatalogException as error:
        raise LorelineError("nothing was built yet", "run `loreline build`") from error


@contextmanager
def _waiting(why: str) -> Iterator[None]:
    if not is_interactive():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(why):
        yield
