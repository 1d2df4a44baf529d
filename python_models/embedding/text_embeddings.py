"""Embed each distinct text once per configuration, in slices that survive a kill."""

import time
from datetime import UTC, datetime

import pyarrow as pa

from loreline.backfill import Part
from loreline.dbt_plugin import (
    is_empty_run,
    new_rows,
    reader,
    settings,
    table_name,
    variable,
)
from loreline.embedding import EmbeddingConfiguration, encode_slices, load_encoder
from loreline.postgres import connect

TEXTS_PER_SLICE = 2_048
# A commit: what a killed run may lose against the files that every later query has to open.
SECONDS_PER_COMMIT = 30
TEXTS_PER_COMMIT = 8 * TEXTS_PER_SLICE

SCHEMA = pa.schema(
    [
        ("text_hash", pa.string()),
        ("embedding_model", pa.string()),
        ("config_hash", pa.string()),
        ("dimensions", pa.int64()),
        ("embedding", pa.list_(pa.float32())),
        ("vector_sha256", pa.string()),
        ("halfvec_sha256", pa.string()),
        ("embedded_at", pa.timestamp("us")),
    ]
)


def model(dbt, session):
    """One row per distinct text and embedding configuration: a text is embedded once.

    With the variable `backfill`, just the texts that it names are embedded: what they leave out the
    next run without it finds, because no watermark moves.
    """
    dbt.config(
        materialized="incremental",
        incremental_strategy="append",
        unique_key=["text_hash", "config_hash"],
        full_refresh=False,
    )
    # A deleted window says nothing any more, one of an incomplete trajectory not yet.
    texts = {"chunks": dbt.ref("chunks"), "trajectory_texts": dbt.ref("trajectory_texts")}
    is_said = {"chunks": "true", "trajectory_texts": "is_complete and not is_deleted"}
    # What is put in front of a chunk is embedded with it.
    said = {"chunks": "coalesce(context, '') || text", "trajectory_texts": "text"}
    configurations = dbt.ref("embedding_configurations").to_arrow_table().to_pylist()
    known = f"lake.{dbt.this.schema}.{dbt.this.identifier}" if dbt.is_incremental else None
    tables = {
        "chunks": table_name(texts["chunks"]),
        "strategies": table_name(dbt.ref("chunking_configurations")),
        "documents": table_name(dbt.ref("documents_current")),
        "embeddings": known,
        "operations": f"{settings().prefix}operations",
    }
    if value := variable("backfill"):
        part = Part.from_variables(value, [row["embedding_model"] for row in configurations])
        batches = backfilled(session, part, configurations, tables)
    else:
        batches = embedded(session, texts, is_said, said, configurations, known)
    return reader(SCHEMA, gathered(batches))


def backfilled(session, part, configurations, tables):
    """Batches of embeddings of the texts of a part, newest documents first."""
    # Nothing was embedded yet: an empty table of the same name.
    known = tables["embeddings"] or "(select null as text_hash, null as config_hash)"
    for row in configurations:
        if row["embedding_model"] != part.embedding_model or is_empty_run():
            continue
        pending, parameters = part.pending({**tables, "embeddings": known}, row["config_hash"])
        session.execute(
            "create or replace temp table pending as select text_hash, text,"
            f" row_number() over () as place from ({pending})",
            parameters,
        )
        yield from encoded(session, row, "place")


def embedded(session, texts, is_said, said, configurations, known):
    """Batches of embeddings of what is new, longest texts first, so that a batch pads little.

    Every configuration embeds the texts of every table; where equal ones come from does not matter.
    """
    operations = f"{settings().prefix}operations"
    for row in configurations:
        for name, table in texts.items():
            unread = new_rows(table, variant=row["config_hash"]).filter(is_said[name])
            unread.project(f"text_hash, {said[name]} as text").create_view(
                f"unread_{name}", replace=True
            )
        unread = " union all ".join(f"from unread_{name}" for name in texts)
        absent = (
            f"anti join (select text_hash from {known} where config_hash = '{row['config_hash']}')"
            " using (text_hash)"
            if known
            else ""
        )
        # What was refused once would be again: the same text, model and limits.
        refused = (
            f"anti join (select external_id as text_hash from pg.{operations}.quarantine"
            f" where source = 'embedding' and origin = '{row['config_hash']}') using (text_hash)"
        )
        session.execute(
            "create or replace temp table pending as"
            f" select text_hash, any_value(text) as text from ({unread}) {absent} {refused}"
            " group by text_hash"
        )
        yield from encoded(session, row, "length(text) desc, text_hash")


def encoded(session, row, order):
    """Batches of embeddings of the texts in `pending`, in this order."""
    count = session.execute("select count(*) from pending").fetchone()[0]
    if not count:
        return
    texts = session.execute(f"select text_hash, text from pending order by {order}")
    slices = encode_slices(
        load_encoder(EmbeddingConfiguration.from_row(row), settings()),
        in_slices(texts),
        total=count,
        slice_size=TEXTS_PER_SLICE,
        on_rejected=lambda rejected: set_aside(rejected, row),
    )
    for batch in slices:
        yield completed(batch, row)


def gathered(batches):
    """Slices put together as long as that takes seconds: a fast encoder makes few large commits."""
    waiting, since = [], time.monotonic()
    for batch in batches:
        waiting.append(batch)
        count = sum(part.num_rows for part in waiting)
        if count >= TEXTS_PER_COMMIT or time.monotonic() - since >= SECONDS_PER_COMMIT:
            yield pa.concat_batches(waiting)
            waiting, since = [], time.monotonic()
    if waiting:
        yield pa.concat_batches(waiting)


def set_aside(rejected, configuration):
    """Show the texts without a usable vector where rejected input is shown."""
    # dlt takes half a second to import, and is hardly ever needed here.
    from dlt_sources.objects import ObjectStore
    from dlt_sources.quarantine import Quarantine, Reject

    with connect(settings(), autocommit=True) as connection:
        quarantine = Quarantine(settings(), "embedding", connection, ObjectStore(settings()))
        for text in rejected:
            quarantine.add(
                Reject(
                    reason="no_usable_vector",
                    detail=text.reason,
                    raw=f"{text.text_hash} {configuration['config_hash']}".encode(),
                    origin=configuration["config_hash"],
                    resource="text_embeddings",
                    external_id=text.text_hash,
                )
            )
        quarantine.flush()


def in_slices(result):
    """The (hash, text) pairs of a query, some at a time."""
    while rows := result.fetchmany(TEXTS_PER_SLICE):
        yield from rows


def completed(batch, configuration):
    """The encoder's batch with the columns that say what made it."""
    constants = {
        "embedding_model": configuration["embedding_model"],
        "config_hash": configuration["config_hash"],
        "dimensions": configuration["dimensions"],
        "embedded_at": datetime.now(UTC).replace(tzinfo=None),
    }
    columns = [
        pa.repeat(pa.scalar(constants[field.name], field.type), batch.num_rows)
        if field.name in constants
        else batch.column(field.name).cast(field.type)
        for field in SCHEMA
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
