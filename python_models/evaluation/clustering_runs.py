"""Cluster the trajectories of now, where enough of them are new, and keep what was found."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from loreline.dbt_plugin import is_empty_run, reader, table_name
from loreline.evaluation.clusters import (
    OUTLIER,
    ClusteringConfiguration,
    cluster,
    match_clusters,
    needs_rerun,
)
from loreline.evaluation.vectors import stacked

FLOATS = pa.list_(pa.float32())

SCHEMA = pa.schema(
    [
        ("config_hash", pa.string()),
        ("run_number", pa.int64()),
        ("clustering", pa.string()),
        ("embedding_model", pa.string()),
        ("trajectory_count", pa.int64()),
        ("sample_size", pa.int64()),
        ("cluster_count", pa.int64()),
        ("outlier_share", pa.float64()),
        ("stability", pa.float64()),
        ("highest_number", pa.int64()),
        ("clustered_batch", pa.int64()),
        ("clustered_at", pa.timestamp("us")),
        ("mean", FLOATS),
        ("axes", pa.list_(FLOATS)),
        (
            "clusters",
            pa.list_(
                pa.struct(
                    [
                        ("cluster_id", pa.string()),
                        ("member_count", pa.int64()),
                        ("reach", pa.float32()),
                        ("centroid", FLOATS),
                    ]
                )
            ),
        ),
        (
            "members",
            pa.list_(
                pa.struct(
                    [
                        ("trajectory_id", pa.string()),
                        ("content_hash", pa.string()),
                        ("cluster_id", pa.string()),
                        ("distance", pa.float32()),
                        ("point", FLOATS),
                    ]
                )
            ),
        ),
        (
            "events",
            pa.list_(
                pa.struct(
                    [
                        ("event", pa.string()),
                        ("cluster_id", pa.string()),
                        ("other_cluster_id", pa.string()),
                        ("member_count", pa.int64()),
                    ]
                )
            ),
        ),
    ]
)

NEW = """
select count(*), max(_batch)
from {embeddings}
where config_hash = $embedding_config_hash and _batch > $since
"""

# Trajectories that nobody went on from, with what is said in them now, as far as it is embedded.
POPULATION = """
create or replace temp table population as
select units.trajectory_id, windows.content_hash
from {units} as units
inner join {windows} as windows
    on units.trajectory_id = windows.trajectory_id
    and windows.window_index = 0
    and not windows.is_deleted
semi join (
    select trajectory_id, content_hash
    from {embeddings}
    where config_hash = $embedding_config_hash
) as embeddings
    on units.trajectory_id = embeddings.trajectory_id
    and windows.content_hash = embeddings.content_hash
where units.superseded_by is null
"""

# Those whose hash is least: of a population that grows, nearly the same sample again.
SAMPLE = """
create or replace temp table sample as
select trajectory_id, content_hash
from population
order by sha256($random_seed || ' ' || trajectory_id)
limit $size
"""

VECTORS = """
select sample.trajectory_id, sample.content_hash, embeddings.embedding
from sample
inner join {embeddings} as embeddings
    on sample.trajectory_id = embeddings.trajectory_id
    and sample.content_hash = embeddings.content_hash
where embeddings.config_hash = $embedding_config_hash
order by sample.trajectory_id
"""

# The members that clusters had; of a conversation that went on, what took its place.
FORMER = """
select
    coalesce(units.superseded_by, members.trajectory_id) as trajectory_id,
    members.cluster_id
