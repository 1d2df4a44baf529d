"""The Iceberg REST catalog, through pyiceberg."""

from __future__ import annotations

from functools import lru_cache

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.exceptions import (
    NoSuchTableError,
    OAuthError,
    RESTError,
    UnauthorizedError,
)
from pyiceberg.table import Table
from pyiceberg.transforms import parse_transform

from loreline.errors import LorelineError
from loreline.settings import Settings

# Two rewrites of metadata are cheap; an endless list of old metadata files is not.
TABLE_PROPERTIES = {
    "format-version": "2",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    "write.parquet.compression-codec": "zstd",
    # For other engines; our own writes are cut by `snapshots.WRITE_BYTES`.
    "write.target-file-size-bytes": str(128 * 1024 * 1024),
}


@lru_cache(maxsize=8)
def load_catalog(settings: Settings) -> Catalog:
    """Connect to the catalog that the settings name.

    Raises:
        LorelineError: the catalog cannot be reached or refuses the credentials.
    """
    settings.require_stores()
    options = {
        "uri": settings.catalog_uri,
        "warehouse": settings.catalog_warehouse,
        "py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO",
        "s3.endpoint": settings.s3_endpoint,
        "s3.region": settings.s3_region,
        "s3.access-key-id": settings.s3_access_key_id,
        "s3.secret-access-key": settings.s3_secret_access_key,
        # The bucket is reached with the configured keys, not with ones the catalog vends.
        "header.X-Iceberg-Access-Delegation": "",
    }
    if settings.catalog_credential:
        options["credential"] = settings.catalog_credential
        options["oauth2-server-uri"] = settings.oauth2_uri
    try:
        return RestCatalog(settings.catalog_warehouse, **options)
    except (UnauthorizedError, OAuthError) as error:
        raise LorelineError(
            f"Iceberg catalog at {settings.catalog_uri} refused the token",
            "check LORELINE_CATALOG_CREDENTIAL",
        ) from error
    except (OSError, RESTError) as error:
        raise LorelineError(
            f"no Iceberg catalog answers at {settings.catalog_uri}",
            "start the local stack with `loreline up`, or check LORELINE_CATALOG_URI",
        ) from error


def find_table(catalog: Catalog, name: str) -> Table | None:
    """Load the table `namespace.table`, or None where there is none."""
    try:
        return catalog.load_table(name)
    except NoSuchTableError:
        return None


def ensure_table(
    catalog: Catalog, name: str, schema: pa.Schema, partition_by: tuple[str, ...] = ()
) -> Table:
    """Load a table, creating it, or adding the columns that it lacks.

    Args:
        catalog: where the table lives.
        name: `namespace.table`; the namespace is made when it is missing.
        schema: Arrow schema, which the table is created with; columns are nullable.
        partition_by: Iceberg transforms, as `source` or `month(started_at)`.
    """
    table = find_table(catalog, name)
    if table is None:
        catalog.create_namespace_if_not_exists(name.rsplit(".", 1)[0])
        table = catalog.create_table_if_not_exists(name, schema, properties=TABLE_PROPERTIES)
        if partition_by:
            with table.update_spec() as update:
                for expression in partition_by:
                    update.add_field(*_partition_field(expression))
            table.refresh()
    if set(schema.names) - {field.name for field in table.schema().fields}:
        with table.update_schema() as update:
            update.union_by_name(schema)
        table.refresh()
    return table


def _partition_field(expression: str) -> tuple[str, object, str]:
    transform, _, column = expression.rstrip(")").partition("(")
    if not column:
        return expression, parse_transform("identity"), expression
    column, _, argument = column.partition(",")
    text = f"{transform}[{argument.strip()}]" if argument else transform
    return column, parse_transform(text), f"{column}_{transform}"
