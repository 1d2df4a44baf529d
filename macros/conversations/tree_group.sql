{# Which parentless nodes are siblings: those of a session, or, without one, those whose first user
   message is the same. #}
{% macro tree_group(tenant, session_id, first_user_hash, context_snapshot_id) -%}
  {{ short_hash(
      tenant ~ " || chr(31) || coalesce('session ' || " ~ session_id ~ ", 'user ' || "
      ~ first_user_hash ~ ", 'history ' || " ~ context_snapshot_id ~ ")"
  ) }}
{%- endmacro %}


{# A member of a JSON object that tells two values apart, after a comma; nothing if they agree. #}
{% macro difference(condition, name, before, now) -%}
  case
      when {{ condition }}
          then ',"{{ name }}":{"from":' || {{ before }} || ',"to":' || {{ now }} || '}'
      else ''
  end
{%- endmacro %}


{# Whether two values differ; null is a value like another. #}
{% macro differs(one, other) -%}
  coalesce({{ one }} <> {{ other }}, ({{ one }} is null) <> ({{ other }} is null))
{%- endmacro %}
