"""What tests have done in processes of their own: landing, building, maintaining, commands.

The processes are forked from one that has imported everything, so that each begins at once. Nothing
else is shared: environment, connections and dbt's state are a process's own, and it can be killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from loreline.settings import Settings

IMPORTED_ONCE = [
    "dbt.adapters.duckdb",
    "dbt.cli.main",
    "dbt.task.build",
    "dlt_sources.live_sources",
    "dlt_sources.pipeline",
    "loreline.cli.app",
    "loreline.contracts.suite",
    "great_expectations",
    "loreline.dbt_plugin",
    "loreline.lake.maintenance",
    "loreline.serving.collections",
    "pytest",
    "s3fs",
    "sentence_transformers",
    # Of the Python models.
    "loreline.backfill",
    "loreline.conversations.requests",
    "loreline.datasets.near_copies",
    "loreline.datasets.training_text",
    "loreline.evaluation.clusters",
    "loreline.evaluation.vectors",
    "loreline.knowledge.chunking",
    "loreline.knowledge.sentence_vectors",
    "loreline.review.contents",
    "loreline.serving.lineage",
    "tests.warmed",
]

STARTED, DONE, FAILED = "started", "done", "failed"

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(IMPORTED_ONCE)


class StepError(AssertionError):
    """A step that ended with an error; the message says how."""


class Step:
    """A step that runs, or has run, in a process of its own."""

    def __init__(self, name: str, environment: Mapping[str, str], **arguments: Any) -> None:
        self.name = name
        self._said: tuple[str, Any] = (STARTED, None)
        self._outcome, theirs = _processes.Pipe(duplex=False)
        self._process = _processes.Process(
            target=_run, args=(name, dict(environment), arguments, theirs), daemon=True
        )
        self._process.start()
        theirs.close()

    def wait_until_started(self) -> None:
        """Return when the step's own work begins, after what any run of it has to do first.

        Where there is none to do, it ends without having begun.
        """
        self._said = self._receive()

    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process.is_alive()

    def kill(self, after: float) -> bool:
        """`kill -9` after so many seconds; gives whether the step was still at work by then."""
        self._process.join(after)
        was_running = self._process.is_alive()
        self._process.kill()
        self._process.join()
        return was_running

    def result(self) -> Any:
        """Wait for the end; what the step gave.

        Raises:
            StepError: it failed, or died.
        """
        kind, value = self._said
        while kind == STARTED:
            kind, value = self._receive()
        self._process.join()
        if kind == FAILED:
            raise StepError(f"{self.name}: {value}")
        return value

    def _receive(self) -> tuple[str, Any]:
        try:
            return self._outcome.recv()
        except EOFError:
            self._process.join()
            raise StepError(
                f"{self.name}: the process ended with {self._process.exitcode}"
            ) from None


@dataclass
class Build:
    """What a build did.

    Attributes:
        messages: dbt's line for each node, by its name.
        faults: the same for what failed.
        encoded: SHA-256 of each text that was given to the embedding model, in that order.
        times: when each node began and ended, in seconds after the first one began.
    """

    messages: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    encoded: list[str] = field(default_factory=list)
    times: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass
class Command:
    """What a `loreline` command printed, and its exit code."""

    exit_code: int
    output: str
    errors: str


def land(began: Callable[[], None], **arguments: Any) -> Any:
    """Land a source; the arguments are those of `dlt_sources.load`."""
    from dlt_sources import load

    began()
    return load(Settings.load(), **arguments)


def ingest_gateway(
    began: Callable[[], None], stops: str, per_commit: int, ack_wait: float = 30.0
) -> None:
    """Land the gateway's streams, and stop for ever in the midst of it.

    Args:
        began: called there.
        stops: before the commit, or after the commit and before it is said.
        per_commit: messages or rows.
        ack_wait: seconds after which NATS takes this for dead.
    """
    import dlt_sources.live
    from dlt_sources.gateway import inbox, jetstream
    from dlt_sources.gateway.live import gateway_streams

    def stop(*_: Any) -> None:
        began()
        time.sleep(3600)

    jetstream.MESSAGES_PER_COMMIT = inbox.MESSAGES_PER_COMMIT = per_commit
    jetstream.ACK_WAIT = ack_wait
    if stops == "before the commit":
        dlt_sources.live.land_tables = stop
    else:
        jetstream.Consumer.settle = inbox.Inbox.consume = stop  # type: ignore[method-assign]
    settings = Settings.load()
    streams = gateway_streams(settings)
    assert streams
    dlt_sources.live.load_live(settings, "gateway", streams)


def build(
    began: Callable[[], None],
    project: Path,
    arguments: list[str],
    *,
    encode_alone: bool,
    from_node: str | None = None,
) -> Build:
    """Run dbt on a project.

    Args:
        began: called when a node begins: the first one, or `from_node`.
        project: its folder.
        arguments: those of dbt: `["run", "--select", "documents"]`; or `["--changed"]`, and then
            what to select from.
        encode_alone: use one thread for the embedding model. More of them wait for each other where
            the model is tiny and the machine busy.
    """
    import torch
    from dbt.cli.main import dbtRunner

    from loreline.cli.build import manifest, selected
    from loreline.embedding import SentenceEncoder
    from loreline.operations.changed import Run, build_changed

    if encode_alone:
        torch.set_num_threads(1)

    done = Build()
    encode = SentenceEncoder.encode
    starts: dict[str, float] = {}
    invocations: list[str] = []

    def counting(self: SentenceEncoder, texts: list[str]) -> Any:
        done.encoded += [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        return encode(self, texts)

    def note(event: Any) -> None:
        invocations.append(event.info.invocation_id)
        if event.info.name not in ("NodeStart", "NodeFinished"):
            return
        node, now = event.data.node_info.node_name, time.monotonic()
        if event.info.name == "NodeFinished":
            first = min(starts.values())
            done.times[node] = starts[node] - first, now - first
        elif node not in starts:
            starts[node] = now
            if node == from_node or (from_node is None and len(starts) == 1):
                began()

    SentenceEncoder.encode = counting
    folders = ["--project-dir", str(project), "--profiles-dir", str(project)]
    quiet = ["--log-level", "none", "--log-level-file", "none", "--no-write-json"]

    def run(complete: list[str], parsed: Any = None) -> Run:
        dbt = dbtRunner(manifest=parsed, callbacks=[note])
        result = dbt.invoke([*complete, *folders, *quiet])
        if result.exception:
            raise result.exception
        for outcome in result.result or []:
            done.messages[outcome.node.name] = str(outcome.message)
            if outcome.status in ("error", "fail", "runtime error", "skipped"):
                done.faults[outcome.node.name] = f"{outcome.status}: {outcome.message}"
        return Run(invocations[-1], int(bool(done.faults)), list(result.result or []))

    if arguments[0] == "--changed":
        settings = Settings.load()
        parsed = manifest(settings, project)
        within = selected(settings, project, parsed, arguments[1:])
        build_changed(
            settings, project, parsed, within, lambda stale: run(["build", *stale], parsed)
        )
    else:
        run(arguments)
    return done


def dbt(began: Callable[[], None], arguments: list[str]) -> Command:
    """Run dbt as from a command line."""
    from dbt.cli.main import dbtRunner

    began()
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        result = dbtRunner().invoke(arguments)
        if result.exception:
            print(result.exception)
    return Command(0 if result.success else 1, output.getvalue(), "")


def maintain(began: Callable[[], None], days_later: float) -> list[str]:
    """Maintain all tables as if the present were so many days later."""
    from loreline.lake.maintenance import maintain

    began()
    now = datetime.now(UTC) + timedelta(days=days_later)
    return [str(action) for action in maintain(Settings.load(), now=now)]


def command(began: Callable[[], None], arguments: list[str]) -> Command:
    """Run a `loreline` command."""
    from loreline.cli import main

    began()
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        exit_code = main(arguments)
    return Command(exit_code, output.getvalue(), errors.getvalue())


def encode(began: Callable[[], None], texts: list[str]) -> list[Any]:
    """Vectors of texts by the default model."""
    from loreline.embedding import EmbeddingConfiguration, load_encoder

    began()
    return list(load_encoder(EmbeddingConfiguration(), Settings.load()).encode(texts))


def make_model(
    began: Callable[[], None],
    folder: Path,
    tokenizer: Path,
    dimensions: int,
    prompts: dict[str, str] | None = None,
) -> None:
    """Save a real, untrained sentence-transformers model: two layers of BERT, always the same.

    One with prompts uses that for documents by default, and gives vectors of any length.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from transformers import AutoTokenizer, BertConfig, BertModel

    began()
    words = AutoTokenizer.from_pretrained(str(tokenizer))
    torch.manual_seed(0)
    bert = BertModel(
        BertConfig(
            vocab_size=len(words),
            hidden_size=dimensions,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=2 * dimensions,
        )
    )
    parts = folder / "bert"
    bert.save_pretrained(parts)
    words.save_pretrained(parts)
    transformer = Transformer(str(parts), max_seq_length=256)
    modules = [transformer, Pooling(dimensions), *([] if prompts else [Normalize()])]
    SentenceTransformer(
        modules=modules,
        prompts=prompts,
        default_prompt_name="document" if prompts else None,
    ).save(str(folder))


def small_slices() -> None:
    """Cut loads and pushes as small as if they were many times larger."""
    import dlt_sources.landing
    import dlt_sources.pipeline
    import loreline.serving.collections

    dlt_sources.landing.SLICE_ROWS = 150
    dlt_sources.pipeline.PACKAGE_BYTES = 64 * 1024
    loreline.serving.collections.ROWS_PER_SWAP = 30
    loreline.serving.collections.ROWS_PER_COPY = 100


STEPS: dict[str, Callable[..., Any]] = {
    step.__name__: step
    for step in (land, ingest_gateway, build, dbt, maintain, command, encode, make_model)
}


def _run(
    name: str, environment: Mapping[str, str], arguments: dict[str, Any], outcome: Connection
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    try:
        if arguments.pop("in_small_slices", False):
            small_slices()
        value = STEPS[name](lambda: outcome.send((STARTED, None)), **arguments)
        outcome.send((DONE, value))
    except BaseException:
        outcome.send((FAILED, traceback.format_exc()))
