{# Follows parents to the root without recursion: in each round every pointer doubles its reach.

   `steps` is a relation (node, up, distance, top, lowest): a node, the node it points to (null at a
   root), how far that is (0 at a root), itself or what it points to, and the lower of both. The CTEs
   `<name>_1`, `<name>_2`, … end in `<name>`: at a root `up` is null, `top` is the root and `distance`
   the depth. Where `up` is still there, the node hangs from a cycle, of which `lowest` is the lowest
   node for those on it; or deeper than 2 to the number of rounds, which a test would find. #}
{% macro roots_by_doubling(name, steps, rounds) -%}
  {%- for round in range(1, rounds + 1) -%}
    {%- set before = steps if round == 1 else name ~ "_" ~ (round - 1) -%}
    {%- set this_round = name if round == rounds else name ~ "_" ~ round -%}
    {{ this_round }} as (

    select
        step.node,
        further.up,
        step.distance + coalesce(further.distance, 0) as distance,
        coalesce(further.top, step.top) as top,
        least(step.lowest, coalesce(further.lowest, step.lowest)) as lowest
    from {{ before }} as step
    left join {{ before }} as further on step.up = further.node

    ){{ ",\n" if round < rounds }}
  {%- endfor -%}
{%- endmacro %}
