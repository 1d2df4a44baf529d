{# CTEs that end in `rendered`: the examples of a dataset that are in it, with what they say.

   Columns: those of dataset_examples and example_decisions; prompt, completion and rejected as
   messages side by side, JSON without the brackets of a list; question and answer, what is asked
   last and answered, as text; tools; tokens, characters and redactions. #}
{% macro rendered_examples(dataset) -%}
  chosen as (

    select
        examples.*,
        decisions.split,
        decisions.split_group
    from {{ ref("dataset_examples") }} as examples
    inner join {{ ref("example_decisions") }} as decisions
        on examples.example_id = decisions.example_id
    where examples.dataset = '{{ dataset }}' and decisions.exclusion is null

  ),

  texts as (

    select training.*
    from {{ ref("training_messages") }} as training
    inner join {{ ref("training_text_variants") }} as variants
        on training.config_hash = variants.config_hash

  ),

  places as (

    {{ message_places("chosen") }}

  ),

  said as (

    select
        places.example_id,
        places.part,
        places.kind,
        texts.role,
        texts.message,
        texts.content,
        texts.character_count,
        texts.token_count,
        texts.redactions,
        -- A system's text stands before the message that it was before.
        2 * coalesce(texts.before_message, places.place)
        + case when places.kind = 'system' then 0 else 1 end as line,
        texts.part as line_part,
        max(case when texts.has_calls then places.place end) over (
            partition by places.example_id, places.part
            order by places.place asc nulls last
            rows between unbounded preceding and current row
        ) as last_calls
    from places
    inner join texts
        on places.message_hash = texts.message_hash
        and places.kind = texts.kind

  ),

  lines as (

    select
        example_id,
        part,
        kind,
        role,
        content,
        character_count,
        token_count,
        -- Which answer's calls a result belongs to is known by its place.
        replace(message, chr(1), cast(coalesce(last_calls, 0) as string)) as message,
        1000 * line + line_part as line
    from said

  ),

  joined_lines as (

    select
        example_id,
        {% for part in ["prompt", "completion", "rejected"] -%}
        {{ ordered_string_agg(
            "case when part = '" ~ part ~ "' then message end", ",", "line"
        ) }} as {{ part }},
        cast(
            sum(case when part = '{{ part }}' then token_count else 0 end) as bigint
        ) as {{ part }}_tokens,
        cast(
            sum(case when part = '{{ part }}' then character_count else 0 end) as bigint
        ) as {{ part }}_characters,
        {% endfor -%}
        max(case when part = 'tools' then message end) as tools,
        {{ arg_max("content", "case when part = 'prompt' and role = 'user' then line end") }}
            as question,
        max(case when part = 'completion' then content end) as answer
    from lines
    group by example_id

  ),

  finds as (

    select
        said.example_id,
        redaction.element as rule,
        count(*) as finds
    from said, {{ unnest_with_position("said.redactions", "redaction") }}
    group by said.example_id, redaction.element

  ),

  redactions as (

    select
        example_id,
        '{' || {{ ordered_string_agg(
            json_quoted("rule") ~ " || ':' || cast(finds as string)", ",", "rule"
        ) }} || '}' as redactions
    from finds
    group by example_id

  ),

  rendered as (

    select
        chosen.*,
        joined_lines.prompt,
        joined_lines.completion,
        joined_lines.rejected,
        joined_lines.question,
        joined_lines.answer,
        joined_lines.tools,
        joined_lines.prompt_tokens,
        joined_lines.completion_tokens,
        joined_lines.rejected_tokens,
        joined_lines.completion_characters,
        joined_lines.rejected_characters,
        coalesce(redactions.redactions, '{}') as redactions
    from chosen
    inner join joined_lines on chosen.example_id = joined_lines.example_id
    left join redactions on chosen.example_id = redactions.example_id

  )
{%- endmacro %}
