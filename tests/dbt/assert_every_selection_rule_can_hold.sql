-- A row is a rule that holds where nothing is known of a trajectory: it would never be looked at.
{{ config(tags=["datasets"]) }}

select
    negative_type,
    rule
from {{ ref("selection_rules") }}
group by negative_type, rule
having
    sum(
        case
            when given_by = 'measure' or at_least > 0 or at_most < 0 then 1
            else 0
        end
    ) = 0
