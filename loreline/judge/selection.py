"""What a judge is asked to judge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import duckdb

from loreline.errors import LorelineError
from loreline.judge.configurations import Judge
from loreline.review.contents import with_contents
from loreline.settings import Settings

# A gateway that records calls also records those of judges; nobody judges them.
SESSION_PREFIX = "loreline-judge:"

# What is begun comes first, then the review queue in its order, then the rest as a hash has it.
_SUBJECTS = """
create or replace table {wanted} as
with candidates as ({candidates}),

chosen as (
    select
        candidates.*,
        row_number() over (
            order by
                begun.subject_id is null,
                queue.subject_id is null,
                queue.priority desc,
                md5(candidates.subject_id),
                candidates.subject_id
        ) as place
    from candidates
    left join {queue} as queue
        on candidates.subject_id = queue.subject_id and queue.kind = $kind
    left join (select unnest($begun) as subject_id) as begun
        on candidates.subject_id = begun.subject_id
    where
        candidates.subject_id not in (select unnest($done))
        and (queue.subject_id is not null or $which = 'all')
)

select * from chosen where place <= $most
"""
_CANDIDATES = {
    "trajectory": """
        select trajectory_id as subject_id, [leaf_node_id] as leaf_node_ids
        from {units}
        where
            superseded_by is null
            and not is_replay
            and not starts_with(coalesce(session_id, ''), $prefix)
    """,
    "pair": """
        select pairs.pair_id as subject_id, [pairs.node_a, pairs.node_b] as leaf_node_ids
        from {pairs} as pairs
        inner join {nodes} as nodes on pairs.node_a = nodes.branch_node_id
        where pairs.is_wanted and not starts_with(coalesce(nodes.session_id, ''), $prefix)
    """,
}


class Selection:
    """The subjects of one judge, chosen once, and read as often as needed.

    Args:
        lake: a connection, in whose memory the choice is kept.
        settings: say which schemas.
        judge: says which, and how many.
        is_whole: the subjects that were asked about, and whether all of their calls were.

    Raises:
        LorelineError: what is judged was not built.
    """

    def __init__(
        self,
        lake: duckdb.DuckDBPyConnection,
        settings: Settings,
        judge: Judge,
        is_whole: Mapping[str, bool],
    ) -> None:
        schemas = {
            name: f"lake.{settings.prefix}{name}" for name in ("evaluation", "conversations")
        }
        self._lake = lake
        # In memory, and not temporary: cursors see it too.
        self._wanted = f"memory.main.wanted_{judge.version.rpartition(' ')[2]}"
        self._tables = {
            "units": f"{schemas['evaluation']}.trajectory_units",
            "pairs": f"{schemas['evaluation']}.candidate_preference_pairs",
            "messages": f"{schemas['conversations']}.messages",
            "attributes": f"{schemas['conversations']}.request_attributes",
        }
        names = {
            **self._tables,
            "queue": f"{schemas['evaluation']}.human_sample_queue",
            "nodes": f"{schemas['conversations']}.conversation_branch_nodes",
        }
        candidates = _CANDIDATES[judge.kind].format(**names)
        done = [subject for subject, whole in is_whole.items() if whole]
        parameters = {
            "kind": judge.kind,
            "prefix": SESSION_PREFIX,
            "done": done,
            "begun": [subject for subject, whole in is_whole.items() if not whole],
            "which": judge.which,
            "most": max(judge.at_most - len(done), 0),
        }
        try:
            lake.execute(
                _SUBJECTS.format(candidates=candidates, wanted=self._wanted, **names), parameters
            )
        except duckdb.CatalogException as error:
            raise LorelineError("there is nothing to judge yet", "run `loreline build`") from error

    def subjects(self) -> Iterator[dict[str, Any]]:
        """Each with subject_id, leaf_node_ids and content."""
        return with_contents(self._lake, self._wanted, "place", self._tables)
