{# Every node on the way from some nodes to their roots, without recursion: in each round the part
   of the way that is known doubles.

   `ends` is a relation (node) of where ways begin; `steps` a relation (node, up) of all nodes, `up`
   null at a root. The CTEs `<name>_0`, `<name>_1`, … end in `<name>`, a relation (last, node,
   distance): the end, a node on its way, and how far up that is, 0 for the end itself. A way is
   followed for 2 to the number of rounds nodes. #}
{% macro ancestors_by_doubling(name, ends, steps, rounds) -%}
  {{ name }}_0 as (

    select
        node as last,
        node,
        0 as distance
    from {{ ends }}

    ),

  {% for round in range(1, rounds + 1) -%}
    {%- set reach = 2 ** (round - 1) -%}
    {%- set this_round = name if round == rounds else name ~ "_" ~ round -%}
    {%- set pointers = steps if round == 1 else name ~ "_to_" ~ round -%}
    {%- if round > 1 -%}
    {%- set before = steps if round == 2 else name ~ "_to_" ~ (round - 1) -%}
    {{ pointers }} as (

    select
        step.node,
        further.up
    from {{ before }} as step
    inner join {{ before }} as further on step.up = further.node
    where further.up is not null

    ),

    {% endif -%}
    {{ this_round }} as (

    select
        last,
        node,
        distance
    from {{ name }}_{{ round - 1 }}

    union all

    select
        way.last,
        step.up as node,
        way.distance + {{ reach }} as distance
    from {{ name }}_{{ round - 1 }} as way
    inner join {{ pointers }} as step on way.node = step.node
    where step.up is not null

    ){{ ",\n" if round < rounds }}
  {%- endfor -%}
{%- endmacro %}
