-- One row per conversation worth learning from, as chat messages: for TRL's SFTTrainer.
{{ config(materialized="table") }}

with {{ rendered_examples("sft") }},

{{ judged_trajectories() }}

select
    rendered.example_id,
    {{ message_list("rendered.prompt", "rendered.completion") }} as messages,
    rendered.tools,
    rendered.split,
    rendered.tenant,
    rendered.theme_id,
    rendered.model,
    rendered.stratum,
    rendered.strength as score,
    coalesce(judged.labels, {{ list_of([]) }}) as labels,
    rendered.prompt_tokens + rendered.completion_tokens as token_count,
    rendered.redactions,
    {{ provenance("trajectory_id") }} as provenance
from rendered
left join judged on rendered.example_id = judged.example_id
