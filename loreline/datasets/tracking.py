"""The MLflow entry of a frozen dataset: a run that has the dataset as its input."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loreline.errors import LorelineError
from loreline.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

NAME_TAG = "loreline.snapshot_name"
# MLflow keeps no longer ones.
DIGEST_CHARACTERS = 36


def record_run(
    settings: Settings,
    name: str,
    *,
    address: str,
    digest: str,
    columns: tuple[tuple[str, str], ...],
    row_count: int,
    tags: Mapping[str, str],
) -> str:
    """Make the run of a frozen dataset; gives its id.

    Args:
        settings: where MLflow keeps its runs.
        name: of the frozen dataset.
        address: of its files.
        digest: SHA-256 of its content.
        columns: names and types.
        row_count: how many rows it has.
        tags: of the run.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    client = _client(settings)
    entry = Dataset(
        name=name,
        digest=digest[:DIGEST_CHARACTERS],
        source_type="s3",
        source=json.dumps({"uri": address}),
        schema=json.dumps({"columns": [{"name": n, "type": kind} for n, kind in columns]}),
        profile=json.dumps({"num_rows": row_count}),
    )
    run = client.create_run(
        _experiment(client, settings), run_name=name, tags={NAME_TAG: name, **tags}
    )
    use = InputTag("mlflow.data.context", "training")
    client.log_inputs(run.info.run_id, [DatasetInput(entry, [use])])
    client.set_terminated(run.info.run_id)
    return run.info.run_id


def forget_runs(settings: Settings, name: str) -> None:
    """Delete the runs of a name that was never frozen: a freeze was killed before that."""
    client = _client(settings)
    experiment = client.get_experiment_by_name(_experiment_name(settings))
    if experiment is None:
        return
    for run in client.search_runs([experiment.experiment_id], f"tags.`{NAME_TAG}` = '{name}'"):
        client.delete_run(run.info.run_id)


def run_of(settings: Settings, run_id: str) -> Any:
    """A run, as MLflow gives it."""
    return _client(settings).get_run(run_id)


def _client(settings: Settings) -> MlflowClient:
    from loreline.stack.environment import NO_TELEMETRY

    # Read when MLflow is imported.
    os.environ.update(NO_TELEMETRY)
    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    (settings.home / "mlflow").mkdir(parents=True, exist_ok=True)
    address = settings.mlflow_tracking_uri or f"sqlite:///{settings.home / 'mlflow' / 'mlflow.db'}"
    try:
        return MlflowClient(tracking_uri=address)
    except MlflowException as error:
        raise LorelineError(
            "MLflow cannot be reached", "check LORELINE_MLFLOW_TRACKING_URI"
        ) from error


def _experiment(client: MlflowClient, settings: Settings) -> str:
    name = _experiment_name(settings)
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    # By default MLflow would make a folder for files where the command runs.
    own = None if settings.mlflow_tracking_uri else str(settings.home / "mlflow" / "artifacts")
    return client.create_experiment(name, artifact_location=own)


def _experiment_name(settings: Settings) -> str:
    return f"{settings.prefix}datasets"
