"""Issues of GitHub repositories, with their comments, through the REST API."""

from dlt_sources.github.live import GitHub
from dlt_sources.github.settings import ISSUES

__all__ = ["ISSUES", "GitHub"]
