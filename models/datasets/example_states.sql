-- One row per example: what its text is once it is fit for training, and what speaks against it.
{{ config(materialized="table") }}

with places as (

    select
        examples.example_id,
        'prompt' as part,
        message.element as message_hash,
        message.position as place
    from {{ ref("dataset_examples") }} as examples,
        {{ unnest_with_position("examples.prompt_hashes", "message") }}
    {% for part in ["completion", "rejected"] %}
    union all

    select
        example_id,
        '{{ part }}' as part,
        {{ part }}_hash as message_hash,
        {{ list_length("prompt_hashes") }} + {{ loop.index }} as place
    from {{ ref("dataset_examples") }}
    where {{ part }}_hash is not null
    {% endfor %}
),

texts as (

    select
        training.message_hash,
        training.text_hash,
        training.is_usable
    from {{ ref("training_messages") }} as training
    inner join {{ ref("training_text_variants") }} as variants
        on training.config_hash = variants.config_hash
    where training.kind = 'message'

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
            "coalesce(texts.text_hash, '')", " ", "places.place"
        )) }} as content_hash,
        bool_and(texts.message_hash is not null) as is_complete,
        bool_and(coalesce(texts.is_usable, true)) as is_usable,
        max(case when places.part = 'completion' then texts.text_hash end) as completion,
        max(case when places.part = 'rejected' then texts.text_hash end) as rejected,
        min(contaminated.evaluation_item) as evaluation_item
    from places
    left join texts on places.message_hash = texts.message_hash
    left join contaminated on places.message_hash = contaminated.message_hash
    group by places.example_id

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
    end as problem,
    summed.evaluation_item
from {{ ref("dataset_examples") }} as examples
inner join summed on examples.example_id = summed.example_id
