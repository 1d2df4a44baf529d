"""Coverage of many documents under many configurations, asked of a lake and Postgres as they are.

    python -m benchmarks.coverage [--documents 100000] [--rounds 3] [--json FILE]

Three embedding models with four chunking strategies are twelve configurations, of which eight are
served; each strategy cuts a document into three chunks. One document in a hundred lacks a vector,
and of one in a thousand a text was refused. The tables are written in a stack of its own, with
everything that the query reads; vectors have 8 dimensions, because none is read.
"""

from __future__ import annotations

import json
import os
import resource
import tempfile
import time
from pathlib import Path

from benchmarks.sandbox import Measurement, arguments, show
from loreline import stack
from loreline.lake import duck
from loreline.postgres import connect
from loreline.serving.coverage import coverage
from loreline.settings import Settings

SECONDS_WANTED = 5.0

TABLES = """
create schema if not exists lake.knowledge;
create schema if not exists lake.embedding;
create schema if not exists lake.serving;

create table lake.embedding.embedding_configurations as
select
    'model ' || n as embedding_model, sha256('model ' || n) as config_hash,
    case when n = 2 then 'candidate' else 'served' end as status,
    case when n = 1 then 'halfvec' else 'vector' end as storage
from range(3) as models (n);

create table lake.knowledge.chunking_configurations as
select
    'strategy ' || n as chunking_strategy, sha256('strategy ' || n) as config_hash,
    'served' as status
from range(4) as strategies (n);

create table lake.knowledge.documents_current as
select
    ['notion', 'slack', 'linear', 'google_docs'][1 + n % 4] || ':' || uuid() as doc_id,
    sha256('version of ' || n) as document_version_id,
    ['notion', 'slack', 'linear', 'google_docs'][1 + n % 4] as source,
    'Document number ' || n as title, false as is_deleted, false as is_blank, n
from range({documents}) as documents (n);

create table lake.knowledge.chunks as
select
    sha256('chunk ' || strategies.config_hash || n || '/' || part) as chunk_id,
    documents.doc_id, documents.document_version_id, strategies.config_hash,
    sha256('text ' || strategies.config_hash || n || '/' || part) as text_hash,
    repeat('What a part of document ' || n || ' says. ', 10) as text, n,
    cast(1 as bigint) as _batch
from lake.knowledge.documents_current as documents
cross join lake.knowledge.chunking_configurations as strategies
cross join range(3) as parts (part);

create table lake.embedding.text_embeddings as
select
    chunks.text_hash, models.config_hash,
    [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]::float[] as embedding,
    sha256(models.config_hash || chunks.text_hash) as vector_sha256,
    sha256(chunks.text_hash || models.config_hash) as halfvec_sha256
from lake.knowledge.chunks as chunks
cross join lake.embedding.embedding_configurations as models
where chunks.n % 100 <> 0;

create table lake.serving.vector_manifest as
select
    models.embedding_model || '__' || strategies.chunking_strategy as vector_collection,
    chunks.chunk_id, chunks.doc_id, chunks.document_version_id,
    sha256(chunks.chunk_id) as fingerprint, false as is_deleted, cast(2 as bigint) as _batch
from lake.knowledge.chunks as chunks
inner join lake.knowledge.chunking_configurations as strategies using (config_hash)
cross join lake.embedding.embedding_configurations as models
where models.status = 'served' and chunks.n % 100 <> 0;
"""

COLLECTIONS = """
insert into serving.collections (
    vector_collection, embedding_model, chunking_strategy, config_hash, embedding_config_hash,
    chunking_config_hash, storage, dimensions, text_search_config, status, pushed_batch
)
values (%s, %s, %s, %s, %s, %s, %s, 8, 'english', 'served', 2)
"""

REFUSED = """
insert into operations.quarantine (
    fingerprint, source, resource, external_id, reason, detail, origin
)
values (%s, 'embedding', 'text_embeddings', %s, 'no_usable_vector', '300 tokens', %s)
"""


def fill(settings: Settings, documents: int) -> None:
    """Write the tables that coverage reads."""
    with duck.connect(settings, read_only=False) as lake:
        for statement in TABLES.format(documents=documents).split(";\n\n"):
            lake.execute(statement)
        collections = lake.execute(
            "select models.embedding_model || '__' || strategies.chunking_strategy,"
            " models.embedding_model, strategies.chunking_strategy,"
            " models.config_hash || strategies.config_hash, models.config_hash,"
            " strategies.config_hash, models.storage"
            " from lake.embedding.embedding_configurations as models"
            " cross join lake.knowledge.chunking_configurations as strategies"
            " where models.status = 'served'"
        ).fetchall()
        refused = lake.execute(
            "select row_number() over (), text_hash, models.config_hash"
            " from lake.knowledge.chunks"
            " cross join lake.embedding.embedding_configurations as models where n % 1000 = 0"
        ).fetchall()
    with connect(settings) as connection, connection.cursor() as cursor:
        cursor.executemany(COLLECTIONS, collections)
        cursor.executemany(REFUSED, refused)


def measure(settings: Settings, documents: int, rounds: int) -> list[Measurement]:
    """Seconds from an attached lake to the grid; the best round counts."""
    seconds = []
    for _ in range(rounds):
        with duck.connect(settings.as_reader()) as lake:
            started = time.perf_counter()
            cells = coverage(lake, settings).cells()
            seconds.append(time.perf_counter() - started)
    assert sum(cell.total for cell in cells) == 12 * documents
    assert sum(cell.failed for cell in cells) == 12 * -(-documents // 1_000)
    assert sum(cell.built for cell in cells) == 12 * (documents - -(-documents // 100))
    return [
        Measurement("seconds", min(seconds), target=SECONDS_WANTED, is_limit=True),
        Measurement("seconds, slowest round", max(seconds)),
        Measurement("memory in MB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    ]


def main() -> None:
    """Measure and show."""
    parser = arguments(__doc__)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="loreline-benchmark-") as folder:
        home = Path(folder)
        os.environ |= {"LORELINE_HOME": folder, "LORELINE_TARGET": "local"}
        try:
            stack.up(home)
            variables = json.loads((home / "stack.json").read_text())["variables"]
            os.environ |= variables
            settings = Settings.load()
            fill(settings, options.documents)
            measurements = measure(settings, options.documents, options.rounds)
            show(
                f"Coverage of {options.documents:,} documents under 12 configurations",
                measurements,
                options.json,
            )
        finally:
            stack.down(home)


if __name__ == "__main__":
    main()
