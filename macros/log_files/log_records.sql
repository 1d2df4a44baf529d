{# The records of a block of log lines, as a list: each is a line by which one begins, with the
   lines that belong to it. Lines before the first such line are records by themselves, or, where
   the block continues a record, a blank one in their place. #}
{% macro log_records(text, continues, formats) %}
  {{- return(adapter.dispatch("log_records", "loreline")(text, continues, formats)) -}}
{% endmacro %}


{% macro duckdb__log_records(text, continues, formats) -%}
  list_extract(
    list_transform(
      [string_split(
        regexp_replace(
          {{ text }}, {{ sql_text(first_lines(formats)) }}, chr(30) || '\0', 'g'
        ),
        chr(30)
      )],
      lambda parts: list_concat(
        case when {{ continues }} then [''] else string_split(list_extract(parts, 1), chr(10)) end,
        list_slice(parts, 2, len(parts))
      )
    ),
    1
  )
{%- endmacro %}


{% macro spark__log_records(text, continues, formats) -%}
  element_at(
    transform(
      array(split(
        regexp_replace({{ text }}, {{ sql_text(first_lines(formats)) }}, concat(chr(30), '$0')),
        chr(30)
      )),
      parts -> concat(
        case when {{ continues }} then array('') else split(element_at(parts, 1), chr(10)) end,
        slice(parts, 2, array_size(parts))
      )
    ),
    1
  )
{%- endmacro %}


{# A regular expression for the beginning of a line by which a record begins. #}
{% macro first_lines(formats) -%}
  {{ return("(?m)^(?:" ~ (formats | map(attribute="first_line") | join("|")) ~ ")") }}
{%- endmacro %}
