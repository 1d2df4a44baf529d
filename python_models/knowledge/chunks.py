"""Cut document versions into chunks, under every configuration that is not retired."""

import hashlib
from dataclasses import fields

import pyarrow as pa

from loreline.dbt_plugin import new_rows, reader
from loreline.knowledge.chunking import ChunkingConfiguration, chunk
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
        ("text_hash", pa.string()),
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
    return reader(SCHEMA, chunked(documents, configurations))


def chunked(documents, configurations):
    """Batches of chunks, each with all the chunks of up to DOCUMENTS_PER_SLICE versions."""
    for row in configurations:
        names = [field.name for field in fields(ChunkingConfiguration)]
        configuration = ChunkingConfiguration(**{name: row[name] for name in names})
        unread = new_rows(documents, variant=row["config_hash"]).filter("not is_deleted")
        tokenizer = load_tokenizer(configuration.tokenizer)
        columns = "doc_id, document_version_id, body"
        for batch in unread.project(columns).to_arrow_reader(DOCUMENTS_PER_SLICE):
            rows = [
                chunk_row(document, piece, row)
                for document in batch.to_pylist()
                for piece in chunk(document["body"], configuration, tokenizer)
            ]
            yield pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


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
        "text_hash": sha256_hex(piece.text),
        "start_char": piece.start_char,
        "end_char": piece.end_char,
        "token_count": piece.token_count,
        "heading_path": list(piece.heading_path),
    }


def sha256_hex(text):
    """The same as the macro of this name."""
    return hashlib.sha256(text.encode()).hexdigest()
