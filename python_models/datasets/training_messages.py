"""Make the messages of examples fit for training, each once per configuration."""

import pyarrow as pa

from loreline.datasets.training_text import (
    minhashes,
    redact,
    text_hash,
    training_messages,
)
from loreline.dbt_plugin import is_empty_run, reader, table_name
from loreline.knowledge.tokens import load_tokenizer
from loreline.redaction import Redactor, Rule

# A commit: what a killed run may lose. Messages may be long, so that their length counts, too.
MESSAGES_PER_COMMIT = 20_000
CHARACTERS_PER_COMMIT = 16_000_000
MESSAGES_PER_FETCH = 500

SCHEMA = pa.schema(
    [
        ("message_hash", pa.string()),
        ("part", pa.int64()),
        ("config_hash", pa.string()),
        ("kind", pa.string()),
        ("role", pa.string()),
        ("message", pa.string()),
        ("content", pa.string()),
        ("text_hash", pa.string()),
        ("has_calls", pa.bool_()),
        ("before_message", pa.int64()),
        ("is_usable", pa.bool_()),
        ("redactions", pa.list_(pa.string())),
        ("character_count", pa.int64()),
        ("token_count", pa.int64()),
        ("minhash", pa.binary()),
    ]
)

# What examples are made of, as far as it is not there under this configuration.
PENDING = """
with wanted as (
    select unnest(prompt_hashes) as message_hash, 'message' as kind from {examples}
    union
    select completion_hash, 'message' from {examples}
    union
    select rejected_hash, 'message' from {examples}
    union
    select system_hash, 'system' from {examples}
    union
    select tools_hash, 'tools' from {examples}
)
select
    wanted.kind,
    messages.message_hash,
    messages.role,
    messages.content,
    messages.name,
    messages.tool_calls,
    messages.tool_call_id
from wanted
inner join {messages} as messages using (message_hash)
{absent}
where wanted.kind = 'message'
union all
select
    wanted.kind,
    wanted.message_hash,
    null,
    any_value(attributes.content),
    null,
    null,
    null
from wanted
inner join {attributes} as attributes
    on wanted.message_hash = attributes.attribute_hash
    and wanted.kind = attributes.kind
{absent}
group by wanted.kind, wanted.message_hash
"""


def model(dbt, session):
    """One row per message, text of a system or list of tools, and configuration."""
    dbt.config(
        materialized="incremental",
        incremental_strategy="append",
        unique_key=["message_hash", "part", "config_hash"],
        full_refresh=False,
    )
    tables = {
        "examples": table_name(dbt.ref("dataset_examples")),
        "messages": table_name(dbt.ref("messages")),
        "attributes": table_name(dbt.ref("request_attributes")),
    }
    variants = dbt.ref("training_text_variants").to_arrow_table().to_pylist()
    rules = dbt.ref("redaction_rules").filter("is_active").order("position, rule")
    rules = [
        Rule(row["rule"], row["pattern"], row["replacement"] or "")
        for row in rules.to_arrow_table().to_pylist()
    ]
    known = f"lake.{dbt.this.schema}.{dbt.this.identifier}" if dbt.is_incremental else None
    return reader(SCHEMA, made_fit(session, tables, variants, rules, known))


def made_fit(session, tables, variants, rules, known):
    """Batches of messages."""
    if is_empty_run():
        return
    redactor = Redactor(rules)
    for variant in variants:
        absent = (
            f"anti join (select message_hash from {known}"
            f" where config_hash = '{variant['config_hash']}') as known"
            " on wanted.message_hash = known.message_hash"
            if known
            else ""
        )
        tokenizer = load_tokenizer(variant["tokenizer"])
        result = session.execute(PENDING.format(**tables, absent=absent))
        for messages in in_batches(result):
            redact(messages, redactor)
            yield rows(messages, variant, tokenizer)


def in_batches(result):
    """The messages of a query, some at a time."""
    names = [column[0] for column in result.description]
    batch, characters = [], 0
    while found := result.fetchmany(MESSAGES_PER_FETCH):
        for row in found:
            for message in training_messages(dict(zip(names, row, strict=True))):
                batch.append(message)
                characters += sum(map(len, message.texts))
        if len(batch) >= MESSAGES_PER_COMMIT or characters >= CHARACTERS_PER_COMMIT:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def rows(messages, variant, tokenizer):
    """A batch of rows."""
    texts = ["\n".join(message.texts) for message in messages]
    tokens = [count - tokenizer.special_tokens for count in tokenizer.counts(texts)]
    fingerprints = minhashes(
        texts, words=variant["shingle_words"], permutations=variant["permutations"]
    )
    columns = {
        **{
            name: [getattr(message, name) for message in messages]
            for name in (
                *("message_hash", "part", "kind", "role", "before_message", "is_usable"),
                "redactions",
            )
        },
        "config_hash": [variant["config_hash"]] * len(messages),
        "message": [message.as_json() for message in messages],
        "content": [message.texts[0] for message in messages],
        "text_hash": [text_hash(message) for message in messages],
        "has_calls": [message.calls is not None for message in messages],
        "character_count": [len(text) for text in texts],
        "token_count": tokens,
        "minhash": [row.tobytes() for row in fingerprints],
    }
    return pa.RecordBatch.from_arrays(
        [pa.array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA
    )
