-- One row per pair of answers of which one is preferred: for TRL's DPOTrainer.
{{ config(materialized="table") }}

with {{ rendered_examples("dpo") }},

judged as (

    select
        rendered.example_id,
        {{ distinct_list("labels.labeller") }} as labels,
        '[' || {{ ordered_string_agg(
            json_members({
                "labeller": "labels.labeller",
                "version": "labels.labeller_version",
                "preferred": "case labels.preferred"
                    ~ " when 'tie' then 'tie'"
                    ~ " when consensus.preferred then 'chosen'"
                    ~ " else 'rejected' end",
            }),
            ",",
            "labels.labeller || ' ' || labels.preference_label_id",
        ) }} || ']' as judged_by
    from rendered
    inner join {{ ref("preference_labels") }} as labels
        on rendered.subject_id = labels.pair_id
        and not labels.is_withdrawn
    inner join {{ ref("preference_consensus") }} as consensus
        on labels.pair_id = consensus.pair_id
    group by rendered.example_id

)

select
    rendered.example_id,
    {{ message_list("rendered.prompt") }} as prompt,
    {{ message_list("rendered.completion") }} as chosen,
    {{ message_list("rendered.rejected") }} as rejected,
    rendered.tools,
    rendered.strength as margin,
    rendered.completion_characters as chosen_length,
    rendered.rejected_characters as rejected_length,
    rendered.split,
    rendered.tenant,
    rendered.theme_id,
    rendered.model,
    rendered.rejected_model,
    rendered.stratum,
    coalesce(judged.labels, {{ list_of([]) }}) as labels,
    rendered.prompt_tokens + rendered.completion_tokens + rendered.rejected_tokens as token_count,
    rendered.redactions,
    {{ provenance("pair_id") }} as provenance
from rendered
left join judged on rendered.example_id = judged.example_id
