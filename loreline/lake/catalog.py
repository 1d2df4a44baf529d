"""The Iceberg REST catalog, through pyiceberg."""

from __future__ import annotations

import itertools
from functools import lru_cache

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.exceptions import (
    NoSuchNamespaceError,
    NoSuchTableError,
    OAuthError,
    ResolveError,
    RESTError,
    ServerError,
    UnauthorizedError,
    ValidationError,
)
from pyiceberg.io.pyarrow import UnsupportedPyArrowTypeException, schema_to_pyarrow
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema, assign_fresh_schema_ids, promote
from pyiceberg.table import Table, Transaction
from pyiceberg.transforms import Transform, parse_transform
from pyiceberg.types import IcebergType, NestedField
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_random_exponential

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


def list_tables(catalog: Catalog, namespace: str) -> list[str]:
    """Names of the tables of a namespace in order; none where there is no such namespace."""
    try:
        return sorted(name for _, name in catalog.list_tables(namespace))
    except NoSuchNamespaceError:
        return []


def create_table(
    catalog: Catalog, name: str, schema: pa.Schema, partition_by: tuple[str, ...] = ()
) -> Table:
    """Create a table; where one is there already, add the columns that it lacks.

    Args:
        catalog: where the table lives.
        name: `namespace.table`; the namespace is made when it is missing.
        schema: Arrow schema, which the table is created with; columns are nullable.
        partition_by: Iceberg transforms, as `source` or `month(started_at)`.
    """
    columns = _columns(schema)
    spec = PartitionSpec(
        *(
            PartitionField(columns.find_field(source).field_id, 1000 + i, transform, partition)
            for i, (source, transform, partition) in enumerate(map(_partition, partition_by))
        )
    )
    table = _created(catalog, name, columns, spec)
    add_columns(table, schema)
    return table


# SeaweedFS fails to look a namespace up while somebody else is just creating it.
@retry(
    retry=retry_if_exception_type(ServerError),
    stop=stop_after_delay(10),
    wait=wait_random_exponential(0.02, max=1),
    reraise=True,
)
def _created(catalog: Catalog, name: str, columns: Schema, spec: PartitionSpec) -> Table:
    """The table, which was there, or is created with its namespace."""
    catalog.create_namespace_if_not_exists(name.rsplit(".", 1)[0])
    return catalog.create_table_if_not_exists(
        name, columns, partition_spec=spec, properties=TABLE_PROPERTIES
    )


def add_columns(table: Table, schema: pa.Schema) -> None:
    """Add the columns that a table lacks, and widen those that would not hold the new values.

    Raises:
        LorelineError: a column of another type is there.
    """
    there, wanted = table.schema(), _columns(schema)
    held = {field.name for field in wanted.fields if _holds(there, field)}
    if len(held) == len(wanted.fields):
        return
    with table.update_schema() as update:
        for name in (field.name for field in wanted.fields if field.name not in held):
            try:
                update.union_by_name(pa.schema([schema.field(name)]))
            except (ValueError, ValidationError) as error:
                raise LorelineError(
                    f"column {name} of {'.'.join(table.name())} is"
                    f" {there.find_type(name)}, and cannot become {wanted.find_type(name)}",
                    "run its model with --full-refresh, or give the column another name",
                ) from error
    table.refresh()


def replace_layout(
    transaction: Transaction, schema: pa.Schema, partition_by: tuple[str, ...]
) -> None:
    """Give a table the columns and the partitioning that it would be created with.

    For an overwrite: a column that is gone, or has another type, is another one for Iceberg, so
    that snapshots before it still read their own. Columns by which the table is or was partitioned
    stay, because old files are found by them.

    Raises:
        LorelineError: such a column has another type now.
    """
    metadata = transaction.table_metadata
    old, new = metadata.schema(), _columns(schema)
    kept = {
        name
        for name in set(old.column_names) & {field.name for field in new.fields}
        if _arrow_type(old.find_type(name)) == _arrow_type(new.find_type(name))
    }
    sources = {field.source_id for spec in metadata.partition_specs for field in spec.fields}
    partitioned = {field.name for field in old.fields if field.field_id in sources}
    if changed := sorted(partitioned & set(new.column_names) - kept):
        raise LorelineError(
            f"column {changed[0]}, by which the table is partitioned, has another type now",
            "give it another name, or drop the table",
        )
    gone = [field.name for field in old.fields if field.name not in kept | partitioned]
    added = [field for field in new.fields if field.name not in kept]
    if gone or added:
        with transaction.update_schema() as update:
            for name in gone:
                update.delete_column(name)
            for field in added:
                update.add_column(field.name, field.field_type)
    _order_columns(transaction, [field.name for field in new.fields])
    _replace_partitioning(transaction, partition_by)


def _order_columns(transaction: Transaction, names: list[str]) -> None:
    there = [field.name for field in transaction.table_metadata.schema().fields]
    if there[: len(names)] == names:
        return
    with transaction.update_schema() as update:
        update.move_first(names[0])
        for before, name in itertools.pairwise(names):
            update.move_after(name, before)


def _replace_partitioning(transaction: Transaction, partition_by: tuple[str, ...]) -> None:
    metadata = transaction.table_metadata
    have = {
        field.name: (metadata.schema().find_column_name(field.source_id), str(field.transform))
        for field in metadata.spec().fields
    }
    fields = [_partition(expression) for expression in partition_by]
    wanted = {name: (source, str(transform)) for source, transform, name in fields}
    if have == wanted:
        return
    with transaction.update_spec() as update:
        for name in have.keys() - wanted.keys():
            update.remove_field(name)
        for source, transform, name in fields:
            if name not in have:
                update.add_field(source, transform, name)


def _holds(schema: Schema, field: NestedField) -> bool:
    """Whether a schema has a column that takes the field's values."""
    if field.name not in schema.column_names:
        return False
    there = schema.find_field(field.name).field_type
    if _arrow_type(there) == _arrow_type(field.field_type):
        return True
    try:
        promote(field.field_type, there)
    except ResolveError:
        return False
    return True


def _arrow_type(kind: IcebergType) -> pa.DataType:
    """A form to compare, since Iceberg's nested types are unlike when their fields' ids are."""
    return schema_to_pyarrow(kind, include_field_ids=False)


def _columns(schema: pa.Schema) -> Schema:
    """The Iceberg schema of an Arrow schema, its columns numbered from 1."""
    version = int(TABLE_PROPERTIES["format-version"])
    try:
        return assign_fresh_schema_ids(Catalog._convert_schema_if_needed(schema, version))
    except (UnsupportedPyArrowTypeException, ValueError) as error:
        raise LorelineError(
            f"Iceberg cannot store these columns ({error})", "cast the column in its model"
        ) from error


def _partition(expression: str) -> tuple[str, Transform, str]:
    """Column, transform and name of a partition field, from `month(at)` or `bucket(id, 16)`."""
    transform, _, column = expression.rstrip(")").partition("(")
    if not column:
        return expression, parse_transform("identity"), expression
    column, _, argument = column.partition(",")
    text = f"{transform}[{argument.strip()}]" if argument else transform
    return column, parse_transform(text), f"{column}_{transform}"
