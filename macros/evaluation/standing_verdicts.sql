{# Of what a reviewer said of a subject the latest that stands, else the latest that was taken back.

   `kind` is trajectory or pair, `subject` the expression over human_eval_labels that names what was
   judged, `columns` what else is wanted. Rows (subject_id, reviewer, is_withdrawn, the columns). #}
{% macro standing_verdicts(kind, subject, columns) -%}
    select
        ranked.subject_id,
        ranked.reviewer,
        ranked.is_withdrawn,
        ranked.{{ columns | join(",\n        ranked.") }}
    from (
        select
            {{ subject }} as subject_id,
            reviewer,
            is_withdrawn,
            {{ columns | join(",\n            ") }},
            row_number() over (
                partition by {{ subject }}, reviewer
                order by
                    case when is_withdrawn then 1 else 0 end asc nulls last,
                    labelled_at desc nulls last,
                    label_id asc nulls last
            ) as recency
        from {{ ref("human_eval_labels") }}
        where kind = '{{ kind }}'
    ) as ranked
    where ranked.recency = 1
{%- endmacro %}
