{# Of the candidates of each node the one that is its parent, in the order of the forest's rule.

   `candidates` is a relation (branch_node_id, candidate_id, place); the nodes are those of
   `to_place`, their candidates those of `nodes`, under the names `child` and `parent`. #}
{% macro best_parents(candidates, condition) -%}
  select
      ranked.branch_node_id,
      ranked.candidate_id as parent_id
  from (
      select
          candidates.branch_node_id,
          candidates.candidate_id,
          row_number() over (
              partition by candidates.branch_node_id
              order by
                  candidates.place asc nulls last,
                  case
                      when not child.is_replay then case when parent.is_replay then 1 else 0 end
                      when parent.is_replay and parent.replay_run_id = child.replay_run_id then 0
                      when parent.is_replay then 2
                      else 1
                  end asc nulls last,
                  case when parent.session_id = child.session_id then 0 else 1 end asc nulls last,
                  case
                      when
                          parent.system_hash = child.system_hash
                          and parent.tools_hash = child.tools_hash
                          then 0
                      else 1
                  end asc nulls last,
                  case when parent.ended_at <= child.started_at then 0 else 1 end asc nulls last,
                  parent.ended_at desc nulls last,
                  parent.turn_id asc nulls last,
                  parent.choice_index asc nulls last,
                  parent.branch_node_id asc nulls last
          ) as preference
      from {{ candidates }} as candidates
      inner join to_place as child on candidates.branch_node_id = child.branch_node_id
      inner join nodes as parent on candidates.candidate_id = parent.branch_node_id
      where child.turn_key <> parent.turn_key and {{ condition }}
  ) as ranked
  where ranked.preference = 1
{%- endmacro %}
