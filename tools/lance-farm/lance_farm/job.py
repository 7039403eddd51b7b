"""A job's folder: everything that its workers need, on a folder that all of them see.

job.json        what prepare was told; a line for each input file
workflow.json   the graph
tasks.jsonl     a line per task: number, values, labels, request
inputs/         the files that tasks name, by the hash of their content
slurm.sh, openjd/    for the schedulers
identity.json   from submit on: the model's hash, backend and build that all results come from
todo/ running/ failed/ results/    each task is in one of them (claims.py, results.py)
workers/        a file for each worker that says that it lives (beats.py)
log/            what each worker did; work/ what is being made; submits/ who submitted when
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .errors import FarmError
from .files import read_json, write_first
from .programs import Facts
from .workflow import Graph, canonical, read_workflow, with_values

FOLDERS = ("inputs", "todo", "running", "failed", "results", "workers", "log", "work", "submits", "openjd")
FORMAT = 1
LEASE_SECONDS = 90.0  # over the minute for which NFS may show an old file


def task_name(number: int) -> str:
    return f"{number:06}"


@dataclass(frozen=True)
class JobTask:
    number: int
    values: dict[str, Any]
    labels: dict[str, str]
    request: str  # what is asked, of whichever model

    @property
    def name(self) -> str:
        return task_name(self.number)


@dataclass(frozen=True)
class Identity:
    """What a job's results come from: other facts would make other bytes, and so be another job."""

    facts: Facts
    lease_seconds: float

    def digest(self, request: str) -> str:
        """The id of a task: PROTOCOL.md, "The digest of a job", over the request of a whole graph."""
        facts = self.facts
        text = f"lanced digest 1\nrequest {request}\nmodel {facts.hash}\nadapters\nbackend {facts.backend}\n"
        return hashlib.sha256(f"{text}build {facts.build}\n".encode()).hexdigest()


def request_of(graph: Graph, runner: str) -> str:
    """The hash of what a task asks. Files stand in the graph by their content."""
    return hashlib.sha256(f"lance-farm request 1\nrunner {runner}\ngraph {canonical(graph)}\n".encode()).hexdigest()


class Job:
    def __init__(self, folder: Path) -> None:
        """FarmError when the folder is no job's."""
        self.folder = folder.resolve()
        self.settings = read_json(self.folder / "job.json")
        if self.settings.get("format") != FORMAT:
            raise FarmError(f"{folder} is no job of lance-farm prepare (no job.json of format {FORMAT})")
        if not self.settings.keys() >= {"runner", "tasks", "inputs"}:
            raise self._is_damaged("job.json")

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def _is_damaged(self, name: str) -> FarmError:
        return FarmError(f"{self / name} is not what prepare wrote: prepare anew")

    def make_folders(self) -> None:
        """Those that a copy of the job came without: storage that keeps files alone (job attachments, git) drops empty
        ones. OSError."""
        for name in FOLDERS:
            (self / name).mkdir(exist_ok=True)

    @property
    def client(self) -> str:
        """Its name among a daemon's clients."""
        return f"lance-farm {self.folder.name}"

    @property
    def runner(self) -> str:
        return str(self.settings["runner"])

    @cached_property
    def graph(self) -> Graph:
        return read_workflow(self / "workflow.json")

    @cached_property
    def tasks(self) -> dict[int, JobTask]:
        with (self / "tasks.jsonl").open(encoding="utf-8") as file:
            try:
                listed = [JobTask(**json.loads(line)) for line in file]
            except (ValueError, TypeError):
                raise self._is_damaged("tasks.jsonl") from None
        tasks = {task.number: task for task in listed}
        if tasks.keys() != set(range(1, self.settings["tasks"] + 1)):
            raise self._is_damaged("tasks.jsonl")
        return tasks

    def graph_of(self, task: JobTask) -> Graph:
        return with_values(self.graph, task.values)

    @property
    def identity(self) -> Identity | None:
        """None before the job was submitted. FarmError."""
        told = read_json(self / "identity.json")
        try:
            return Identity(Facts(**told["facts"]), float(told["lease_seconds"])) if told else None
        except (KeyError, TypeError, ValueError):
            raise FarmError(f"{self / 'identity.json'} is not what submit wrote: remove it and submit again") from None

    def settle(self, facts: Facts, lease_seconds: float) -> Identity:
        """Say what the results come from, unless that is settled; what holds now."""
        text = json.dumps({"facts": asdict(facts), "lease_seconds": lease_seconds}, indent=1) + "\n"
        write_first(self / "identity.json", text)
        identity = self.identity
        if identity is None:
            raise FarmError(f"{self / 'identity.json'} cannot be read: remove it and submit again")
        return identity

    @property
    def is_cancelled(self) -> bool:
        return (self / "cancelled").exists()


def difference(settled: Facts, here: Facts) -> str:
    """In which way a daemon would make other bytes than the job's; empty: in none."""
    if settled.hash != here.hash:
        return f"has another model ({here.model} {here.hash[:12]}, the job's is {settled.model} {settled.hash[:12]})"
    if settled.backend != here.backend:
        return f"computes with {here.backend}, the job with {settled.backend} (--daemon-option=--isa=... pins it)"
    if settled.build != here.build:
        return f"has another build of lanced ({here.build[:12]}, the job's is {settled.build[:12]})"
    return ""


def line_of(task: Mapping[str, Any]) -> str:
    return json.dumps(task, ensure_ascii=False, separators=(",", ":")) + "\n"
