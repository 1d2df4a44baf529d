"""Say of each example which other one it repeats, and with which it must share a split."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from loreline.datasets.near_copies import (
    MOST_ROUNDS,
    agreement,
    components,
    least,
    near_copies,
)
from loreline.dbt_plugin import is_empty_run, settings, table_name

MINHASHES_PER_FETCH = 100_000
PARTS = ("prompt", "completion", "rejected")

SCHEMA = pa.schema(
    [
        ("example_id", pa.string()),
        ("split_group", pa.string()),
        ("duplicate_kind", pa.string()),
        ("duplicate_of", pa.string()),
        ("similarity", pa.float64()),
    ]
)

EXAMPLES = """
create or replace temp table numbered as
select
    states.*,
    coalesce(examples.partition, '') as partition,
    examples.tree_groups,
    row_number() over (order by states.example_id) - 1 as place,
    dense_rank() over (order by states.dataset, states.tenant) - 1 as collection
from {states} as states
inner join {examples} as examples using (example_id)
"""

# What a system says is the same for many, and is not compared.
TEXTS = """
create or replace temp table texts as
select
    message_hash,
    minhash,
    row_number() over (order by message_hash) - 1 as text
from {training}
where
    kind = 'message'
    and config_hash = (select config_hash from {variants})
"""

USES = """
select numbered.place, texts.text
from (
    select example_id, unnest({hashes}) as message_hash from {examples}
) as uses
inner join numbered using (example_id)
inner join texts using (message_hash)
order by numbered.place
"""


def model(dbt, session):
    """One row per example: what it repeats, and the group that is never split."""
    dbt.config(materialized="table")
    tables = {
        "examples": table_name(dbt.ref("dataset_examples")),
        "states": table_name(dbt.ref("example_states")),
        "training": table_name(dbt.ref("training_messages")),
        "variants": table_name(dbt.ref("training_text_variants")),
    }
    chosen = dict(dbt.ref("dataset_settings").select("setting, value").fetchall())
    if is_empty_run():
        return SCHEMA.empty_table()
    session.execute(EXAMPLES.format(**tables))
    session.execute(TEXTS.format(**tables))
    examples = session.execute(
        "select * exclude (tree_groups, place) from numbered order by place"
    ).to_arrow_table()
    similarity = float(chosen["similarity"])
    with tempfile.TemporaryDirectory(dir=settings().home) as folder:
        minhashes = said_in(session, tables, Path(folder), int(chosen["permutations"]))
        kinds, owners, shares = repeated(examples, minhashes, similarity)
        groups = split_groups(session, examples, minhashes, similarity)
    ids = examples.column("example_id").combine_chunks()
    return pa.table(
        {
            "example_id": ids,
            "split_group": groups,
            "duplicate_kind": pa.array(kinds, pa.string()),
            "duplicate_of": ids.take(pa.array(owners, pa.int64(), mask=owners < 0)),
            "similarity": pa.array(shares, pa.float64(), mask=owners < 0),
        },
        schema=SCHEMA,
    )


def said_in(session, tables, folder, permutations):
    """MinHashes of each part of each example, and of the whole, in files: they may be many."""
    texts = session.execute("select count(*) from texts").fetchone()[0]
    count = session.execute("select count(*) from numbered").fetchone()[0]
    of_texts = in_file(folder / "texts", texts, permutations)
    batches = session.execute("select minhash from texts order by text").to_arrow_reader(
        MINHASHES_PER_FETCH
    )
    at = 0
    for batch in batches:
        joined = b"".join(batch.column(0).to_pylist())
        of_texts[at : at + len(batch)] = np.frombuffer(joined, np.uint32).reshape(len(batch), -1)
        at += len(batch)
    found = {}
    for part in PARTS:
        hashes = "prompt_hashes" if part == "prompt" else f"[{part}_hash]"
        uses = session.execute(USES.format(**tables, hashes=hashes)).to_arrow_table()
        found[part] = in_file(folder / part, count, permutations)
        found[part][:] = least(
            of_texts, uses.column("text").to_numpy(), uses.column("place").to_numpy(), count
        )
    found["whole"] = in_file(folder / "whole", count, permutations)
    np.minimum(found["prompt"], found["completion"], out=found["whole"])
    np.minimum(found["whole"], found["rejected"], out=found["whole"])
    return found


def in_file(path, rows, columns):
    """A matrix of uint32 in a file of its own."""
    if not rows:
        return np.zeros((0, columns), np.uint32)
    return np.memmap(path, np.uint32, "w+", shape=(rows, columns))


def repeated(examples, minhashes, similarity):
    """For each example how it repeats another one, which (-1 for none), and how alike they are.

    Of those alike the first is kept, by rank; what is to be forgotten comes before what is to be
    retained, and what nothing speaks against before the others.
    """
    is_whole = np.array([name == "sft" for name in examples.column("dataset").to_pylist()], bool)
    collection = examples.column("collection").to_numpy()
    whole, parts = minhashes["whole"], [minhashes[part] for part in PARTS]

    def are_alike(one, other):
        # SFT learns from every turn; elsewhere two examples are alike when each of their parts is.
        found = agreement(whole, one, other) >= similarity
        for part in parts:
            found &= is_whole[one] | (agreement(part, one, other) >= similarity)
        return found

    pairs = np.concatenate(
        [
            picked(near_copies(whole, similarity, within=collection), is_whole),
            picked(near_copies(whole, similarity, within=collection, also=parts), ~is_whole),
        ]
    )
    groups = components(len(collection), pairs)
    is_sound = examples.column("problem").is_null().to_numpy()
    is_retained = np.array(examples.column("partition").to_pylist(), object) == "retain"
    ranks = examples.column("example_rank").to_numpy()
    waiting = np.lexsort((ranks, is_retained, ~is_sound, groups))
    owners = np.full(len(groups), -1)
    # The ends of a chain of near-copies need not be alike: what is not like the first of its group
    # is looked at again with the first of the rest.
    for _ in range(MOST_ROUNDS):
        starts = np.r_[True, groups[waiting][1:] != groups[waiting][:-1]][: len(waiting)]
        firsts = waiting[starts][np.cumsum(starts)[~starts] - 1]
        others = waiting[~starts]
        if not len(others):
            break
        is_near = are_alike(others, firsts)
        is_repeated = is_near & is_sound[others] & is_sound[firsts]
        owners[others[is_repeated]] = firsts[is_repeated]
        waiting = others[~is_near]
    others = np.flatnonzero(owners >= 0)
    shares = np.zeros(len(owners))
    shares[others] = agreement(whole, others, owners[others])
    contents = np.array(examples.column("content_hash").to_pylist(), object)
    kinds = np.full(len(owners), None, object)
    kinds[others] = np.where(
        contents[others] == contents[owners[others]], "exact duplicate", "near duplicate"
    )
    return kinds, owners, shares


def picked(pairs, wanted):
    """The pairs of wanted examples; both of a pair are of one dataset."""
    return pairs[wanted[pairs[:, 0]]]


def split_groups(session, examples, minhashes, similarity):
    """The name of each example's group: the least tree among all that hang together.

    Trees hang together by an example of both, and by examples, of whatever dataset and tenant, of
    which the prompts or the wholes are near-copies.
    """
    trees = session.execute(
        "select place, unnest(tree_groups) as tree from numbered order by all"
    ).to_arrow_table()
    names, numbers = np.unique(np.array(trees.column("tree").to_pylist(), str), return_inverse=True)
    count = len(examples)
    of_trees = np.column_stack([trees.column("place").to_numpy(), count + numbers])
    pairs = np.concatenate(
        [
            of_trees,
            near_copies(minhashes["prompt"], similarity),
            near_copies(minhashes["whole"], similarity),
        ]
    )
    groups = components(count + len(names), pairs)
    least_tree = np.full(groups.max(initial=-1) + 1, len(names))
    np.minimum.at(least_tree, groups[count:], np.arange(len(names)))
    return pa.array(names[least_tree[groups[:count]]].tolist(), pa.string())
