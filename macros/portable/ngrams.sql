{# Every `n` neighbouring elements of a list of text, joined by blanks; none where it is shorter. #}
{% macro ngrams(list, n) %}
  {{- return(adapter.dispatch("ngrams", "loreline")(list, n)) -}}
{% endmacro %}


{% macro duckdb__ngrams(list, n) -%}
  list_transform(
    range(1, len({{ list }}) - {{ n }} + 2),
    lambda i: array_to_string(list_slice({{ list }}, i, i + {{ n }} - 1), ' ')
  )
{%- endmacro %}


{% macro spark__ngrams(list, n) -%}
  case
    when array_size({{ list }}) >= {{ n }}
      then transform(
        sequence(1, array_size({{ list }}) - cast({{ n }} as int) + 1),
        i -> array_join(slice({{ list }}, i, cast({{ n }} as int)), ' ')
      )
    else array()
  end
{%- endmacro %}
