{# One row per example that is in a dataset, with the split that it is in there. #}
{% macro dataset_splits_of_examples() -%}
  {% for dataset in [
      ref("sft_messages_dataset"),
      ref("dpo_preference_dataset"),
      ref("suppression_dataset"),
      ref("unlearning_dataset"),
  ] -%}
    {%- if not loop.first %}

    union all

    {% endif -%}
    select
        example_id,
        split
    from {{ dataset }}
  {%- endfor %}
{%- endmacro %}
