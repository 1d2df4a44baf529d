"""Sets of replays: themes × nodes × models × parameters, from a YAML file.

themes: [support-drafts]      # the nodes of these themes, as `nodes` says …
nodes: leaves                 # all, roots or leaves; or a list of ids, then without `themes`
limit: 20                     # at most so many nodes of each theme
models: [qwen2.5-7b-instruct, mistral-small-24b-instruct]
parameters:                   # each with each model; leave it out to ask as it was asked
  - {temperature: 0}
  - {temperature: 0.8, top_p: 0.95}
repetitions: 3                # answers of each
subtree: false
system: prompts/brief.txt     # files, relative to this one
tools: tools.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from loreline.errors import LorelineError
from loreline.replay.contexts import CHOICES, Contexts, Node
from loreline.replay.plan import Change

Json = Any


@dataclass(frozen=True)
class ReplaySet:
    """What to replay, and how.

    Attributes:
        themes: whose nodes; then `nodes` is one word.
        nodes: beginnings of ids, or one of `contexts.CHOICES`.
        limit: nodes of each theme; None for all.
        models: to ask; none asks the model that was asked.
        parameters: each with each model.
        repetitions: answers of each.
        subtree: whether later turns follow.
        system: text in the place of the system's; None leaves it.
        tools: to offer instead; None leaves them.
    """

    themes: list[str] = field(default_factory=list)
    nodes: list[str] | str = "all"
    limit: int | None = None
    models: list[str] = field(default_factory=list)
    parameters: list[dict[str, Json]] = field(default_factory=list)
    repetitions: int = 1
    subtree: bool = False
    system: str | None = None
    tools: list[Json] | None = None

    def changes(self) -> list[Change]:
        """Each model with each parameters."""
        return [
            Change(model, parameters, self.tools, self.system)
            for model, parameters in product(self.models or [None], self.parameters or [{}])
        ]

    def find(self, contexts: Contexts) -> list[Node]:
        """The nodes.

        Raises:
            LorelineError: one is not there, or a theme has none.
        """
        if not self.themes:
            found = [contexts.node(given) for given in self.nodes]
            return list({node.branch_node_id: node for node in found}.values())
        nodes = []
        for theme in self.themes:
            of_theme = contexts.of_theme(theme, str(self.nodes), self.limit)
            if not of_theme:
                raise LorelineError(
                    f"theme {theme} has no node to replay", "`loreline sessions` shows themes"
                )
            nodes += of_theme
        return nodes


def read_set(path: Path) -> ReplaySet:
    """Read a set from a file.

    Raises:
        LorelineError: it is not there, or says something that a set does not have.
    """
    try:
        given = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LorelineError(
            f"{path} cannot be read ({' '.join(str(error).split())})", "give a YAML file"
        ) from error
    if not isinstance(given, dict):
        raise LorelineError(f"{path} is no set of replays", "it begins with `models:` or `themes:`")
    for name, value in given.items():
        if name not in _KINDS:
            raise LorelineError(f"{path}: there is no {name}", f"use {', '.join(_KINDS)}")
        if not _KINDS[name][1](value):
            raise LorelineError(f"{path}: {name} is {value!r}", f"it is {_KINDS[name][0]}")
    if isinstance(given.get("nodes"), list) == bool(given.get("themes")):
        raise LorelineError(
            f"{path} does not say which nodes",
            f"give `themes`, and `nodes` as {', '.join(CHOICES)}; or a list of ids as `nodes`",
        )
    if "system" in given:
        given["system"] = read_text(path.parent / given["system"])
    if "tools" in given:
        given["tools"] = read_tools(path.parent / given["tools"])
    return ReplaySet(**given)


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        LorelineError: it cannot be read.
    """
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise LorelineError(f"{path} cannot be read ({error})", "give a text file") from error


def read_tools(path: Path) -> list[Json]:
    """Tools, as a request offers them: a JSON list.

    Raises:
        LorelineError: the file holds something else.
    """
    try:
        tools = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise LorelineError(f"{path} is no JSON ({error})", "give a list of tools") from error
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise LorelineError(f"{path} holds no list of tools", "as in the field `tools` of a call")
    return tools


def _is_texts(value: Json) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def _is_count(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_parameters(value: Json) -> bool:
    return isinstance(value, dict) and not value.keys() & set(_NO_PARAMETERS)


def _is_text(value: Json) -> bool:
    return isinstance(value, str)


# Of a request, but said otherwise, or not to be chosen.
_NO_PARAMETERS = ("model", "messages", "tools", "functions", "n", "stream", "stream_options")

# What each entry is, and a check of it.
_KINDS: Mapping[str, tuple[str, Any]] = {
    "themes": ("a list of ids", _is_texts),
    "nodes": (
        f"one of {', '.join(CHOICES)}, or a list of ids",
        lambda value: _is_texts(value) or value in list(CHOICES),
    ),
    "limit": ("a whole number above 0", _is_count),
    "models": ("a list of names", _is_texts),
    "parameters": (
        f"a list of mappings, such as {{temperature: 0}}, without {', '.join(_NO_PARAMETERS)}",
        lambda value: isinstance(value, list) and all(map(_is_parameters, value)),
    ),
    "repetitions": ("a whole number above 0", _is_count),
    "subtree": ("true or false", lambda value: isinstance(value, bool)),
    "system": ("a file's name", _is_text),
    "tools": ("a file's name", _is_text),
}
