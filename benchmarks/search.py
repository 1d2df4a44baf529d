"""How long a search takes among 100,000 chunks, and what bounding the lexical candidates costs.

    python -m benchmarks.search [--chunks 100000] [--questions 300] [--json FILE]

XQuAD's questions, one client, the embedding of the query aside. References in the same run: for
the dense search a bare query of the vector index; for the hybrid one what Postgres has of its own,
any word of the question ranked by `ts_rank`. The recall of the bound is the share of the best ten
chunks by BM25, of all that match, which are found when only the rarest words fetch candidates.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import psycopg

from benchmarks.corpus import SyntheticChunks, XQuad, embed
from benchmarks.sandbox import Measurement, arguments, postgres_of_its_own, show
from loreline.postgres import connect
from loreline.serving.collections import push, states
from loreline.serving.search import search
from loreline.settings import Settings

LEXICAL_LIMIT = 5_000
WARM_UP = 30

BARE_DENSE = """
select chunk_id, text
from {chunks}
order by embedding <=> %s::text::vector
limit 10
"""

BARE_LEXICAL = """
with question as (
    select replace(plainto_tsquery('english', %s)::text, '&', '|')::tsquery as any_word
)

select chunk_id, text
from {chunks}
inner join question on lexemes @@ any_word
order by ts_rank(lexemes, any_word) desc
limit 10
"""

# The ten best by BM25: bounded as the search bounds them, and among everything that matches.
BOUNDED_AND_NOT = """
select
    {serving}.matching_chunks('{chunks}', asked, asked.candidates, relevance, {limit}, 10),
    {serving}.matching_chunks('{chunks}', asked, asked.any_lexeme, relevance, 1000000000, 10)
from {serving}.collection_to_search(null) as searched
cross join lateral {serving}.read_question(searched, %s, {limit}) as asked
cross join lateral {serving}.relevance(searched, asked) as relevance
where asked.lexemes is not null
"""


def milliseconds(ask: Callable[[int], object], questions: range) -> np.ndarray:
    """Time of each question, after some that do not count."""
    for number in questions[:WARM_UP]:
        ask(number)
    times = []
    for number in questions:
        started = time.perf_counter()
        ask(number)
        times.append(1_000 * (time.perf_counter() - started))
    return np.array(times)


def bounded_recall(
    connection: psycopg.Connection, query: str, xquad: XQuad, questions: range
) -> float:
    """Share of the unbounded ten best that the bounded ten best hold, over all questions."""
    shares = []
    for number in questions:
        row = connection.execute(query, [xquad.questions[number]]).fetchone()
        if row is not None and row[1]:
            shares.append(len(set(row[0]) & set(row[1])) / len(row[1]))
    return float(np.mean(shares))


def measure(settings: Settings, chunk_count: int, question_count: int) -> list[Measurement]:
    """95th percentiles against their limits and references."""
    xquad = XQuad.load()
    corpus = SyntheticChunks(xquad, settings, chunk_count)
    embeddings = embed(xquad.questions, settings)
    questions = range(0, len(xquad.questions), len(xquad.questions) // question_count)
    with connect(settings, autocommit=True) as connection:
        push(connection, settings, corpus.collection, corpus.batches(), through_batch=1)
        connection.execute("set hnsw.ef_search = 120")
        serving = f"{settings.prefix}serving"
        names = {
            "serving": serving,
            "chunks": f"{serving}.chunks_{states(connection, settings)[0].table_number}",
            "limit": LEXICAL_LIMIT,
        }

        def find(text: bool, embedding: bool, **filters: str) -> Callable[[int], object]:
            return lambda number: search(
                connection,
                settings,
                xquad.questions[number] if text else None,
                embeddings[number] if embedding else None,
                filters=filters,
            )

        def bare_dense(number: int) -> object:
            vector = str(embeddings[number].tolist())
            return connection.execute(BARE_DENSE.format(**names), [vector]).fetchall()

        def bare_lexical(number: int) -> object:
            query = BARE_LEXICAL.format(**names)
            return connection.execute(query, [xquad.questions[number]]).fetchall()

        searches = {
            "bare dense": bare_dense,
            "dense": find(False, True),
            "lexical": find(True, False),
            "hybrid": find(True, True),
            "dense, filter of 1 %": find(False, True, container="rare"),
            "hybrid, filter of 1 %": find(True, True, container="rare"),
            "dense, filter of 5 %": find(False, True, container="space-3"),
            "hybrid, filter of 5 %": find(True, True, container="space-3"),
        }
        times = {name: milliseconds(ask, questions) for name, ask in searches.items()}
        # Seconds each: fewer of them.
        times["bare lexical"] = milliseconds(bare_lexical, questions[::10])
        recall = bounded_recall(connection, BOUNDED_AND_NOT.format(**names), xquad, questions)
    limits = {"dense": 15, "hybrid": 100}
    return (
        [
            Measurement(
                f"{name}: p{percentile}, ms",
                float(np.percentile(of, percentile)),
                target=limits.get(name) if percentile == 95 else None,
                is_limit=True,
            )
            for name, of in times.items()
            for percentile in (50, 95)
        ]
        + [
            Measurement(
                f"{name} against {reference}: p95, ms",
                float(np.percentile(times[name], 95)),
                float(np.percentile(times[reference], 95)),
            )
            for name, reference in (("dense", "bare dense"), ("hybrid", "bare lexical"))
        ]
        + [Measurement("recall@10 of bounded lexical candidates", recall, 1.0)]
    )


def main() -> None:
    """Measure and show."""
    parser = arguments(__doc__)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=300)
    options = parser.parse_args()
    with postgres_of_its_own() as settings:
        measurements = measure(settings, options.chunks, options.questions)
        show(f"Search among {options.chunks:,} chunks", measurements, options.json)


if __name__ == "__main__":
    main()
