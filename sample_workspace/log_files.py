"""Writes log files of the story's services from templates, rates and moments.

`story/log_files/*.yaml`, one service a file, named like it:

    format: text                      # or jsonl
    windows: {storm: 2026-09-17T11:42/2026-09-17T12:21}
    lines:
    - level: WARN
      says: 'payment attempt {attempt} of 3 failed: timeout after {ms} ms'
      with: {attempt: [1, 2, 3], ms: 3000..3009}   # a choice, or a range of whole numbers
      rate: {storm: 90}               # so many an hour
      fields: {status: 503, duration_ms: 3000..9100}   # jsonl only
      trace: [goroutine 1 …]          # continuation lines, text only
    - level: INFO
      says: 'flag till.corrigan.retry is off'
      at: 2026-09-17T12:21:07.114     # one moment instead of a rate

Where `says` is a list, its lines share a request; each but the first follows `every` milliseconds
later (a range) and may have a level, fields and a trace of its own. Every variation comes from
`digest`, so that the files are the same each time.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from company import digest, iso, moment

Json = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """One entry of a log."""

    at: datetime
    text: str


def read_logs(folder: Path) -> dict[str, tuple[str, list[Line]]]:
    """By service the format of its file, and all its lines in the order of their times."""
    logs = {}
    for path in sorted(folder.glob("*.yaml")):
        told = yaml.safe_load(path.read_text())
        lines = [
            line
            for i, entry in enumerate(told["lines"])
            for line in entries(path.stem, told, i, entry)
        ]
        logs[path.stem] = (told["format"], sorted(lines, key=lambda line: line.at))
    return logs


def log_files(
    logs: dict[str, tuple[str, list[Line]]], until: datetime, rotated: dict[str, datetime]
) -> Json:
    """Content of the log files at a time; what is older than a rotation is in a file beside."""
    files: Json = {"export.json": {"exported_at": iso(until), "complete": False}}
    for service, (form, lines) in logs.items():
        name = f"{service}.log" if form == "text" else f"{service}.jsonl"
        since = rotated.get(service)
        old = [line.text for line in lines if since and line.at < since]
        new = [line.text for line in lines if line.at <= until and not (since and line.at < since)]
        files[name] = "".join(new)
        if old:
            files[f"{name}.1.gz"] = gzip.compress("".join(old).encode(), mtime=0)
    return files


def entries(service: str, told: Json, number: int, entry: Json) -> Iterator[Line]:
    """The lines of one template, at its moment or as often as its rates say."""
    if "at" in entry:
        yield from request(service, told, entry, moment(entry["at"]), str(number))
    for window, per_hour in entry.get("rate", {}).items():
        begins, _, ends = told["windows"][window].partition("/")
        start, seconds = moment(begins), (moment(ends) - moment(begins)).total_seconds()
        for i in range(round(per_hour * seconds / 3600)):
            name = f"{number}/{window}/{i}"
            at = start + timedelta(seconds=seconds * share(service, name, "at"))
            yield from request(service, told, entry, at, name)


def request(service: str, told: Json, entry: Json, at: datetime, name: str) -> Iterator[Line]:
    """The lines of one request."""
    chosen = {key: pick(value, service, name, key) for key, value in entry.get("with", {}).items()}
    request_id = "req-" + digest("request", service, name)[:6]
    steps = entry["says"] if isinstance(entry["says"], list) else [entry["says"]]
    for i, told_step in enumerate(steps):
        step = entry | (told_step if isinstance(told_step, dict) else {"says": told_step})
        if i:
            at += timedelta(milliseconds=pick(step["every"], service, name, str(i)))
        fields = {
            key: pick(value, service, name, key) for key, value in step.get("fields", {}).items()
        }
        message = step["says"].format(**chosen)
        if told["format"] == "text":
            lines = [f"{iso(at)} {step['level']:<5} {service} [{request_id}] {message}"]
            lines += [f"    {line.format(**chosen)}" for line in step.get("trace", [])]
            yield Line(at, "\n".join(lines) + "\n")
            continue
        head = {"ts": iso(at), "level": step["level"].lower(), "service": service, "msg": message}
        record = head | {"request_id": request_id} | fields
        yield Line(at, json.dumps(record, ensure_ascii=False) + "\n")


def pick(value: Any, *names: str) -> Any:
    """One of a list, a whole number of a range such as `180..900`, or the value itself."""
    if isinstance(value, list):
        return value[int(share(*names) * len(value))]
    if isinstance(value, str) and ".." in value:
        low, high = map(int, value.split(".."))
        return low + int(share(*names) * (high - low + 1))
    return value


def share(*names: str) -> float:
    """A number from 0 up to 1 that depends on the names alone."""
    return int(digest("log", *names)[:12], 16) / 16**12
