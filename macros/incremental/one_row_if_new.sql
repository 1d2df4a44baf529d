{# One row where a relation has rows that the running model has not read yet, else none: joined
   with what a change of settings makes be looked at again, it reads nothing where there is none. #}
{% macro one_row_if_new(relation) -%}
    select count(*) as new_rows
    from {{ relation }}
    where {{ newer_than_watermark(relation) }}
    having count(*) > 0
{%- endmacro %}
