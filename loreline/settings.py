"""Every address, credential and limit, read from `LORELINE_*` environment variables.

The local stack writes the variables it stands for into `<state folder>/stack.json`; the
environment outranks that file, so the same project runs against any catalog, object store and
Postgres.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from loreline.errors import LorelineError

PROJECT_ROOT = Path(__file__).resolve().parent.parent
TARGETS = ("local", "dev", "ci", "prod")
ON_BREACH = ("quarantine", "stop", "warn")
LOOPBACK = {"127.0.0.1", "localhost", "::1", ""}


def _variable(name: str, help_text: str, default: str = "", *, secret: bool = False) -> str:
    return field(  # type: ignore[return-value]
        default=default,
        repr=not secret,
        metadata={"variable": name, "help": help_text, "secret": secret},
    )


@dataclass(frozen=True)
class Settings:
    """The settings of one run. Empty text means: not set."""

    target: str = _variable("LORELINE_TARGET", "dbt target: local, dev, ci or prod", "local")
    namespace_suffix: str = _variable(
        "LORELINE_NAMESPACE", "what dev (a user) or ci (a run) puts before its names"
    )
    catalog_uri: str = _variable("LORELINE_CATALOG_URI", "Iceberg REST catalog")
    catalog_warehouse: str = _variable(
        "LORELINE_CATALOG_WAREHOUSE", "warehouse name in the catalog", "lake"
    )
    catalog_credential: str = _variable(
        "LORELINE_CATALOG_CREDENTIAL", "OAuth2 client as id:secret", secret=True
    )
    catalog_oauth2_uri: str = _variable(
        "LORELINE_CATALOG_OAUTH2_URI", "token endpoint; default: <catalog>/v1/oauth/tokens"
    )
    s3_endpoint: str = _variable("LORELINE_S3_ENDPOINT", "object store, as a URL")
    s3_region: str = _variable("LORELINE_S3_REGION", "region of the object store", "us-east-1")
    s3_access_key_id: str = _variable("LORELINE_S3_ACCESS_KEY_ID", "object store key id")
    s3_secret_access_key: str = _variable(
        "LORELINE_S3_SECRET_ACCESS_KEY", "object store key", secret=True
    )
    landing_url: str = _variable(
        "LORELINE_LANDING_URL", "bucket for dlt's state and large payloads", "s3://landing"
    )
    postgres_url: str = _variable(
        "LORELINE_POSTGRES_URL", "Postgres with pgvector, as a URL", secret=True
    )
    reader_catalog_credential: str = _variable(
        "LORELINE_READER_CATALOG_CREDENTIAL", "OAuth2 client that may only read", secret=True
    )
    reader_s3_access_key_id: str = _variable(
        "LORELINE_READER_S3_ACCESS_KEY_ID", "object store key id that may only read"
    )
    reader_s3_secret_access_key: str = _variable(
        "LORELINE_READER_S3_SECRET_ACCESS_KEY", "object store key that may only read", secret=True
    )
    reader_postgres_url: str = _variable(
        "LORELINE_READER_POSTGRES_URL", "Postgres as a role that may only read", secret=True
    )
    duckdb_memory_limit: str = _variable(
        "LORELINE_DUCKDB_MEMORY_LIMIT", "DuckDB spills to disk above this", "2GB"
    )
    threads: str = _variable("LORELINE_THREADS", "models that dbt builds at once", "2")
    model_path: str = _variable(
        "LORELINE_MODEL_PATH", "folder searched for embedding models before any hub"
    )
    search_dense_weight: str = _variable(
        "LORELINE_SEARCH_DENSE_WEIGHT",
        "what the meaning counts in a search, 0 to 1; the words count the rest",
        "0.5",
    )
    search_neighbors: str = _variable(
        "LORELINE_SEARCH_NEIGHBORS",
        "chunks before and after each answer that are shown with it",
        "0",
    )
    search_per_document: str = _variable(
        "LORELINE_SEARCH_PER_DOCUMENT",
        "most passages of one document; 0 does not gather answers by document",
        "0",
    )
    reranker_model: str = _variable(
        "LORELINE_RERANKER_MODEL",
        "cross-encoder that orders what was found once more: a hub id, a folder, or the name of a"
        " folder below LORELINE_MODEL_PATH; none by default",
    )
    gateway_url: str = _variable(
        "LORELINE_GATEWAY_URL",
        "OpenAI-compatible API for replays and judges, up to and with its `/v1`",
    )
    gateway_api_key: str = _variable("LORELINE_GATEWAY_API_KEY", "its key", secret=True)
    gateway_records: str = _variable(
        "LORELINE_GATEWAY_RECORDS",
        "`true` where that gateway records calls, so that a replay does not",
        "false",
    )
    notion_token: str = _variable(
        "LORELINE_NOTION_TOKEN",
        "integration token: Notion is then read through its API",
        secret=True,
    )
    notion_url: str = _variable("LORELINE_NOTION_URL", "Notion's API", "https://api.notion.com")
    notion_version: str = _variable(
        "LORELINE_NOTION_VERSION", "version of Notion's API", "2025-09-03"
    )
    notion_rate: str = _variable(
        "LORELINE_NOTION_RATE", "requests to Notion per second; 0 for as many as it answers", "3"
    )
    slack_token: str = _variable(
        "LORELINE_SLACK_TOKEN", "bot token: Slack is then read through its API", secret=True
    )
    slack_url: str = _variable("LORELINE_SLACK_URL", "Slack's API", "https://slack.com/api")
    slack_rate: str = _variable(
        "LORELINE_SLACK_RATE", "requests to Slack per second; 0 for as many as it answers", "0.8"
    )
    slack_conversations: str = _variable(
        "LORELINE_SLACK_CONVERSATIONS",
        "kinds of conversations that are read through Slack's API",
        "public_channel,private_channel,mpim,im",
    )
    slack_lookback_hours: str = _variable(
        "LORELINE_SLACK_LOOKBACK_HOURS",
        "hours before a channel's newest message from which on each run reads it again",
        "48",
    )
    linear_api_key: str = _variable(
        "LORELINE_LINEAR_API_KEY", "key: Linear is then read through its API", secret=True
    )
    linear_url: str = _variable(
        "LORELINE_LINEAR_URL", "Linear's API", "https://api.linear.app/graphql"
    )
    linear_rate: str = _variable(
        "LORELINE_LINEAR_RATE", "requests to Linear per second; 0 for as many as it answers", "0.4"
    )
    google_credentials: str = _variable(
        "LORELINE_GOOGLE_CREDENTIALS",
        "file with a service account's key, or an OAuth access token: Google Docs are then read"
        " through the APIs",
        secret=True,
    )
    google_url: str = _variable(
        "LORELINE_GOOGLE_URL", "the API of Google Drive", "https://www.googleapis.com"
    )
    google_docs_url: str = _variable(
        "LORELINE_GOOGLE_DOCS_URL", "the API of Google Docs", "https://docs.googleapis.com"
    )
    google_channel_url: str = _variable(
        "LORELINE_GOOGLE_CHANNEL_URL",
        "HTTPS address of `/webhooks/google-drive`: Drive is asked to notify there",
    )
    google_channel_token: str = _variable(
        "LORELINE_GOOGLE_CHANNEL_TOKEN", "token that Drive's channels are made with", secret=True
    )
    google_rate: str = _variable(
        "LORELINE_GOOGLE_RATE", "requests to Google per second; 0 for as many as it answers", "5"
    )
    github_token: str = _variable(
        "LORELINE_GITHUB_TOKEN",
        "token: GitHub issues are then read through the API",
        secret=True,
    )
    github_repositories: str = _variable(
        "LORELINE_GITHUB_REPOSITORIES", "whose issues: owner/name, several with commas between"
    )
    github_url: str = _variable("LORELINE_GITHUB_URL", "GitHub's API", "https://api.github.com")
    github_rate: str = _variable(
        "LORELINE_GITHUB_RATE", "requests to GitHub per second; 0 for as many as it answers", "1.3"
    )
    notion_webhook_token: str = _variable(
        "LORELINE_NOTION_WEBHOOK_TOKEN", "verification token of Notion's webhook", secret=True
    )
    slack_signing_secret: str = _variable(
        "LORELINE_SLACK_SIGNING_SECRET", "signing secret of the Slack app", secret=True
    )
    linear_webhook_secret: str = _variable(
        "LORELINE_LINEAR_WEBHOOK_SECRET", "signing secret of Linear's webhook", secret=True
    )
    events_token: str = _variable(
        "LORELINE_EVENTS_TOKEN", "bearer token of `/events` and `/v1/traces`", secret=True
    )
    max_events_megabytes: str = _variable(
        "LORELINE_MAX_EVENTS_MEGABYTES", "largest body that `/events` takes", "16"
    )
    inbox_attempts: str = _variable(
        "LORELINE_INBOX_ATTEMPTS", "attempts after which a delivery is parked", "8"
    )
    inbox_days: str = _variable(
        "LORELINE_INBOX_DAYS",
        "days that deliveries which are done are kept, to be known again",
        "7",
    )
    mask_secrets: str = _variable(
        "LORELINE_MASK_SECRETS",
        "`true` masks keys and tokens before anything lands, by `seeds/redaction_rules.csv`",
        "false",
    )
    nats_url: str = _variable(
        "LORELINE_NATS_URL",
        "servers of NATS, with commas between: gateway events are then read from JetStream",
        secret=True,
    )
    nats_stream: str = _variable(
        "LORELINE_NATS_STREAM", "JetStream stream; default: the one that holds the subject"
    )
    nats_subject: str = _variable(
        "LORELINE_NATS_SUBJECT", "subject of gateway events", "gateway.events.>"
    )
    nats_durable: str = _variable(
        "LORELINE_NATS_DURABLE", "name of the durable consumer", "loreline"
    )
    nats_credentials: str = _variable(
        "LORELINE_NATS_CREDENTIALS", "`.creds` file with the user's JWT and key"
    )
    event_inbox_url: str = _variable(
        "LORELINE_EVENT_INBOX_URL",
        "Postgres with a table of gateway events; default: our own, if the table is named",
        secret=True,
    )
    event_inbox_table: str = _variable(
        "LORELINE_EVENT_INBOX_TABLE",
        "that table, as schema.table; default: public.pipeline_event_inbox",
    )
    event_inbox_remove: str = _variable(
        "LORELINE_EVENT_INBOX_REMOVE",
        "`true` to delete its rows once they are landed, instead of marking them",
        "false",
    )
    sweep_hours: str = _variable(
        "LORELINE_SWEEP_HOURS",
        "hours after which all that a source has is listed again, to find what is gone",
        "24",
    )
    max_deleted_share: str = _variable(
        "LORELINE_MAX_DELETED_SHARE",
        "largest share of a source that one sweep may delete, 0 to 1",
        "0.15",
    )
    review_labels: str = _variable(
        "LORELINE_REVIEW_LABELS", "reviewers who are to judge each item of the queue", "1"
    )
    review_lock_seconds: str = _variable(
        "LORELINE_REVIEW_LOCK_SECONDS",
        "seconds that an item stays open for its reviewer without a sign of them",
        "600",
    )
    mlflow_tracking_uri: str = _variable(
        "LORELINE_MLFLOW_TRACKING_URI",
        "where frozen datasets are entered in MLflow; default: SQLite in LORELINE_HOME",
        secret=True,
    )
    snapshot_days: str = _variable(
        "LORELINE_SNAPSHOT_DAYS", "days that snapshots are kept for time travel", "30"
    )
    contracts: str = _variable(
        "LORELINE_CONTRACTS", "folder of the contracts; default: `contracts` in the checkout"
    )
    on_breach: str = _variable(
        "LORELINE_ON_BREACH",
        "quarantine, stop or warn: overrides what contracts say of rows that break them",
    )
    state_folder: str = _variable(
        "LORELINE_HOME", "where the local stack, spill files and pipeline state live"
    )

    @classmethod
    def load(cls) -> Settings:
        """Read the environment, then what the local stack remembers, then the defaults."""
        state_folder = Path(os.environ.get("LORELINE_HOME") or PROJECT_ROOT / ".loreline")
        remembered: dict[str, str] = {}
        stack_file = state_folder / "stack.json"
        if stack_file.exists():
            remembered = json.loads(stack_file.read_text())["variables"]
        values = {}
        for setting in fields(cls):
            name = setting.metadata["variable"]
            values[setting.name] = (
                os.environ.get(name) or remembered.get(name) or str(setting.default)
            )
        values["state_folder"] = str(state_folder)
        if values["target"] not in TARGETS:
            raise LorelineError(
                f"LORELINE_TARGET is {values['target']!r}", f"use one of {', '.join(TARGETS)}"
            )
        if values["on_breach"] not in ("", *ON_BREACH):
            raise LorelineError(
                f"LORELINE_ON_BREACH is {values['on_breach']!r}",
                f"use one of {', '.join(ON_BREACH)}",
            )
        return cls(**values)

    @property
    def home(self) -> Path:
        """The state folder."""
        return Path(self.state_folder)

    @property
    def contracts_folder(self) -> Path:
        """Where contracts are read from."""
        return Path(self.contracts) if self.contracts else PROJECT_ROOT / "contracts"

    @cached_property
    def prefix(self) -> str:
        """What namespaces, Postgres schemas and locks start with: `` for local and prod."""
        if self.target in ("local", "prod"):
            return ""
        # With the longest schema name behind it, a name in Postgres still has less than 64 bytes.
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", self.namespace_suffix):
            raise LorelineError(
                f"target {self.target} needs a name to put before its tables",
                "set LORELINE_NAMESPACE: at most 40 lower-case letters, digits and underscores",
            )
        return self.namespace_suffix + "_"

    @property
    def oauth2_uri(self) -> str:
        """The catalog's token endpoint."""
        return self.catalog_oauth2_uri or f"{self.catalog_uri.rstrip('/')}/v1/oauth/tokens"

    def number(self, name: str) -> float:
        """A setting that holds a number.

        Raises:
            LorelineError: it holds none, or a negative one.
        """
        text = getattr(self, name)
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if not 0 <= number < float("inf"):
            raise LorelineError(
                f"{variable(name)} is {text!r}, not a number", "write one, or unset it"
            )
        return number

    def environment(self) -> dict[str, str]:
        """The settings that are set, as environment variables."""
        pairs = {f.metadata["variable"]: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in pairs.items() if value}

    def as_reader(self) -> Settings:
        """The same stores with credentials that may only read, as far as such ones are set."""
        given = {
            f.name.removeprefix("reader_"): getattr(self, f.name)
            for f in fields(self)
            if f.name.startswith("reader_") and getattr(self, f.name)
        }
        return replace(self, **given)

    def require_stores(self) -> None:
        """Fail clearly when an address is missing or the target could write where it must not."""
        missing = [
            f.metadata["variable"]
            for f in fields(self)
            if f.name in ("catalog_uri", "s3_endpoint", "postgres_url")
            and not getattr(self, f.name)
        ]
        if missing:
            raise LorelineError(
                f"no address for the stores ({', '.join(missing)} not set)",
                "start the local stack with `loreline up`, or set the variables",
            )
        hosts = {urlsplit(u).hostname or "" for u in (self.catalog_uri, self.postgres_url)}
        if self.target == "local" and not hosts <= LOOPBACK:
            raise LorelineError(
                f"target local would write plain names to {', '.join(sorted(hosts - LOOPBACK))}",
                "set LORELINE_TARGET to dev, ci or prod",
            )


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return next(f.metadata["variable"] for f in fields(Settings) if f.name == name)
