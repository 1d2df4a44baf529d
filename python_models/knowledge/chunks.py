"""Cut document versions into chunks, under every configuration that is not retired."""

import hashlib

import pyarrow as pa

from loreline.dbt_plugin import new_rows, reader, table_name
from loreline.errors import LorelineError
from loreline.knowledge.chunking import ChunkingConfiguration, chunk
from loreline.knowledge.sentence_vectors import SentenceVectors
from loreline.knowledge.tokens import load_tokenizer

DOCUMENTS_PER_SLICE = 2_000

SCHEMA = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("doc_id", pa.string()),
        ("document_version_id", pa.string()),
        ("chunking_strategy", pa.string()),
        ("config_hash", pa.string()),
        ("chunk_index", pa.int64()),
        ("text", pa.string()),
        ("context", pa.string()),
        ("text_hash", pa.string()),
        ("shown_text_hash", pa.string()),
        ("start_char", pa.int64()),
        ("end_char", pa.int64()),
        ("token_count", pa.int64()),
        ("heading_path", pa.list_(pa.string())),
    ]
)


def model(dbt, session):
    """One row per chunk of a document version, for each configuration that has not seen it."""
    dbt.config(
        materialized="incremental",
        incremental_strategy="append",
        unique_key="chunk_id",
    )
    documents = dbt.ref("documents")
    configurations = dbt.ref("chunking_configurations").to_arrow_table().to_pylist()
    embedding = dbt.ref("embedding_configurations").to_arrow_table().to_pylist()
    sentences = table_name(dbt.ref("sentence_embeddings"))
    return reader(SCHEMA, chunked(session, documents, configurations, embedding, sentences))


def chunked(session, documents, configurations, embedding, sentences):
    """Batches of chunks, each with all the chunks of up to DOCUMENTS_PER_SLICE versions."""
    for row in configurations:
        configuration = ChunkingConfiguration.from_row(row)
        unread = new_rows(documents, variant=row["config_hash"]).filter("not is_deleted")
        tokenizer = load_tokenizer(configuration.tokenizer)
        wanted = unread.project("doc_id, document_version_id, title, body")
        vectors = None
        if configuration.sentence_model:
            wanted = wanted.order("document_version_id")
            vectors = sentence_vectors(session, wanted, configuration, row, embedding, sentences)
        for batch in wanted.to_arrow_reader(DOCUMENTS_PER_SLICE):
            rows = [
                chunk_row(document, piece, row)
                for document in batch.to_pylist()
                for piece in chunk(
                    document["body"], configuration, tokenizer, document["title"], vectors
                )
            ]
            yield pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


def sentence_vectors(session, documents, configuration, row, embedding, sentences):
    """The vectors of the sentences of documents, from the table of them."""
    models = {model["config_hash"]: model for model in embedding}
    model = models.get(row["sentence_config_hash"])
    if model is None:
        raise LorelineError(
            f"chunking strategy {configuration.chunking_strategy!r} names the sentence_model"
            f" {configuration.sentence_model!r}, which is none or is retired",
            "name one of the seed embedding_models",
        )
    # A cursor of its own: another query would end the reading of documents.
    return SentenceVectors(
        session.cursor(),
        documents.sql_query(),
        configuration,
        sentences,
        model["config_hash"],
        model["dimensions"],
    )


def chunk_row(document, piece, configuration):
    """One row of the table."""
    identity = (
        f"{document['document_version_id']}:{configuration['config_hash']}:{piece.chunk_index}"
    )
    return {
        "chunk_id": sha256_hex(identity),
        "doc_id": document["doc_id"],
        "document_version_id": document["document_version_id"],
        "chunking_strategy": configuration["chunking_strategy"],
        "config_hash": configuration["config_hash"],
        "chunk_index": piece.chunk_index,
        "text": piece.text,
        "context": piece.context,
        "text_hash": sha256_hex(piece.embedded_text),
        "shown_text_hash": sha256_hex(piece.text),
        "start_char": piece.start_char,
        "end_char": piece.end_char,
        "token_count": piece.token_count,
        "heading_path": list(piece.heading_path),
    }


def sha256_hex(text):
    """The same as the macro of this name."""
    return hashlib.sha256(text.encode()).hexdigest()
