{# A row is a value where there should be none, such as a problem. #}
{% test is_null(model, column_name) %}
  select {{ column_name }}
  from {{ model }}
  where {{ column_name }} is not null
{% endtest %}
