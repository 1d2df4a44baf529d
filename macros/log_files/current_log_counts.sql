{# The counts of groups of log lines of which something new was read, without those that a longer
   state of the same block has replaced. The last record of a file may still have grown; what the
   new state says, and what the old one said, are both touched. Common table expressions to begin
   a model with; the last one is `current_counts`. #}
{% macro current_log_counts(keys, condition) %}
{%- set counts = ref("stg_log_files__line_counts") -%}
new_blocks as (

    select block_id
    from {{ counts }}
    where {{ newer_than_watermark(counts) }}
    group by block_id

),

touched as (

    select {% for key in keys %}counts.{{ key }}{{ ", " if not loop.last }}{% endfor %}
    from {{ counts }} as counts
    inner join new_blocks on counts.block_id = new_blocks.block_id
    where {{ condition }}
    group by {% for key in keys %}counts.{{ key }}{{ ", " if not loop.last }}{% endfor %}

),

-- A block only grows: its longest state is its last one.
block_states as (

    select
        block_id,
        max(block_end) as block_end
    from {{ counts }}
    group by block_id

),

current_counts as (

    select
        counts.service,
        counts.window_start,
        counts.level,
        counts.template_id,
        counts.template,
        counts.line_count,
        counts.first_at,
        counts.last_at,
        counts.example,
        counts.observed_at,
        counts.raw_dlt_id,
        counts.raw_batch
    from {{ counts }} as counts
    inner join touched
        on {% for key in keys %}counts.{{ key }} = touched.{{ key }}
        {{ "and " if not loop.last }}{% endfor -%}
    inner join block_states
        on counts.block_id = block_states.block_id
        and counts.block_end = block_states.block_end
    where {{ condition }} and counts.line_count > 0

)
{%- endmacro %}
