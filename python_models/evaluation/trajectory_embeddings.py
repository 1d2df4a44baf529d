"""The vector of each trajectory: the mean of its windows' vectors, weighted by their length."""

import numpy as np
import pyarrow as pa

from loreline.dbt_plugin import is_empty_run, new_rows, reader, settings, table_name
from loreline.evaluation.vectors import stacked, weighted_means

# A commit of its own each; of windows, a few times as many vectors are held at a time.
TRAJECTORIES_PER_COMMIT = 20_000

SCHEMA = pa.schema(
    [
        ("trajectory_id", pa.string()),
        ("content_hash", pa.string()),
        ("embedding_model", pa.string()),
        ("config_hash", pa.string()),
        ("embedding", pa.list_(pa.float32())),
    ]
)

# Trajectories of which a window is new, or the vector of one.
TOUCHED = """
create or replace temp table touched as
select trajectory_id from new_windows
union
select windows.trajectory_id
from {windows} as windows
inner join new_vectors on windows.text_hash = new_vectors.text_hash
"""

# Those whose windows all have a vector, or a reason why not, as far as they are not there already.
READY = """
create or replace temp table ready as
with states as (
    select
        windows.trajectory_id,
        any_value(windows.content_hash) as content_hash,
        bool_and(
            windows.is_complete and coalesce(vectors.text_hash, rejected.text_hash) is not null
        ) as is_ready
    from {windows} as windows
    semi join touched using (trajectory_id)
    left join (select text_hash from {vectors} where config_hash = $config_hash) as vectors
        on windows.text_hash = vectors.text_hash
    left join (
        select distinct external_id as text_hash
        from pg.{operations}.quarantine
        where source = 'embedding' and origin = $config_hash
    ) as rejected
        on windows.text_hash = rejected.text_hash
    where not windows.is_deleted
    group by windows.trajectory_id
)
select
    trajectory_id,
    content_hash,
    row_number() over (order by trajectory_id) - 1 as place
from states
{absent}
where is_ready
"""

WINDOWS = """
select
    ready.place,
    ready.trajectory_id,
    ready.content_hash,
    windows.token_estimate,
    vectors.embedding
from ready
inner join {windows} as windows on ready.trajectory_id = windows.trajectory_id
inner join {vectors} as vectors on windows.text_hash = vectors.text_hash
where
    ready.place >= $first
    and ready.place < $first + $count
    and vectors.config_hash = $config_hash
    and not windows.is_deleted
order by ready.place, windows.window_index
"""


def model(dbt, session):
    """One row per trajectory, what is said in it, and embedding configuration."""
    dbt.config(
        materialized="incremental",
        incremental_strategy="append",
        unique_key=["trajectory_id", "config_hash", "content_hash"],
        full_refresh=False,
    )
    windows, vectors = dbt.ref("trajectory_texts"), dbt.ref("text_embeddings")
    configurations = dbt.ref("embedding_configurations").to_arrow_table().to_pylist()
    known = f"lake.{dbt.this.schema}.{dbt.this.identifier}" if dbt.is_incremental else None
    return reader(SCHEMA, embedded(session, windows, vectors, configurations, known))


def embedded(session, windows, vectors, configurations, known):
    """Batches of trajectories with their vectors."""
    if is_empty_run():
        return
    names = {
        "windows": table_name(windows),
        "vectors": table_name(vectors),
        "operations": f"{settings().prefix}operations",
    }
    for row in configurations:
        variant = row["config_hash"]
        new_rows(windows, variant=variant).create_view("new_windows", replace=True)
        new_rows(vectors, variant=variant).filter(f"config_hash = '{variant}'").create_view(
            "new_vectors", replace=True
        )
        absent = (
            f"anti join (select trajectory_id, content_hash from {known}"
            f" where config_hash = '{variant}') using (trajectory_id, content_hash)"
            if known
            else ""
        )
        session.execute(TOUCHED.format(**names))
        if not session.execute("select count(*) from touched").fetchone()[0]:
            continue
        session.execute(READY.format(**names, absent=absent), {"config_hash": variant})
        total = session.execute("select count(*) from ready").fetchone()[0]
        for first in range(0, total, TRAJECTORIES_PER_COMMIT):
            bounds = {"first": first, "count": TRAJECTORIES_PER_COMMIT, "config_hash": variant}
            found = session.execute(WINDOWS.format(**names), bounds).to_arrow_table()
            if batch := averaged(found, row):
                yield batch


def averaged(windows, configuration):
    """A batch of the trajectories whose windows, one after the other, these are."""
    if not windows.num_rows:
        return None
    places = windows.column("place").to_numpy()
    vectors = stacked(windows.column("embedding"), configuration["dimensions"])
    # A window that says nothing counts as a token, not as nothing.
    weights = np.maximum(windows.column("token_estimate").to_numpy(), 1)
    owners, means = weighted_means(places, weights, vectors)
    rows = windows.take(np.searchsorted(places, owners))
    offsets = np.arange(0, means.size + 1, means.shape[1], dtype=np.int32)
    columns = {
        "trajectory_id": rows.column("trajectory_id").combine_chunks(),
        "content_hash": rows.column("content_hash").combine_chunks(),
        "embedding_model": pa.repeat(configuration["embedding_model"], len(owners)),
        "config_hash": pa.repeat(configuration["config_hash"], len(owners)),
        "embedding": pa.ListArray.from_arrays(offsets, pa.array(means.ravel())),
    }
    return pa.RecordBatch.from_arrays(
        [columns[field.name].cast(field.type) for field in SCHEMA], schema=SCHEMA
    )
