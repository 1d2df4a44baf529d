{# Earlier siblings that agree with a sibling in all but some classes of its signature.

   For each set of classes that may differ, siblings that agree in all the others are put in order of
   time, and each is given the one before it: no two are ever compared. For an original that is the
   original before it, so that replays change nothing about originals.

   `siblings` is a relation (node, sibling_group, time_index, is_replay) with the columns of
   `classes`; `sizes` says how many classes may differ. #}
{% macro nearest_siblings(siblings, classes, sizes) -%}
  {%- set sets = [] -%}
  {%- for mask in range(2 ** (classes | length)) -%}
    {%- set kept = [] -%}
    {%- for class in classes -%}
      {%- if not (mask // (2 ** loop.index0)) % 2 -%}{%- do kept.append(class) -%}{%- endif -%}
    {%- endfor -%}
    {%- if (classes | length) - (kept | length) in sizes -%}
      {%- do sets.append(kept) -%}
    {%- endif -%}
  {%- endfor -%}
  {%- for kept in sets %}
    {%- set agreeing %}over (
            partition by {{ (["sibling_group"] + kept) | join(", ") }}
            order by time_index nulls last
            rows between unbounded preceding and 1 preceding
        )
    {%- endset %}
    {{ "union all" if not loop.first }}

    select
        node,
        {{ (classes | length) - (kept | length) }} as differences,
        case
            when is_replay then max(time_index) {{ agreeing }}
            else max(case when not is_replay then time_index end) {{ agreeing }}
        end as nearest_index
    from {{ siblings }}
  {%- endfor %}
{%- endmacro %}
