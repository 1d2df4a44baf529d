-- One row per question whose answer is to be forgotten, or retained beside it.
{{ config(materialized="table") }}

with {{ rendered_examples("unlearning") }},

{{ judged_trajectories() }}

select
    rendered.example_id,
    rendered.question,
    rendered.answer,
    rendered.partition,
    rendered.split,
    rendered.tenant,
    rendered.theme_id,
    rendered.model,
    rendered.stratum,
    rendered.selection,
    coalesce(judged.labels, {{ list_of([]) }}) as labels,
    rendered.prompt_tokens + rendered.completion_tokens as token_count,
    rendered.redactions,
    {{ provenance("trajectory_id") }} as provenance
from rendered
left join judged on rendered.example_id = judged.example_id
