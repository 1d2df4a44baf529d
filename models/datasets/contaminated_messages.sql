-- One row per message of an example and text of an evaluation set that it holds.
--
-- Messages are what is said, the arguments of calls with it, and the texts of the system.
-- A text counts as held where a message has a share of its n-grams; a text shorter than an n-gram
-- where a message is that text. Letters and digits are compared, in lower case.
{{ config(materialized="table") }}

{%- set words = regex("([ぁ-ヿ一-鿿]|[\p{L}\p{N}]+)") %}
{#- An item of a word or two, such as "yes", is in nearly everything that is said. -#}
{%- set fewest_words = 4 %}

with settings as (

    select
        cast(max(case when setting = 'ngram_words' then value end) as bigint) as ngram_words,
        cast(max(case when setting = 'overlap_share' then value end) as double) as overlap_share
    from {{ ref("dataset_settings") }}

),

versions as (

    select
        *,
        row_number() over (
            partition by evaluation_set, item_id
            order by
                observed_at desc nulls last,
                raw_batch desc nulls last,
                landed_at desc nulls last
        ) as recency
    from {{ ref("stg_evaluation__items") }}

),

texts as (

    select
        versions.evaluation_set,
        versions.item_id,
        text.position as text_index,
        regexp_extract_all(lower(text.element), {{ words }}, 1) as words
    from versions, {{ unnest_with_position("versions.texts", "text") }}
    where versions.recency = 1 and not versions.is_deleted

),

item_grams as (

    select
        texts.evaluation_set,
        texts.item_id,
        texts.text_index,
        gram.element as gram
    from texts
    cross join settings, {{ unnest_with_position(
        ngrams("texts.words", "settings.ngram_words"), "gram"
    ) }}
    group by texts.evaluation_set, texts.item_id, texts.text_index, gram.element

),

sizes as (

    select
        evaluation_set,
        item_id,
        text_index,
        count(*) as grams
    from item_grams
    group by evaluation_set, item_id, text_index

),

places as (

    {{ message_places(ref("dataset_examples")) }}

),

used as (

    select message_hash
    from places
    where kind <> 'tools'
    group by message_hash

),

-- Without items no message is looked at.
anything as (

    select min(item_id) as any_item
    from texts

),

said as (

    select
        message_hash,
        coalesce(content, '') || ' ' || coalesce(tool_calls, '') as text
    from {{ ref("messages") }}

    union all

    select
        attribute_hash as message_hash,
        min(content) as text
    from {{ ref("request_attributes") }}
    where kind = 'system'
    group by attribute_hash

),

messages_in_words as (

    select
        said.message_hash,
        regexp_extract_all(lower(said.text), {{ words }}, 1) as words
    from said
    inner join used on said.message_hash = used.message_hash
    inner join anything on anything.any_item is not null

),

message_grams as (

    select
        messages_in_words.message_hash,
        gram.element as gram
    from messages_in_words
    cross join settings, {{ unnest_with_position(
        ngrams("messages_in_words.words", "settings.ngram_words"), "gram"
    ) }}

),

matches as (

    select
        message_grams.message_hash,
        item_grams.evaluation_set,
        item_grams.item_id,
        item_grams.text_index,
        count(distinct item_grams.gram) as grams
    from message_grams
    inner join item_grams on message_grams.gram = item_grams.gram
    group by
        message_grams.message_hash,
        item_grams.evaluation_set,
        item_grams.item_id,
        item_grams.text_index

),

held as (

    select
        matches.message_hash,
        matches.evaluation_set,
        matches.item_id,
        matches.text_index,
        {{ ratio("matches.grams", "sizes.grams") }} as overlap
    from matches
    inner join sizes
        on matches.evaluation_set = sizes.evaluation_set
        and matches.item_id = sizes.item_id
        and matches.text_index = sizes.text_index

    union all

    select
        messages_in_words.message_hash,
        texts.evaluation_set,
        texts.item_id,
        texts.text_index,
        cast(1 as double) as overlap
    from texts
    cross join settings
    inner join messages_in_words
        on {{ joined_list("texts.words", " ") }} = {{ joined_list("messages_in_words.words", " ") }}
    where
        {{ list_length("texts.words") }} < settings.ngram_words
        and {{ list_length("texts.words") }} >= {{ fewest_words }}

)

select
    held.message_hash,
    held.evaluation_set,
    held.item_id,
    held.text_index,
    held.overlap
from held
cross join settings
where held.overlap >= settings.overlap_share
