-- One row: how messages are made fit for training now, under the hash of all that shapes them.
{{ config(materialized="table") }}

with settings as (

    select
        max(case when setting = 'tokenizer' then value end) as tokenizer,
        max(case when setting = 'shingle_words' then value end) as shingle_words,
        max(case when setting = 'permutations' then value end) as permutations
    from {{ ref("dataset_settings") }}

),

redactions as (

    select {{ ordered_string_agg(
        "rule || chr(31) || pattern || chr(31) || coalesce(replacement, '')", ";",
        "cast(1000000 + position as string) || ' ' || rule"
    ) }} as rules
    from {{ ref("redaction_rules") }}
    where is_active

)

select
    settings.tokenizer,
    cast(settings.shingle_words as bigint) as shingle_words,
    cast(settings.permutations as bigint) as permutations,
    {{ sha256_hex(
        "settings.tokenizer || chr(31) || settings.shingle_words"
        ~ " || chr(31) || settings.permutations || chr(31) || redactions.rules"
        ~ " || chr(31) || '" ~ var("training_text_version") ~ "'"
    ) }} as config_hash
from settings
cross join redactions
