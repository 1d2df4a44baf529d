-- One row per cluster: the words that tell it from the others, by class-based TF-IDF.
--
-- With every clustering anew, from the trajectories that it looked at; a cluster that has ended
-- keeps its last name. A word counts once per trajectory, so that a long one has no more to say.
{{ config(materialized="incremental", incremental_strategy="merge", unique_key="cluster_id") }}

{%- set words_of_a_name = 5 %}
{%- set words_of_a_text = regex("(\p{L}[\p{L}\p{N}]{2,30})") %}

with new_runs as (

    select
        config_hash,
        max(run_number) as run_number
    from {{ ref("clustering_runs") }}
    where {{ newer_than_watermark(ref("clustering_runs")) }}
    group by config_hash

),

runs as (

    select
        runs.config_hash,
        runs.run_number,
        runs.clustering,
        runs.members
    from {{ ref("clustering_runs") }} as runs
    inner join new_runs
        on runs.config_hash = new_runs.config_hash
        and runs.run_number = new_runs.run_number

),

members as (

    select
        runs.config_hash,
        runs.run_number,
        runs.clustering,
        member.element.trajectory_id,
        member.element.cluster_id
    from runs, {{ unnest_with_position("runs.members", "member") }}
    where member.element.cluster_id is not null

),

clusters as (

    select
        cluster_id,
        config_hash,
        run_number,
        clustering,
        count(*) as member_count
    from members
    group by cluster_id, config_hash, run_number, clustering

),

texts as (

    select
        members.config_hash,
        members.cluster_id,
        members.trajectory_id,
        regexp_extract_all(lower(texts.text), {{ words_of_a_text }}, 1) as words
    from members
    inner join {{ ref("trajectory_texts") }} as texts
        on members.trajectory_id = texts.trajectory_id
    where not texts.is_deleted

),

words as (

    select
        texts.config_hash,
        texts.cluster_id,
        texts.trajectory_id,
        word.element as word
    from texts, {{ unnest_with_position("texts.words", "word") }}
    group by texts.config_hash, texts.cluster_id, texts.trajectory_id, word.element

),

telling as (

    select words.*
    from words
    left join {{ ref("stop_words") }} as stop_words on words.word = stop_words.word
    where stop_words.word is null

),

word_counts as (

    select
        config_hash,
        cluster_id,
        word,
        count(*) as trajectories
    from telling
    group by config_hash, cluster_id, word

),

-- ln(1 + A / f): A is how many words a cluster has on average, f how often all have this one.
averages as (

    select
        config_hash,
        {{ ratio("sum(trajectories)", "count(distinct cluster_id)") }} as words_of_a_cluster
    from word_counts
    group by config_hash

),

word_totals as (

    select
        config_hash,
        word,
        sum(trajectories) as trajectories
    from word_counts
    group by config_hash, word

),

weighed as (

    select
        word_counts.cluster_id,
        word_counts.word,
        word_counts.trajectories
        * ln(1 + {{ ratio("averages.words_of_a_cluster", "word_totals.trajectories") }}) as weight
    from word_counts
    inner join averages on word_counts.config_hash = averages.config_hash
    inner join word_totals
        on word_counts.config_hash = word_totals.config_hash
        and word_counts.word = word_totals.word

),

ranked as (

    select
        cluster_id,
        word,
        row_number() over (
            partition by cluster_id
            order by weight desc nulls last, word asc nulls last
        ) as place
    from weighed

),

top_words as (

    select
        cluster_id,
        {{ ordered_string_agg("word", ", ", "place") }} as cluster_name,
        {{ ordered_list("word", "place") }} as words
    from ranked
    where place <= {{ words_of_a_name }}
    group by cluster_id

)

select
    clusters.cluster_id,
    clusters.config_hash,
    clusters.clustering,
    coalesce(top_words.cluster_name, '') as cluster_name,
    top_words.words,
    clusters.member_count,
    clusters.run_number
from clusters
left join top_words on clusters.cluster_id = top_words.cluster_id