from (
    select unnest(members, max_depth := 2)
    from {runs}
    where config_hash = $config_hash and run_number = $run_number
) as members
left join {units} as units on members.trajectory_id = units.trajectory_id
where members.cluster_id is not null
order by members.trajectory_id
"""

LAST_RUN = """
select run_number, trajectory_count, highest_number, clustered_batch
from {runs}
where config_hash = $config_hash
order by run_number desc
limit 1
"""


def model(dbt, session):
    """One row per clustering of all trajectories, under a configuration."""
    dbt.config(
        materialized="incremental",
        incremental_strategy="append",
        unique_key=["config_hash", "run_number"],
        full_refresh=False,
    )
    tables = {
        "units": table_name(dbt.ref("trajectory_units")),
        "windows": table_name(dbt.ref("trajectory_texts")),
        "embeddings": table_name(dbt.ref("trajectory_embeddings")),
    }
    if dbt.is_incremental:
        tables["runs"] = f"lake.{dbt.this.schema}.{dbt.this.identifier}"
    variants = dbt.ref("clustering_variants").order("config_hash").to_arrow_table().to_pylist()
    return reader(SCHEMA, clustered(session, tables, variants))


def clustered(session, tables, variants):
    """A batch of one row for each variant that is clustered anew."""
    if is_empty_run():
        return
    for variant in variants:
        if row := clustering_run(session, tables, variant):
            yield pa.RecordBatch.from_pylist([row], schema=SCHEMA)


def clustering_run(session, tables, variant):
    """The row of a clustering, or None where there is too little that is new."""
    named = {"embedding_config_hash": variant["embedding_config_hash"]}
    number, clustered_count, highest_number, since = last_run(session, tables, variant)
    new, through = session.execute(NEW.format(**tables), {**named, "since": since}).fetchone()
    if not needs_rerun(new, clustered_count, variant["rerun_share"]):
        return None
    session.execute(POPULATION.format(**tables), named)
    count = session.execute("select count(*) from population").fetchone()[0]
    sampled = {"size": variant["sample_above"], "random_seed": str(variant["random_seed"])}
    session.execute(SAMPLE, sampled)
    ids, hashes, vectors = sample(session, tables, named)
    found = cluster(ids, vectors, ClusteringConfiguration.from_row(variant))
    matching = match_clusters(
        former_members(session, tables, variant, number),
        found.ids,
        found.labels,
        prefix=variant["config_hash"][:8],
        highest_number=highest_number,
    )
    return {
        "config_hash": variant["config_hash"],
        "run_number": number + 1,
        "clustering": variant["clustering"],
        "embedding_model": variant["embedding_model"],
        "trajectory_count": count,
        "sample_size": len(ids),
        "cluster_count": len(matching.cluster_ids),
        "outlier_share": found.outlier_share,
        "stability": found.stability,
        "highest_number": matching.highest_number,
        "clustered_batch": through,
        "clustered_at": datetime.now(UTC).replace(tzinfo=None),
        "mean": found.reduction.mean,
        "axes": list(found.reduction.axes),
        "clusters": cluster_rows(found, matching),
        "members": member_rows(found, matching, hashes),
        "events": [vars(event) for event in matching.events],
    }


def last_run(session, tables, variant):
    """Number, trajectories, highest cluster number and last batch of the last clustering."""
    row = (
        session.execute(
            LAST_RUN.format(**tables), {"config_hash": variant["config_hash"]}
        ).fetchone()
        if "runs" in tables
        else None
    )
    return row or (0, None, 0, -1)


def sample(session, tables, named):
    """Ids, content hashes and vectors of the sample, read in batches."""
    size, dimensions = session.execute(
        f"select count(*), max(len(embedding)) from ({VECTORS.format(**tables)})", named
    ).fetchone()
    ids, hashes, vectors = [], [], np.empty((size, dimensions or 0), np.float32)
    batches = session.execute(VECTORS.format(**tables), named).to_arrow_reader(2_000)
    for batch in batches:
        rows = slice(len(ids), len(ids) + batch.num_rows)
        vectors[rows] = stacked(batch.column("embedding"), dimensions)
        ids += batch.column("trajectory_id").to_pylist()
        hashes += batch.column("content_hash").to_pylist()
    return ids, hashes, vectors


def former_members(session, tables, variant, number):
    """The cluster of each trajectory in the last clustering."""
    if not number:
        return {}
    last = {"config_hash": variant["config_hash"], "run_number": number}
    return dict(session.execute(FORMER.format(**tables), last).fetchall())


def cluster_rows(found, matching):
    """The clusters, by label."""
    return [
        {
            "cluster_id": cluster_id,
            "member_count": int(np.sum(found.labels == label)),
            "reach": found.reaches[label],
            "centroid": found.centroids[label],
        }
        for label, cluster_id in enumerate(matching.cluster_ids)
    ]


def member_rows(found, matching, hashes):
    """What was clustered, in the order of its ids, which is that of the sample."""
    distances = found.distances
    return [
        {
            "trajectory_id": trajectory_id,
            "content_hash": hashes[row],
            "cluster_id": None if label == OUTLIER else matching.cluster_ids[label],
            "distance": None if np.isnan(distances[row]) else distances[row],
            "point": found.points[row],
        }
        for row, (trajectory_id, label) in enumerate(
            zip(found.ids, found.labels.tolist(), strict=True)
        )
    ]
