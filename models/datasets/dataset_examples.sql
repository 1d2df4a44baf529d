-- One row per dataset and example that might be in it: which messages, in which places.
--
-- What is said is looked up where it is needed. An example without an answer is none; unlearning
-- is single-turn, and takes trajectories in which one thing was asked and the answer is text.
{{ config(materialized="table") }}

{%- set columns = [
    "dataset", "subject_id", "tenant", "session_id", "theme_id", "model", "rejected_model",
    "stratum", "selection", "partition", "tree_groups", "system_hash", "tools_hash",
    "prompt_hashes", "completion_hash", "rejected_hash", "strength"
] %}

with selected as (

    select
        trajectory_id,
        stratum,
        score,
        'positive' as selection
    from {{ ref("positive_topk_trajectories") }}

    union all

    select
        trajectory_id,
        stratum,
        score,
        negative_type as selection
    from {{ ref("negative_bottomk_trajectories") }}

),

trajectories as (

    select
        units.trajectory_id as subject_id,
        units.tenant,
        units.session_id,
        units.theme_id,
        {{ joined_list("units.models", ", ") }} as model,
        selected.stratum,
        selected.selection,
        selected.score,
        sizes.is_undesired,
        sizes.is_to_be_forgotten,
        {{ list_of(["units.tree_group"]) }} as tree_groups,
        units.system_hash,
        units.tools_hash,
        {{ list_head("units.message_hashes", "units.message_count - 1") }} as prompt_hashes,
        answers.message_hash as completion_hash,
        answers.content is not null and answers.tool_calls is null as is_text_answer
    from selected
    inner join {{ ref("trajectory_units") }} as units
        on selected.trajectory_id = units.trajectory_id
    inner join {{ ref("selection_sizes") }} as sizes on selected.selection = sizes.selection
    inner join {{ ref("messages") }} as answers
        on {{ list_at("units.message_hashes", "units.message_count") }} = answers.message_hash
        and answers.role = 'assistant'

),

asked as (

    select
        trajectories.subject_id,
        message.element as message_hash
    from trajectories, {{ unnest_with_position("trajectories.prompt_hashes", "message") }}
    where
        trajectories.is_text_answer
        and (trajectories.is_to_be_forgotten or trajectories.selection = 'positive')

),

single_turns as (

    select
        asked.subject_id,
        min(messages.message_hash) as question_hash
    from asked
    inner join {{ ref("messages") }} as messages on asked.message_hash = messages.message_hash
    where messages.role = 'user'
    group by asked.subject_id
    having count(*) = 1

),

pairs as (

    select
        pairs.pair_id as subject_id,
        pairs.tenant,
        one.theme_id,
        pairs.reason as stratum,
        {{ list_of(["one.tree_group", "other.tree_group"]) }} as tree_groups,
        pairs.system_hash,
        pairs.tools_hash,
        pairs.message_hashes as prompt_hashes,
        consensus.margin,
        {% for column, a, b in [
            ("session_id", "one.session_id", "other.session_id"),
            ("model", "pairs.model_a", "pairs.model_b"),
            ("rejected_model", "pairs.model_b", "pairs.model_a"),
            ("completion_hash", "pairs.answer_a", "pairs.answer_b"),
            ("rejected_hash", "pairs.answer_b", "pairs.answer_a"),
        ] -%}
        case
            when consensus.preferred = 'a' then {{ a }}
            else {{ b }}
        end as {{ column }}
        {%- if not loop.last %},{% endif %}
        {% endfor -%}
    from {{ ref("candidate_preference_pairs") }} as pairs
    inner join {{ ref("preference_consensus") }} as consensus on pairs.pair_id = consensus.pair_id
    inner join {{ ref("conversation_branch_nodes") }} as one
        on pairs.node_a = one.branch_node_id
    inner join {{ ref("conversation_branch_nodes") }} as other
        on pairs.node_b = other.branch_node_id
    where
        pairs.is_wanted
        and consensus.preferred in ('a', 'b')
        and not {{ asked_by_a_judge("one.session_id") }}

),

decided_pairs as (

    select pairs.*
    from pairs
    inner join {{ ref("dataset_settings") }} as settings
        on settings.setting = 'smallest_margin'
    where pairs.margin >= cast(settings.value as double)

),

examples as (

    {% for dataset, condition, strength in [
        ("sft", "selection = 'positive'", "score"),
        ("suppression", "is_undesired", "-score"),
    ] -%}
    select
        '{{ dataset }}' as dataset,
        subject_id,
        tenant,
        session_id,
        theme_id,
        model,
        cast(null as string) as rejected_model,
        stratum,
        selection,
        cast(null as string) as partition,
        tree_groups,
        system_hash,
        tools_hash,
        prompt_hashes,
        completion_hash,
        cast(null as string) as rejected_hash,
        {{ strength }} as strength
    from trajectories
    where {{ condition }}

    union all

    {% endfor -%}
    select
        'unlearning' as dataset,
        trajectories.subject_id,
        trajectories.tenant,
        trajectories.session_id,
        trajectories.theme_id,
        trajectories.model,
        cast(null as string) as rejected_model,
        trajectories.stratum,
        trajectories.selection,
        case when trajectories.is_to_be_forgotten then 'forget' else 'retain' end as partition,
        trajectories.tree_groups,
        cast(null as string) as system_hash,
        cast(null as string) as tools_hash,
        {{ list_of(["single_turns.question_hash"]) }} as prompt_hashes,
        trajectories.completion_hash,
        cast(null as string) as rejected_hash,
        case
            when trajectories.is_to_be_forgotten then -trajectories.score
            else trajectories.score
        end as strength
    from trajectories
    inner join single_turns on trajectories.subject_id = single_turns.subject_id

    union all

    select
        'dpo' as dataset,
        subject_id,
        tenant,
        session_id,
        theme_id,
        model,
        rejected_model,
        stratum,
        'preferred' as selection,
        cast(null as string) as partition,
        tree_groups,
        system_hash,
        tools_hash,
        prompt_hashes,
        completion_hash,
        rejected_hash,
        margin as strength
    from decided_pairs

)

select
    {{ short_hash("dataset || chr(31) || subject_id") }} as example_id,
    {{ columns | join(",\n    ") }},
    row_number() over (
        partition by dataset
        order by strength desc nulls last, subject_id asc nulls last
    ) as example_rank
from examples
