"""The shape of a raw row, which every source lands."""

from __future__ import annotations

import pyarrow as pa

from loreline.lake.catalog import create_table, list_tables, load_catalog
from loreline.lake.commits import BOOKKEEPING
from loreline.settings import Settings

_INSTANT = pa.timestamp("us")

# What a source gives; dlt adds `_dlt_load_id`, the commit `_batch` and `_code_version`.
RAW_SCHEMA = pa.schema(
    {
        "external_id": pa.string(),
        "content_hash": pa.string(),
        "metadata_hash": pa.string(),
        "payload": pa.string(),
        "raw_object_uri": pa.string(),
        "source_updated_at": _INSTANT,
        "observed_at": _INSTANT,
        "landed_at": _INSTANT,
        "is_deleted": pa.bool_(),
        "landed_by": pa.string(),
        "delivery_id": pa.string(),
        "_dlt_id": pa.string(),
    }
)


def ensure_raw_tables(settings: Settings, names: list[str]) -> None:
    """Create the raw tables that are missing, empty: models may then read any source."""
    catalog = load_catalog(settings)
    schema = pa.unify_schemas([RAW_SCHEMA, pa.schema({"_dlt_load_id": pa.string()}), BOOKKEEPING])
    namespaces = {name.rpartition(".")[0] for name in names}
    # Asked by namespace: each table by itself would cost every build a request.
    there = {f"{each}.{table}" for each in namespaces for table in list_tables(catalog, each)}
    for name in names:
        if name not in there:
            create_table(catalog, name, schema)
