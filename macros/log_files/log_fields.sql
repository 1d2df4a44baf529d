{# What a record says, by the first format that it has: a list of the format's name, timestamp,
   level, service and message, each null where it has none; null where no format fits. #}
{% macro log_fields(record, formats) %}
  {{- return(adapter.dispatch("log_fields", "loreline")(record, formats)) -}}
{% endmacro %}


{% macro duckdb__log_fields(record, formats) -%}
  coalesce(
    {%- for format in formats %}
    {%- set name = sql_text(format.log_format) %}
    {%- if format.kind == "json" %}
    case
      when regexp_matches({{ record }}, {{ sql_text("^" ~ format.first_line) }})
        then list_extract(
          list_transform(
            list_filter([regexp_extract({{ record }}, '^[^\n]*', 0)], lambda line: json_valid(line)),
            lambda line: list_extract(
              list_transform(
                [json_extract_string(line, [{{ json_paths(format) }}])],
                lambda found: [
                  {{ name }},
                  {%- for places in json_places(format) %}
                  coalesce({% for n in places %}list_extract(found, {{ n }}), {% endfor %}null),
                  {%- endfor %}
                ]
              ),
              1
            )
          ),
          1
        )
    end,
    {%- else %}
    {%- set pattern = sql_text("^(?:" ~ format.pattern ~ ")") %}
    {%- set groups = modules.re.findall("\\(\\?P<(\\w+)>", format.pattern) %}
    list_extract(
      list_transform(
        [regexp_extract({{ record }}, {{ pattern }}, {{ groups }})],
        lambda found: case
          when found.timestamp <> ''
            then [
              {{ name }},
              {%- for field in log_field_names() %}
              {% if field in groups %}nullif(found.{{ field }}, ''){% else %}null{% endif %},
              {%- endfor %}
            ]
        end
      ),
      1
    ),
    {%- endif %}
    {%- endfor %}
    cast(null as varchar[])
  )
{%- endmacro %}


{% macro spark__log_fields(record, formats) -%}
  case
    {%- for format in formats %}
    {%- set name = sql_text(format.log_format) %}
    {%- if format.kind == "json" %}
    {%- set line = "regexp_extract(" ~ record ~ ", '^[^\\\\n]*', 0)" %}
    when {{ record }} rlike {{ sql_text("^" ~ format.first_line) }}
      and get_json_object({{ line }}, '$') is not null
      then array(
        {{ name }}
        {%- for field in log_field_names() %}, coalesce(
          {%- for path in format[field ~ "_paths"].split() %}
          get_json_object({{ line }}, {{ sql_text(path) }}),
          {%- endfor %} null
        ){% endfor %}
      )
    {%- else %}
    {%- set groups = modules.re.findall("\\(\\?P<(\\w+)>", format.pattern) %}
    {%- set pattern = sql_text("^(?:" ~ (format.pattern | replace("?P<", "?<")) ~ ")") %}
    when {{ record }} rlike {{ pattern }}
      then array(
        {{ name }}
        {%- for field in log_field_names() %},
        {% if field in groups -%}
          nullif(regexp_extract({{ record }}, {{ pattern }}, {{ groups.index(field) + 1 }}), '')
        {%- else -%}null{%- endif %}
        {%- endfor %}
      )
    {%- endif %}
    {%- endfor %}
    else cast(null as array<string>)
  end
{%- endmacro %}


{# What a record says, in the order of `log_fields`. #}
{% macro log_field_names() -%}
  {{ return(["timestamp", "level", "service", "message"]) }}
{%- endmacro %}


{# All paths of a JSON format as literals, and for each field the positions of its own there. #}
{% macro json_paths(format) -%}
  {%- set paths = [] -%}
  {%- for field in log_field_names() -%}
    {%- for path in format[field ~ "_paths"].split() -%}
      {%- do paths.append(sql_text(path)) -%}
    {%- endfor -%}
  {%- endfor -%}
  {{ return(paths | join(", ")) }}
{%- endmacro %}


{% macro json_places(format) -%}
  {%- set places = [] -%}
  {%- set before = [0] -%}
  {%- for field in log_field_names() -%}
    {%- set count = format[field ~ "_paths"].split() | length -%}
    {%- do places.append(range(before[-1] + 1, before[-1] + count + 1) | list) -%}
    {%- do before.append(before[-1] + count) -%}
  {%- endfor -%}
  {{ return(places) }}
{%- endmacro %}
