"""Say of each trajectory which cluster of the last clustering it belongs to."""

import numpy as np
import pyarrow as pa

from loreline.dbt_plugin import is_empty_run, table_name
from loreline.evaluation.clusters import OUTLIER, Neighbourhood, Reduction
from loreline.evaluation.vectors import stacked

TRAJECTORIES_PER_BATCH = 20_000

SCHEMA = pa.schema(
    [
        ("trajectory_id", pa.string()),
        ("config_hash", pa.string()),
        ("clustering", pa.string()),
        ("cluster_id", pa.string()),
        ("is_outlier", pa.bool_()),
        ("distance", pa.float64()),
        ("assigned_by", pa.string()),
        ("run_number", pa.int64()),
        ("content_hash", pa.string()),
    ]
)

# Trajectories that nobody went on from and that the last clustering has not spoken of.
PENDING = """
create or replace temp table pending as
select
    units.trajectory_id,
    windows.content_hash
from {units} as units
inner join {windows} as windows
    on units.trajectory_id = windows.trajectory_id
    and windows.window_index = 0
    and not windows.is_deleted
{absent}
where units.superseded_by is null
"""

CLUSTERED = """
select
    pending.trajectory_id,
    members.cluster_id,
    members.distance,
    pending.content_hash
from pending
inner join (
    select unnest(members, max_depth := 2)
    from {runs}
    where config_hash = $config_hash and run_number = $run_number
) as members
    on pending.trajectory_id = members.trajectory_id
    and pending.content_hash = members.content_hash
"""

# The others, as far as they have a vector.
REST = """
create or replace temp table rest as
select
    pending.trajectory_id,
    pending.content_hash,
    row_number() over (order by pending.trajectory_id) - 1 as place
from pending
semi join (
    select trajectory_id, content_hash
    from {embeddings}
    where config_hash = $embedding_config_hash
) using (trajectory_id, content_hash)
anti join (
    select trajectory_id, content_hash
    from (
        select unnest(members, max_depth := 2)
        from {runs}
        where config_hash = $config_hash and run_number = $run_number
    )
) using (trajectory_id, content_hash)
"""

VECTORS = """
select rest.trajectory_id, rest.content_hash, embeddings.embedding
from rest
inner join {embeddings} as embeddings
    on rest.trajectory_id = embeddings.trajectory_id
    and rest.content_hash = embeddings.content_hash
where
    embeddings.config_hash = $embedding_config_hash
    and rest.place >= $first
    and rest.place < $first + $count
order by rest.place
"""


def model(dbt, session):
    """One row per trajectory and clustering: its cluster, or that it is an outlier."""
    dbt.config(
        materialized="incremental",
        incremental_strategy="merge",
        unique_key=["trajectory_id", "config_hash"],
        full_refresh=False,
    )
    tables = {
        "units": table_name(dbt.ref("trajectory_units")),
        "windows": table_name(dbt.ref("trajectory_texts")),
        "embeddings": table_name(dbt.ref("trajectory_embeddings")),
        "runs": table_name(dbt.ref("clustering_runs")),
    }
    variants = dbt.ref("clustering_variants").order("config_hash").to_arrow_table().to_pylist()
    known = f"lake.{dbt.this.schema}.{dbt.this.identifier}" if dbt.is_incremental else None
    if is_empty_run():
        return SCHEMA.empty_table()
    found = [part for variant in variants for part in assigned(session, tables, variant, known)]
    # Rows of a few short columns, without the vectors that they were made from.
    return pa.concat_tables([SCHEMA.empty_table(), *found])


def assigned(session, tables, variant, known):
    """Rows of the trajectories that the last clustering has not spoken of, in parts."""
    last = session.execute(
        f"select max(run_number) from {tables['runs']} where config_hash = $config_hash",
        {"config_hash": variant["config_hash"]},
    ).fetchone()[0]
    if last is None:
        return
    absent = (
        f"anti join (select trajectory_id, content_hash from {known}"
        f" where config_hash = '{variant['config_hash']}' and run_number = {last}) as known"
        " on units.trajectory_id = known.trajectory_id"
        " and windows.content_hash = known.content_hash"
        if known
        else ""
    )
    session.execute(PENDING.format(**tables, absent=absent))
    if not session.execute("select count(*) from pending").fetchone()[0]:
        return
    run = {"config_hash": variant["config_hash"], "run_number": last}
    embedding = {"embedding_config_hash": variant["embedding_config_hash"]}
    constants = {**run, "clustering": variant["clustering"]}
    members = session.execute(CLUSTERED.format(**tables), run).to_arrow_table()
    yield rows(members, {**constants, "assigned_by": "clustering"})
    session.execute(REST.format(**tables), {**run, **embedding})
    count = session.execute("select count(*) from rest").fetchone()[0]
    if not count:
        return
    reduction, neighbourhood, names = what_was_found(session, tables, run)
    for first in range(0, count, TRAJECTORIES_PER_BATCH):
        bounds = {"first": first, "count": TRAJECTORIES_PER_BATCH, **embedding}
        found = session.execute(VECTORS.format(**tables), bounds).to_arrow_table()
        vectors = stacked(found.column("embedding"), len(reduction.mean))
        labels, distances = neighbourhood.assign(reduction.points(vectors))
        near = pa.table(
            {
                "trajectory_id": found.column("trajectory_id"),
                "cluster_id": pa.array(
                    [None if label == OUTLIER else names[label] for label in labels.tolist()],
                    pa.string(),
                ),
                "distance": pa.array(distances, pa.float64(), from_pandas=True),
                "content_hash": found.column("content_hash"),
            }
        )
        yield rows(near, {**constants, "assigned_by": "nearest"})


def what_was_found(session, tables, run):
    """How a clustering reduced vectors, its members and its clusters' ids, by label."""
    mean, axes, clusters = session.execute(
        f"select mean, axes, clusters from {tables['runs']}"
        " where config_hash = $config_hash and run_number = $run_number",
        run,
    ).fetchone()
    names = [found["cluster_id"] for found in clusters]
    places = {name: label for label, name in enumerate(names)}
    members = session.execute(
        "select cluster_id, point from ("
        f" select unnest(members, max_depth := 2) from {tables['runs']}"
        " where config_hash = $config_hash and run_number = $run_number)"
        " where cluster_id is not null order by trajectory_id",
        run,
    ).to_arrow_table()
    width = len(axes)
    neighbourhood = Neighbourhood(
        stacked(members.column("point"), width),
        np.array([places[name] for name in members.column("cluster_id").to_pylist()], int),
        np.array([found["centroid"] for found in clusters], np.float32).reshape(-1, width),
        np.array([found["reach"] for found in clusters], np.float32),
    )
    mean = np.array(mean, np.float32)
    reduction = Reduction(mean, np.array(axes, np.float32).reshape(width, len(mean)))
    return reduction, neighbourhood, names


def rows(found, constants):
    """Rows of the table."""
    columns = {
        **{name: found.column(name) for name in found.column_names},
        **{
            name: pa.repeat(pa.scalar(value, SCHEMA.field(name).type), found.num_rows)
            for name, value in constants.items()
        },
    }
    columns["is_outlier"] = found.column("cluster_id").is_null()
    return pa.table([columns[field.name].cast(field.type) for field in SCHEMA], schema=SCHEMA)
