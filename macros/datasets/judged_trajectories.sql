{# CTE `judged`: of the trajectories of `rendered` the categories that they were given, and by whom;
   `labels` as a list of text, `judged_by` as a JSON list. #}
{% macro judged_trajectories() -%}
  judged as (

    select
        rendered.example_id,
        {{ distinct_list("labels.labeller || ': ' || labels.category") }} as labels,
        '[' || {{ ordered_string_agg(
            json_members({
                "category": "labels.category",
                "labeller": "labels.labeller",
                "version": "labels.labeller_version",
            }),
            ",",
            "labels.category || ' ' || labels.labeller || ' ' || labels.label_id",
        ) }} || ']' as judged_by
    from rendered
    inner join {{ ref("cluster_category_labels") }} as labels
        on rendered.subject_id = labels.subject_id
        and labels.subject_kind = 'trajectory'
        and not labels.is_withdrawn
    group by rendered.example_id

  )
{%- endmacro %}


{# Where an example comes from, and who judged it, as a JSON object. #}
{% macro provenance(subject) -%}
  '{"{{ subject }}":' || {{ json_quoted("rendered.subject_id") }}
  || ',"session_id":' || {{ json_quoted("rendered.session_id") }}
  || ',"split_group":' || {{ json_quoted("rendered.split_group") }}
  || ',"judged_by":' || coalesce(judged.judged_by, '[]') || '}'
{%- endmacro %}
