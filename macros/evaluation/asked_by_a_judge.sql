{# Whether a session is one of `loreline judge`'s own, which a gateway that records calls records,
   too: as in loreline/judge/selection.py. #}
{% macro asked_by_a_judge(session_id) -%}
  coalesce({{ session_id }}, '') like 'loreline-judge:%'
{%- endmacro %}
