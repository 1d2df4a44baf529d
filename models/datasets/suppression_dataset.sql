-- One row per answer that nobody wants again: for TRL's KTOTrainer.
{{ config(materialized="table") }}

with {{ rendered_examples("suppression") }},

{{ judged_trajectories() }}

select
    rendered.example_id,
    {{ message_list("rendered.prompt") }} as prompt,
    {{ message_list("rendered.completion") }} as completion,
    false as label,
    rendered.selection as negative_type,
    rendered.tools,
    rendered.split,
    rendered.tenant,
    rendered.theme_id,
    rendered.model,
    rendered.stratum,
    -rendered.strength as score,
    coalesce(judged.labels, {{ list_of([]) }}) as labels,
    rendered.prompt_tokens + rendered.completion_tokens as token_count,
    rendered.redactions,
    {{ provenance("trajectory_id") }} as provenance
from rendered
left join judged on rendered.example_id = judged.example_id
