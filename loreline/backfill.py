"""Texts that an embedding configuration lacks: which they are, how many, and what they will take.

The model `text_embeddings` embeds just these when dbt runs it with the variable `backfill`:

    dbt run --select text_embeddings --vars '{backfill: {embedding_model: …, source: notion}}'
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from loreline.errors import LorelineError

if TYPE_CHECKING:
    import duckdb

    from loreline.embedding import SentenceEncoder
    from loreline.settings import Settings

# Where the tables are, outside of dbt, which knows it by itself.
TABLES = {
    "configurations": "embedding.embedding_configurations",
    "strategies": "knowledge.chunking_configurations",
    "chunks": "knowledge.chunks",
    "documents": "knowledge.documents_current",
    "embeddings": "embedding.text_embeddings",
}

# What of a chunk is embedded: the text that `text_hash` is of, as in the model `text_embeddings`.
EMBEDDED_TEXT = "coalesce(chunks.context, '') || chunks.text"

# A few batches: enough to tell the speed, not enough to be waited for.
SAMPLE_TEXTS = 64

# Texts that were embedded or refused are left out, whoever did it and whenever. Only a backfill of
# everything has what versions before the current one said, and has it last.
PENDING = """
with texts as (
    select
        chunks.text_hash,
        any_value({embedded_text}) as text,
        max(chunks.token_count) as token_count,
        max(documents.source_updated_at) as changed_at,
        count(documents.doc_id) > 0 as is_current
    from {chunks} as chunks
    inner join {strategies} as strategies on chunks.config_hash = strategies.config_hash
    left join {documents} as documents
        on chunks.document_version_id = documents.document_version_id
        and not documents.is_deleted
    where
        ($strategy is null or strategies.chunking_strategy = $strategy)
        and ($source is null or documents.source = $source)
        and ($since is null or documents.source_updated_at >= $since::timestamp)
        and ($documents is null or list_contains($documents::varchar[], documents.doc_id))
    group by chunks.text_hash
)

