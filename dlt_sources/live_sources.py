"""The sources that can be read through an API, and whether the settings say how."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dlt_sources.gateway.live import gateway_streams
from dlt_sources.github import GitHub
from dlt_sources.google_docs.live import live_google_docs
from dlt_sources.linear.live import live_linear
from dlt_sources.live import LiveSource
from dlt_sources.notion.live import live_notion
from dlt_sources.slack.live import SlackLive
from loreline.settings import Settings

# Each gives the source where the settings name its credentials, and None where they do not.
LIVE_SOURCES: Mapping[str, Callable[[Settings], LiveSource | None]] = {
    "github": GitHub.of,
    "gateway": gateway_streams,
    "notion": live_notion,
    "google_docs": live_google_docs,
    "slack": SlackLive.of,
    "linear": live_linear,
}


def live_source(settings: Settings, source: str) -> LiveSource | None:
    """How a source is read through its API; None where it has none, or no credentials are set."""
    made = LIVE_SOURCES.get(source)
    return made(settings) if made else None
