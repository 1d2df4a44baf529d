{# One row per message of each example of a relation, with its part, kind and place.

   `part` is prompt, completion, rejected or tools, `kind` what training_messages calls it; places
   count from 0, both answers of a pair have the place after the prompt. #}
{% macro message_places(relation) -%}
    select
        examples.example_id,
        'prompt' as part,
        'message' as kind,
        message.element as message_hash,
        message.position - 1 as place
    from {{ relation }} as examples,
        {{ unnest_with_position("examples.prompt_hashes", "message") }}
    {% for part, kind, hash in [
        ("completion", "message", "completion_hash"),
        ("rejected", "message", "rejected_hash"),
        ("prompt", "system", "system_hash"),
        ("tools", "tools", "tools_hash"),
    ] %}
    union all

    -- Zeros stand for none.
    select
        example_id,
        '{{ part }}' as part,
        '{{ kind }}' as kind,
        {{ hash }} as message_hash,
        {{ list_length("prompt_hashes") }} as place
    from {{ relation }}
    where {{ hash }} <> '{{ "0" * 32 }}'
    {% endfor %}
{%- endmacro %}