select texts.text_hash, texts.text, texts.token_count
from texts
anti join (
    select text_hash from {embeddings} where config_hash = $config_hash
) as embedded using (text_hash)
anti join (
    select external_id as text_hash
    from pg.{operations}.quarantine
    where source = 'embedding' and origin = $config_hash
) as refused using (text_hash)
order by texts.is_current desc, texts.changed_at desc nulls last, texts.text_hash
limit $limit
"""


@dataclass(frozen=True)
class Part:
    """Which texts of an embedding configuration are to be embedded; None leaves nothing out.

    Attributes:
        embedding_model: the configuration, served or a candidate.
        chunking_strategy: only chunks of this one.
        source: only documents from here.
        since: only documents that changed from then on, as ISO text in UTC.
        documents: only these, by `doc_id`.
        limit: at most so many texts, those of the newest documents first.
    """

    embedding_model: str
    chunking_strategy: str | None = None
    source: str | None = None
    since: str | None = None
    documents: Sequence[str] | None = None
    limit: int | None = None

    @classmethod
    def from_variables(cls, value: Mapping[str, Any], known: Iterable[str]) -> Part:
        """Read the value of dbt's variable `backfill`.

        Raises:
            LorelineError: it says something else, or names no configuration that is `known`.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(value, Mapping) or not set(value) <= names:
            raise LorelineError(
                f"the variable backfill is {value!r}", f"it takes {', '.join(sorted(names))}"
            )
        known = sorted(known)
        if value.get("embedding_model") not in known:
            raise LorelineError(
                f"there is no embedding model {value.get('embedding_model')} that is not retired",
                f"there are {', '.join(known) or 'none'}",
            )
        return cls(**value)

    def variables(self) -> dict[str, Any]:
        """As the value of dbt's variable `backfill`."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def pending(self, tables: Mapping[str, str], config_hash: str) -> tuple[str, dict[str, Any]]:
        """SQL for text_hash, text and token_count of what is to be embedded, and its parameters.

        Args:
            tables: those of TABLES, and the schema `operations`.
            config_hash: of the embedding configuration.
        """
        return PENDING.format(**tables, embedded_text=EMBEDDED_TEXT), {
            "config_hash": config_hash,
            "strategy": self.chunking_strategy,
            "source": self.source,
            "since": self.since,
            "documents": list(self.documents) if self.documents is not None else None,
            "limit": self.limit if self.limit is not None else 2**62,
        }


@dataclass(frozen=True)
class Plan:
    """What a backfill will do.

    Attributes:
        texts: that are to be embedded.
        tokens: of them, as the chunking strategy counted them.
        tokens_per_second: as a few of them took on this machine; None where there are none.
        cost: in the currency of `model_prices`; None where the model has no price.
    """

    embedding_model: str
    config_hash: str
    texts: int
    tokens: int
    tokens_per_second: float | None = None
    cost: Decimal | None = None

    @property
    def seconds(self) -> float | None:
        """How long it will take."""
        return self.tokens / self.tokens_per_second if self.tokens_per_second else None


def plan(lake: duckdb.DuckDBPyConnection, settings: Settings, part: Part) -> Plan:
    """Count what a backfill will do, and measure how fast this machine is.

    For that a few of the texts are embedded, of which nothing is kept.

    Args:
        lake: with both stores attached.
        settings: the stores.
        part: what is to be embedded.

    Raises:
        LorelineError: there is no such model or strategy.
    """
    tables = {name: f"lake.{settings.prefix}{table}" for name, table in TABLES.items()}
    tables["operations"] = f"{settings.prefix}operations"
    configuration = _one_named(
        lake, tables["configurations"], "embedding_model", part.embedding_model
    )
    if part.chunking_strategy is not None:
        _one_named(lake, tables["strategies"], "chunking_strategy", part.chunking_strategy)
    pending, parameters = part.pending(tables, configuration["config_hash"])
    counted = lake.execute(
        f"select count(*), coalesce(sum(token_count), 0)::bigint from ({pending})",  # noqa: S608
        parameters,
    ).fetchone()
    assert counted is not None
    texts, tokens = counted
    price = lake.execute(
        f"select input_price from lake.{settings.prefix}seeds.model_prices where model = $model",  # noqa: S608
        {"model": configuration["model"]},
    ).fetchone()
    rate = None
    if texts:
        from loreline.embedding import EmbeddingConfiguration, load_encoder

        sample = lake.execute(
            f"select text, token_count from ({pending}) limit {SAMPLE_TEXTS}",  # noqa: S608
            parameters,
        ).fetchall()
        encoder = load_encoder(EmbeddingConfiguration.from_row(configuration), settings)
        rate = tokens_per_second(encoder, sample)
    return Plan(
        part.embedding_model,
        configuration["config_hash"],
        texts,
        tokens,
        rate,
        tokens * Decimal(str(price[0])) / 1_000_000 if price and price[0] is not None else None,
    )


def tokens_per_second(encoder: SentenceEncoder, sample: Sequence[tuple[str, int]]) -> float:
    """The speed at which a model embeds texts, given with their numbers of tokens."""
    texts = sorted((text for text, _ in sample), key=len, reverse=True)
    size = encoder.configuration.batch_size
    # The first batch also pays for what is only done once.
    encoder.encode(texts[:1])
    started = time.perf_counter()
    for start in range(0, len(texts), size):
        encoder.encode(texts[start : start + size])
    return max(sum(tokens for _, tokens in sample), 1) / (time.perf_counter() - started)


def _one_named(
    lake: duckdb.DuckDBPyConnection, table: str, column: str, name: str
) -> dict[str, Any]:
    result = lake.execute(f"from {table} order by {column}")
    columns = [described[0] for described in result.description]
    rows = [dict(zip(columns, row, strict=True)) for row in result.fetchall()]
    for row in rows:
        if row[column] == name:
            return row
    kind = column.replace("_", " ")
    names = ", ".join(row[column] for row in rows) or "none"
    raise LorelineError(f"there is no {kind} {name} that is not retired", f"there are {names}")
