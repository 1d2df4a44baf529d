"""The vectors of documents' sentences, which `semantic` asks for, between lake and chunks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import duckdb
import numpy as np

from loreline.errors import LorelineError
from loreline.knowledge.chunking import ChunkingConfiguration, sentence_texts
from loreline.knowledge.tokens import load_tokenizer

SENTENCES_AT_A_TIME = 2_048

SENTENCES = """
create or replace temp table sentences as
with split as (
    select document_version_id, sentences_of(title, body) as texts
    from ({documents})
)

select
    document_version_id,
    unnest(texts) as text,
    sha256(unnest(texts)) as text_hash,
    generate_subscripts(texts, 1) as position
from split
where len(texts) > 1
"""

# In the order in which documents are cut. A sentence without a usable vector has an empty one.
ORDERED = """
select
    sentences.document_version_id,
    sentences.text,
    known.text_hash is not null as is_known,
    case
        when len(known.embedding) = $dimensions then known.embedding
        else list_resize([]::float[], $dimensions, 'nan'::float)
    end as embedding
from sentences
left join (from {embeddings} where config_hash = $config_hash) as known
    on sentences.text_hash = known.text_hash
order by sentences.document_version_id, sentences.position
"""


def gather_sentences(
    connection: duckdb.DuckDBPyConnection, documents: str, configuration: ChunkingConfiguration
) -> None:
    """Make the temporary table `sentences`, with those of documents that have more than one.

    Its columns are document_version_id, position, text and text_hash; DuckDB keeps it within its
    memory limit.

    Args:
        connection: nothing else may be read from it meanwhile.
        documents: a query that gives document_version_id, title and body.
        configuration: a `semantic` one.
    """
    tokenizer = load_tokenizer(configuration.tokenizer)

    def sentences_of(title: str, body: str) -> list[str]:
        return sentence_texts(body, configuration, tokenizer, title)

    connection.create_function("sentences_of", sentences_of, ["VARCHAR", "VARCHAR"], "VARCHAR[]")
    try:
        connection.execute(SENTENCES.format(documents=documents))
    finally:
        connection.remove_function("sentences_of")


class SentenceVectors:
    """Gives the vectors of one document after the other, in the order of document_version_id.

    Args:
        connection: of its own: nothing else may be read from it meanwhile.
        documents: a query that gives document_version_id, title and body.
        configuration: a `semantic` one.
        embeddings: the table that holds the vectors.
        config_hash: of the embedding configuration.
        dimensions: of a vector.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        documents: str,
        configuration: ChunkingConfiguration,
        embeddings: str,
        config_hash: str,
        dimensions: int,
    ) -> None:
        gather_sentences(connection, documents, configuration)
        ordered = connection.execute(
            ORDERED.format(embeddings=embeddings),
            {"config_hash": config_hash, "dimensions": dimensions},
        )
        self._found = self._read(ordered, dimensions)

    def __call__(self, texts: list[str]) -> np.ndarray:
        """Those of the next document's sentences: shape (texts, dimensions).

        Raises:
            LorelineError: one was not embedded.
        """
        found = list(islice(self._found, len(texts)))
        # One sentence more or less, and each later document would be cut by another one's vectors.
        assert [text for text, _ in found] == texts, "other sentences than those that were gathered"
        return np.stack([vector for _, vector in found])

    def _read(
        self, ordered: duckdb.DuckDBPyConnection, dimensions: int
    ) -> Iterator[tuple[str, np.ndarray]]:
        for batch in ordered.to_arrow_reader(SENTENCES_AT_A_TIME):
            if not all(batch.column("is_known").to_pylist()):
                raise LorelineError(
                    "sentences of new documents have no vectors",
                    "embed them first: loreline build --select sentence_embeddings+",
                )
            vectors = batch.column("embedding").flatten().to_numpy().reshape(-1, dimensions)
            yield from zip(batch.column("text").to_pylist(), vectors, strict=True)
