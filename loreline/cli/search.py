"""Ask the served collections, or the lake as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from loreline.cli import people
from loreline.cli.instants import instant
from loreline.cli.options import Json
from loreline.cli.output import is_interactive, print_json, say
from loreline.errors import LorelineError

if TYPE_CHECKING:
    import duckdb
    import numpy as np

    from loreline.serving.answers import Neighbours, Passage
    from loreline.serving.search import Hit
    from loreline.settings import Settings

MOST_ANSWERS = 1_000
MOST_NEIGHBORS = 20

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
class Shape:
    """How an answer is made of what a search finds.

    Attributes:
        dense_weight: what the meaning counts, 0 to 1; the words count the rest.
        neighbors: chunks before and after each hit that are shown with it.
        per_document: most passages of one document; 0 does not gather them by document.
        rerank: whether a cross-encoder orders the hits once more.
    """

    dense_weight: float = 0.5
    neighbors: int = 0
    per_document: int = 0
    rerank: bool = False

    @classmethod
    def of(
        cls,
        settings: Settings,
        dense_weight: float | None = None,
        neighbors: int | None = None,
        per_document: int | None = None,
        rerank: bool | None = None,
    ) -> Self:
        """As the settings say, unless a command says otherwise.

        Raises:
            LorelineError: a setting is no number, or re-ranking is asked for and no model is named.
        """
        if rerank and not settings.reranker_model:
            raise LorelineError(
                "no re-ranking model is named", "name a cross-encoder in LORELINE_RERANKER_MODEL"
            )
        return cls(
            _number(settings, "search_dense_weight", float, 0, 1)
            if dense_weight is None
            else dense_weight,
            _number(settings, "search_neighbors", int, 0, MOST_NEIGHBORS)
            if neighbors is None
            else neighbors,
            _number(settings, "search_per_document", int, 0, MOST_ANSWERS)
            if per_document is None
            else per_document,
            bool(settings.reranker_model) if rerank is None else rerank,
        )


@dataclass(frozen=True)
class Question:
    """What is asked, for whom, and of what part of the knowledge."""

    text: str
    principals: tuple[str, ...]
    k: int
    filters: Mapping[str, Any]
    as_of: datetime | None = None
    shape: Shape = Shape()


@dataclass(frozen=True)
class Answer:
    """What was found.

    Attributes:
        collection: where.
        embedding_model: the variant that the question was embedded with.
        passages: best first.
        readers: the principals that may read each hit, by chunk; empty unless asked for.
        is_partial: it holds less than was asked for, though a search that went on might find more.
    """

    question: Question
    collection: str
    embedding_model: str
    passages: list[Passage]
    readers: Mapping[str, Sequence[str]]
    is_partial: bool = False


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
        int,
        typer.Option("--k", "-k", metavar="N", min=1, max=MOST_ANSWERS, help="How many answers."),
    ] = 5,
    neighbors: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, max=MOST_NEIGHBORS, help="Show so many chunks around each answer."
        ),
    ] = None,
    per_document: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            max=MOST_ANSWERS,
            help="Answer with documents, at most so many passages of each; 0 with passages.",
        ),
    ] = None,
    dense_weight: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", min=0, max=1, help="What the meaning counts; the words count the rest."
        ),
    ] = None,
    rerank: Annotated[
        bool | None,
        typer.Option(
            "--rerank/--no-rerank", help="Let a cross-encoder order what was found once more."
        ),
    ] = None,
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
            Shape.of(settings, dense_weight, neighbors, per_document, rerank),
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
    from psycopg import IsolationLevel

    from loreline.postgres import connect
    from loreline.serving.answers import highlighted, neighbours_served
    from loreline.serving.search import search as search_postgres

    with connect(settings.as_reader()) as postgres:
        # What is searched, what stands beside it and who may read it are of one moment.
        postgres.isolation_level = IsolationLevel.REPEATABLE_READ
        state = _served(postgres, settings, collection)
        # A collection pushed before it kept them takes the settings from the lake.
        configuration = state.question_embedding or _one(
            lake,
            CONFIGURATION.format(prefix=settings.prefix),
            {
                "vector_collection": state.vector_collection,
                "embedding_model": state.embedding_model,
            },
        )
        embedding = embed(question.text, configuration, settings)

        def nearest(count: int) -> list[Hit]:
            return search_postgres(
                postgres,
                settings,
                question.text,
                embedding,
                question.principals,
                count,
                question.filters,
                state.vector_collection,
                question.shape.dense_weight,
            )

        neighbours = neighbours_served(postgres, settings, state.table_number, question.principals)
        passages, is_partial = _shaped(question, nearest, neighbours, settings)
        passages = highlighted(postgres, settings, question.text, passages, state.vector_collection)
    readers = {}
    if explain:
        parameters = {
            "vector_collection": state.vector_collection,
            "chunk_ids": [passage.hit.chunk_id for passage in passages],
        }
        readers = dict(lake.execute(READERS.format(prefix=settings.prefix), parameters).fetchall())
    return Answer(
        question, state.vector_collection, state.embedding_model, passages, readers, is_partial
    )


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
    readers: dict[str, Sequence[str]] = {}

    def nearest(count: int) -> list[Hit]:
        found = past.search(lake, chosen, embedding, question.principals, count, question.filters)
        readers.update((hit.chunk_id, allowed) for hit, allowed in found)
        return [hit for hit, _ in found]

    passages, is_partial = _shaped(question, nearest, past.neighbours(lake), settings)
    return Answer(
        question,
        chosen["vector_collection"],
        chosen["embedding_model"],
        passages,
        readers if explain else {},
        is_partial,
    )


def _shaped(
    question: Question,
    search: Callable[[int], list[Hit]],
    neighbours: Neighbours,
    settings: Settings,
) -> tuple[list[Passage], bool]:
    """The passages that answer, and whether a search that went on might find more."""
    from loreline.serving import answers

    shape, k = question.shape, question.k

    def made_of(hits: list[Hit]) -> list[Passage]:
        found = answers.passages(hits, shape.neighbors, neighbours)
        return (
            answers.by_document(found, k, shape.per_document) if shape.per_document else found[:k]
        )

    def count(hits: list[Hit]) -> int:
        if shape.per_document:
            return len({hit.doc_id for hit in hits})
        return len(made_of(hits))

    hits = answers.enough(search, k, count)
    is_partial = len(hits) >= answers.MOST_CHUNKS and count(hits) < k
    if shape.rerank and hits:
        read = answers.candidates(k)
        with _waiting("reading question and answers together"):
            hits = [*answers.rerank(question.text, hits[:read], settings), *hits[read:]]
    return made_of(hits), is_partial


def embed(text: str, configuration: Mapping[str, Any], settings: Settings) -> np.ndarray:
    """The question's embedding as the collection's own configuration makes it, shape (dimensions,).

    What the model does not read is cut off.
    """
    with _waiting("loading the embedding model"):
        from loreline.embedding import EmbeddingConfiguration, load_encoder

        encoder = load_encoder(EmbeddingConfiguration.from_row(configuration), settings)
        return encoder.encode_query(text)


def print_answer(answer: Answer, *, explain: bool) -> None:
    """Print hits as a list to read."""
    from loreline.cli.hits import print_passage

    question = answer.question
    if explain:
        _print_explanation(answer)
    if not answer.passages:
        say(
            "Nothing was found"
            + (" that is public." if question.principals == ("public",) else ".")
        )
    place, shown = 0, set()
    for passage in answer.passages:
        is_further = bool(question.shape.per_document) and passage.hit.doc_id in shown
        shown.add(passage.hit.doc_id)
        place += not is_further
        readers = answer.readers.get(passage.hit.chunk_id)
        print_passage(
            None if is_further else place, passage, question.text, question.principals, readers
        )
    if answer.is_partial:
        say(f"No more: the {MOST_ANSWERS:,} chunks that answer best are all of these.")


def _print_explanation(answer: Answer) -> None:
    question = answer.question
    when = question.as_of.isoformat() if question.as_of else "now"
    filters = [f"{name} = {_text(value)}" for name, value in question.filters.items()]
    say(f"collection  {answer.collection} ({answer.embedding_model}), as of {when}")
    say(f"principals  {', '.join(question.principals)}")
    say(f"filters     {'; '.join(filters) or 'none'}")
    weight = question.shape.dense_weight
    ranking = (
        "every vector compared"
        if question.as_of
        else f"nearest vectors (dense) × {weight:g} + best words (lexical) × {1 - weight:g}"
    )
    say(f"ranking     {ranking}" + (", then re-ranked" if question.shape.rerank else ""))
    say()


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return ", ".join(value) if isinstance(value, list) else str(value)


def _record(answer: Answer, *, explain: bool) -> dict[str, Any]:
    question = answer.question
    hits = []
    for passage in answer.passages:
        hit = asdict(passage.hit) | asdict(passage)
        del hit["hit"]
        hits.append(hit)
        if explain:
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
        "shape": asdict(question.shape),
        "is_partial": answer.is_partial,
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


def _number(settings: Settings, name: str, kind: type, least: float, most: float) -> Any:
    """A setting as a number."""
    text = getattr(settings, name)
    try:
        number = kind(text)
    except ValueError:
        number = None
    if number is None or not least <= number <= most:
        variable = f"LORELINE_{name.upper()}"
        raise LorelineError(
            f"{variable} is {text!r}", f"set it to a number from {least} to {most}, or not at all"
        )
    return number


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
