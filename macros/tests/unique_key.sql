{# Values of `columns` that several rows share.

   In `dbt build` only the keys that this run wrote are compared, with the whole table; `dbt test` by
   itself compares all. #}
{% test unique_key(model, columns) %}
select
  {{ columns | join(", ") }},
  count(*) as rows_of_this_key
from {{ model }}
where ({{ columns | join(", ") }}) in (
  select {{ columns | join(", ") }}
  from {{ model }}
  where {{ written_by_this_run(model) }}
)
group by {{ columns | join(", ") }}
having count(*) > 1
{% endtest %}
