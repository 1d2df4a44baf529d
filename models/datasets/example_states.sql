-- One row per example: what its text is once it is fit for training, and what speaks against it.
{{ config(materialized="table") }}

with places as (

    {{ message_places(ref("dataset_examples")) }}

),

texts as (

    select
        training.message_hash,
        training.kind,
        min(training.text_hash) as text_hash,
        bool_and(training.is_usable) as is_usable
    from {{ ref("training_messages") }} as training
    inner join {{ ref("training_text_variants") }} as variants
        on training.config_hash = variants.config_hash
    group by training.message_hash, training.kind

),

contaminated as (

    select
        message_hash,
        min(evaluation_set || ' ' || item_id) as evaluation_item
    from {{ ref("contaminated_messages") }}
    group by message_hash

),

summed as (

    select
        places.example_id,
        {{ short_hash(ordered_string_agg(
            "case when places.kind = 'message' then coalesce(texts.text_hash, '') end",
            " ",
            "2 * places.place + case when places.part = 'rejected' then 1 else 0 end",
        )) }} as content_hash,
        bool_and(texts.message_hash is not null) as is_complete,
        bool_and(coalesce(texts.is_usable, true)) as is_usable,
        max(case when places.part = 'completion' then texts.text_hash end) as completion,
        max(case when places.part = 'rejected' then texts.text_hash end) as rejected,
        min(contaminated.evaluation_item) as evaluation_item
    from places
    left join texts
        on places.message_hash = texts.message_hash
        and places.kind = texts.kind
    left join contaminated on places.message_hash = contaminated.message_hash
    group by places.example_id

),

-- What says the same as something that nobody wants again; the same answer may have been judged
-- in one place only.
unwanted as (

    select
        examples.tenant,
        summed.content_hash,
        min(examples.example_id) as example_id
    from {{ ref("dataset_examples") }} as examples
    inner join summed on examples.example_id = summed.example_id
    where examples.dataset = 'suppression'
    group by examples.tenant, summed.content_hash

)

select
    examples.example_id,
    examples.dataset,
    examples.tenant,
    examples.example_rank,
    summed.content_hash,
    case
        when not summed.is_complete then 'incomplete'
        when not summed.is_usable then 'not text'
        when summed.completion = summed.rejected then 'same answers'
        when summed.evaluation_item is not null then 'in an evaluation set'
        when unwanted.example_id is not null then 'unwanted elsewhere'
    end as problem,
    coalesce(summed.evaluation_item, unwanted.example_id) as because_of
from {{ ref("dataset_examples") }} as examples
inner join summed on examples.example_id = summed.example_id
left join unwanted
    on examples.dataset = 'sft'
    and examples.tenant = unwanted.tenant
    and summed.content_hash = unwanted.content_hash
