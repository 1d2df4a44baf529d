{# A from-clause item: one row (element, position) per element of a list, counted from 1.

   `{{ unnest_with_position("links", "link") }}` after a comma gives `link.element`, `link.position`. #}
{% macro unnest_with_position(list, alias) %}
  {{- return(adapter.dispatch("unnest_with_position", "loreline")(list, alias)) -}}
{% endmacro %}


{% macro duckdb__unnest_with_position(list, alias) -%}
  lateral (
    select
      unnest({{ list }}) as element,
      generate_subscripts({{ list }}, 1) as position
  ) as {{ alias }}
{%- endmacro %}


{% macro spark__unnest_with_position(list, alias) -%}
  lateral (
    select
      element,
      index + 1 as position
    from (select posexplode({{ list }}) as (index, element))
  ) as {{ alias }}
{%- endmacro %}
