"""Embed each distinct sentence of the documents that a semantic chunking strategy cuts, once."""

from datetime import UTC, datetime

import pyarrow as pa

from loreline.dbt_plugin import new_rows, reader, settings
from loreline.embedding import EmbeddingConfiguration, encode_slices, load_encoder
from loreline.knowledge.chunking import ChunkingConfiguration
from loreline.knowledge.sentence_vectors import gather_sentences

# A commit each.
SENTENCES_PER_SLICE = 8_192
SENTENCES_PER_FETCH = 1_024

SCHEMA = pa.schema(
    [
        ("text_hash", pa.string()),
        ("embedding_model", pa.string()),
        ("config_hash", pa.string()),
        ("embedding", pa.list_(pa.float32())),
        ("reason", pa.string()),
        ("embedded_at", pa.timestamp("us")),
    ]
)


def model(dbt, session):
    """One row per distinct sentence and embedding configuration that a strategy compares by."""
    dbt.config(
        materialized="incremental",
        incremental_strategy="append",
        unique_key=["text_hash", "config_hash"],
        full_refresh=False,
    )
    documents = dbt.ref("documents")
    embedding = dbt.ref("embedding_configurations").to_arrow_table().to_pylist()
    wanted = dbt.ref("chunking_configurations").filter("algorithm = 'semantic'")
    strategies = wanted.to_arrow_table().to_pylist()
    known = f"lake.{dbt.this.schema}.{dbt.this.identifier}" if dbt.is_incremental else None
    return reader(SCHEMA, embedded(session, documents, strategies, embedding, known))


def embedded(session, documents, strategies, embedding, known):
    """Batches of vectors, longest sentences first, so that a batch pads little."""
    for row in embedding:
        config_hash = row["config_hash"]
        wanted = [s for s in strategies if s["sentence_config_hash"] == config_hash]
        if not wanted:
            continue
        session.execute("create or replace temp table gathered (text_hash varchar, text varchar)")
        for strategy in wanted:
            unread = new_rows(documents, variant=strategy["config_hash"]).filter("not is_deleted")
            configuration = ChunkingConfiguration.from_row(strategy)
            gather_sentences(session, unread.sql_query(), configuration)
            session.execute("insert into gathered select distinct text_hash, text from sentences")
        absent = (
            f"anti join (select text_hash from {known} where config_hash = '{config_hash}')"
            " using (text_hash)"
            if known
            else ""
        )
        session.execute(
            "create or replace temp table pending as"
            f" select text_hash, any_value(text) as text from gathered {absent} group by text_hash"
        )
        yield from vectors(session, row)


def vectors(session, row):
    """Batches for what is in `pending`."""
    count = session.execute("select count(*) from pending").fetchone()[0]
    if not count:
        return
    encoder = load_encoder(EmbeddingConfiguration.from_row(row), settings())
    pending = in_slices(session.execute("from pending order by length(text) desc, text_hash"))
    rejected = []
    for batch in encode_slices(
        encoder,
        pending,
        total=count,
        slice_size=SENTENCES_PER_SLICE,
        on_rejected=rejected.extend,
    ):
        columns = {"text_hash": batch.column("text_hash"), "embedding": batch.column("embedding")}
        yield completed(columns, batch.num_rows, row)
    if rejected:
        # Without them nobody knew that they were tried; breakpoints do without their vectors.
        columns = {
            "text_hash": pa.array([text.text_hash for text in rejected]),
            "reason": pa.array([text.reason for text in rejected]),
        }
        yield completed(columns, len(rejected), row)


def in_slices(result):
    """The (hash, text) pairs of a query, some at a time."""
    while rows := result.fetchmany(SENTENCES_PER_FETCH):
        yield from rows


def completed(columns, count, row):
    """A batch with the columns that say what made it."""
    constants = {
        "embedding_model": row["embedding_model"],
        "config_hash": row["config_hash"],
        "embedded_at": datetime.now(UTC).replace(tzinfo=None),
    }
    return pa.RecordBatch.from_arrays(
        [
            columns[field.name].cast(field.type)
            if field.name in columns
            else pa.repeat(pa.scalar(constants.get(field.name), field.type), count)
            for field in SCHEMA
        ],
        schema=SCHEMA,
    )
