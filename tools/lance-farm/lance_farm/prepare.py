"""prepare: a job folder of a workflow and a table. Everything that can be seen beforehand is refused here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .claims import Claims
from .errors import FarmError
from .files import hash_of, naming, whole_folder, write_json, write_whole
from .job import FOLDERS, FORMAT, line_of, request_of
from .programs import Graphs
from .scratch import scratch_for_now
from .table import Table
from .templates import openjd_template, slurm_script
from .values import Columns, Task, resolved_file, tasks_of
from .workflow import Graph, farms_own, files_of, with_values

_SHOWN = 5
_CHECKERS = 2


class Inputs:
    """Files that tasks name, each once by the hash of its content."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, tuple[str, Path]] = {}

    def named(self, name: str) -> str:
        """The name that the file has in the job. FarmError when it is missing."""
        if name not in self._names:
            path = resolved_file(name, self._folder)
            self._names[name] = hash_of(path) + path.suffix.lower(), path
        return self._names[name][0]

    def copy_to(self, folder: Path) -> list[dict[str, Any]]:
        """Copy all; what is to be remembered of each."""
        told = []
        for name, (stored, path) in self._names.items():
            shutil.copyfile(path, folder / stored)
            if hash_of(folder / stored) != stored.partition(".")[0]:
                raise FarmError(f"{path} changed while it was copied: try again")
            info = path.stat()
            told.append({"name": name, "path": str(path), "stored": stored, "bytes": info.st_size,
                         "modified_ns": info.st_mtime_ns})  # fmt: skip
        return told


def prepare(
    workflow: Graph,
    table: Table | None,
    columns: Columns,
    sets: Sequence[str],
    *,
    input_dir: Path,
    output: Path,
    chunk: int = 1,
    runner: str = "lancectl",
) -> int:
    """Make the job's folder; how many tasks it has. FarmError, with nothing left behind."""
    if output.exists() and any(output.iterdir()):
        raise FarmError(f"{output} is there already and not empty")
    graph = farms_own(workflow)
    inputs = Inputs(input_dir)
    tasks = [_with_stored_files(graph, task, inputs) for task in tasks_of(graph, table, columns, sets)]
    graphs = [with_values(graph, task.values) for task in tasks]
    requests = [request_of(each, runner) for each in graphs]
    _refuse_twins(tasks, requests)
    with scratch_for_now() as scratch:
        copied = scratch / "inputs"
        copied.mkdir()
        files = inputs.copy_to(copied)
        if runner == "lancectl":
            _check(tasks, graphs, copied, scratch)
        with whole_folder(output) as job:
            for name in FOLDERS:
                (job / name).mkdir()
            for file in copied.iterdir():
                shutil.copyfile(file, job / "inputs" / file.name)
            write_whole(job / "workflow.json", json.dumps(graph, ensure_ascii=False, indent=1) + "\n")
            lines = [
                line_of({"number": task.number, "values": task.values, "labels": task.labels, "request": request})
                for task, request in zip(tasks, requests, strict=True)
            ]
            write_whole(job / "tasks.jsonl", "".join(lines))
            write_whole(job / "slurm.sh", slurm_script())
            write_whole(job / "openjd" / "template.json", openjd_template(output.resolve().name, len(tasks), chunk))
            Claims(job).add(task.number for task in tasks)
            write_json(job / "job.json", {"format": FORMAT, "runner": runner, "tasks": len(tasks), "chunk": chunk,
                                          "inputs": files})  # fmt: skip
    return len(tasks)


def _with_stored_files(graph: Graph, task: Task, inputs: Inputs) -> Task:
    """The task with names of files as they are in the job."""
    stored: dict[str, Any] = {}
    for key, name, value in files_of(with_values(graph, task.values)):
        try:
            stored[f"{key}.{name}"] = inputs.named(value)
        except FarmError as error:
            where = f"line {task.line} of the table: " if task.line else ""
            raise FarmError(f"{where}node {key}: {error}") from None
    return Task(task.number, task.values | stored, task.labels, task.line)


def _refuse_twins(tasks: list[Task], requests: list[str]) -> None:
    seen: dict[str, Task] = {}
    for task, request in zip(tasks, requests, strict=True):
        first = seen.setdefault(request, task)
        if first is not task:
            lines = f" (lines {first.line} and {task.line} of the table)" if task.line else ""
            raise FarmError(f"tasks {first.number} and {task.number} ask the same{lines}: give one another seed")


def _check(tasks: list[Task], graphs: list[Graph], inputs: Path, scratch: Path) -> None:
    """Have lancectl check every task's graph, without a daemon."""

    def check_part(part: int) -> list[tuple[int, str]]:
        checker = Graphs(None)
        file = scratch / f"{part}.json"
        problems = []
        try:
            for place in range(part, len(tasks), _CHECKERS):
                with naming(file):
                    file.write_text(json.dumps(graphs[place]), encoding="utf-8")
                answer = checker.check(file, inputs)
                if answer.exit_code != 0:
                    words = answer.words.replace(f"{file}: ", "").replace(f"{scratch}/", "")
                    problems.append((place, words or f"lancectl ended with {answer.exit_code}"))
        finally:
            checker.close()
        return problems

    with ThreadPoolExecutor(_CHECKERS) as pool:
        problems = sorted(problem for part in pool.map(check_part, range(_CHECKERS)) for problem in part)
    if problems:
        told: dict[str, str] = {}
        for place, words in problems:
            line = f" (line {tasks[place].line})" if tasks[place].line else ""
            told.setdefault(words, f"task {tasks[place].number}{line}")
        shown = "; ".join(f"{where}: {words}" for words, where in list(told.items())[:_SHOWN])
        raise FarmError(f"{len(problems)} of {len(tasks)} tasks cannot be run: {shown}")
