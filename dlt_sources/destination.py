"""The destination of every source: Iceberg tables in the catalog's own warehouse.

dlt's `filesystem` destination keeps tables and state in one bucket and, where no catalog is
configured, its catalog silently in memory. Here the tables live where the catalog puts them and
dlt's state in the landing bucket. A job is one commit of `loreline.lake.commits`: streamed from its
Parquet file, and skipped where a snapshot already names it, so that a process killed between commit
and state doubles nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.destination.client import LoadJob, PreparedTableSchema, RunnableLoadJob
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.normalizers.naming import NamingConvention
from dlt.common.schema import Schema
from dlt.common.storages.load_package import ParsedLoadJobFileName
from dlt.destinations import filesystem
from dlt.destinations.impl.filesystem.configuration import FilesystemDestinationClientConfiguration
from dlt.destinations.impl.filesystem.filesystem import FilesystemClient

from loreline.lake.catalog import find_table, load_catalog
from loreline.lake.commits import Commit, Writer, append
from loreline.settings import Settings

READ_ROWS = 16_384


class LakeClient(FilesystemClient):
    """dlt's client, with the tables in the catalog."""

    lake: Lake

    def get_open_table_catalog(self, table_format: str, catalog_name: str | None = None) -> Any:  # type: ignore[override]
        """The configured catalog; never one in memory."""
        return load_catalog(self.lake.settings)

    def get_open_table_location(
        self, table_format: str, table_name: str, schema_name: str | None = None
    ) -> str:
        """Where the catalog put the table."""
        return self.load_open_table(table_format, table_name).location()

    def load_open_table(self, table_format: str, table_name: str, **_: Any) -> Any:  # type: ignore[override]
        """The table as the catalog knows it."""
        table = find_table(load_catalog(self.lake.settings), self.lake.table(table_name))
        if table is None:
            raise DestinationUndefinedEntity(table_name)
        return table

    def get_load_job_class(self, table: PreparedTableSchema, file_path: str) -> type[LoadJob]:
        """One commit for each file of a table; dlt's own tables are files in the bucket."""
        if table.get("table_format") == "iceberg":
            return AppendJob
        return super().get_load_job_class(table, file_path)


class AppendJob(RunnableLoadJob):
    """Appends one Parquet file of a load package as one snapshot."""

    _job_client: LakeClient

    def run(self) -> None:
        """Commit, unless a snapshot of the table names this job."""
        lake = self._job_client.lake
        job = ParsedLoadJobFileName.parse(self._file_path)
        commit = append(
            lake.settings,
            lake.table(job.table_name),
            self._reader,
            writer=lake.writer,
            job_id=f"{self._load_id}/{job.job_id()}",
            properties={"load-id": self._load_id},
        )
        if commit:
            lake.committed(commit)

    def _reader(self) -> pa.RecordBatchReader:
        """The rows of the file, with the id of their load package, a few at a time."""
        file = pq.ParquetFile(self._file_path)
        schema = file.schema_arrow.append(pa.field("_dlt_load_id", pa.string()))
        return pa.RecordBatchReader.from_batches(
            schema,
            (
                batch.append_column("_dlt_load_id", pa.repeat(self._load_id, batch.num_rows))
                for batch in file.iter_batches(READ_ROWS)
            ),
        )


class Lake(filesystem):
    """A dlt destination: `dlt.pipeline(destination=Lake(settings, namespace, writer))`.

    Args:
        settings: the stores; `require_stores` must hold.
        namespace: the tables' namespace in the catalog, the target's prefix included.
        writer: who the commits name.
        committed: called with each commit.
    """

    # Where dlt looks for the arguments that are its own.
    __orig_base__ = filesystem

    def __init__(
        self,
        settings: Settings,
        namespace: str,
        writer: Writer,
        committed: Callable[[Commit], None] = lambda commit: None,
    ) -> None:
        settings.require_stores()
        self.settings = settings
        self.namespace = namespace
        self.writer = writer
        self.committed = committed
        super().__init__(
            bucket_url=f"{settings.landing_url.rstrip('/')}/dlt",
            credentials=_credentials(settings),
            destination_name="lake",
        )

    @property
    def client_class(self) -> type[LakeClient]:
        """The class of the client that dlt makes for each step."""
        return LakeClient

    def table(self, name: str) -> str:
        """A table's name in the catalog."""
        return f"{self.namespace}.{name}"

    def capabilities(
        self,
        config: FilesystemDestinationClientConfiguration | None = None,
        naming: NamingConvention | None = None,
    ) -> DestinationCapabilitiesContext:
        """What the destination can do.

        dlt asks twenty times in a load, and would look for the same configuration each time.
        """
        return super().capabilities(config or self._configuration, naming)

    @cached_property
    def _configuration(self) -> FilesystemDestinationClientConfiguration:
        # What only a client is given, the names of a dataset and a folder, is not in it.
        return self.configuration(self.spec(), accept_partial=True)

    def client(
        self,
        schema: Schema,
        initial_config: FilesystemDestinationClientConfiguration | None = None,
    ) -> LakeClient:
        """A client that knows the lake."""
        client = super().client(schema, initial_config)  # type: ignore[arg-type]
        assert isinstance(client, LakeClient)
        client.lake = self
        return client


def _credentials(settings: Settings) -> dict[str, str] | None:
    if not settings.landing_url.startswith("s3:"):
        return None
    return {
        "aws_access_key_id": settings.s3_access_key_id,
        "aws_secret_access_key": settings.s3_secret_access_key,
        "endpoint_url": settings.s3_endpoint,
        "region_name": settings.s3_region,
    }
