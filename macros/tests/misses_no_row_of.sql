{# Raw rows that a staging model has passed by. #}
{% test misses_no_row_of(model, upstream) %}
select raw_rows._dlt_id as raw_dlt_id
from {{ upstream }} as raw_rows
left join {{ model }} as staged on raw_rows._dlt_id = staged.raw_dlt_id
where staged.raw_dlt_id is null and {{ read_by(model, upstream, "raw_rows._batch") }}
{% endtest %}
