"""A target with a prefix reads tables that it has not built from the plain ones (`--defer`)."""

import dataclasses

import pyarrow as pa

from loreline.lake.commits import Writer, append, last_batch, locked, rewritten
from loreline.postgres import connect, upgrade
from loreline.settings import Settings


def test_what_is_committed_under_plain_names_is_found_from_a_target_with_a_prefix(
    settings: Settings,
) -> None:
    plain = dataclasses.replace(settings, target="local", namespace_suffix="")
    upgrade(plain)
    name = f"deferred_{settings.namespace_suffix}.things"
    commit = append(plain, name, pa.table({"a": [1]}), writer=Writer("run", "model", "1"))
    assert commit is not None
    with connect(settings, autocommit=True) as connection:
        assert last_batch(connection, settings, name) == commit.batch
        assert not rewritten(connection, settings, name, -1, commit.batch)
    with locked(plain, name) as table:
        table.catalog.drop_table(name)
        table.catalog.drop_namespace(name.partition(".")[0])
