"""One task, done once: check what is there, make it in a folder of its own, and give it its name when it is whole."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .claims import Claim
from .errors import DiskError, FarmError
from .files import hash_of, is_full, naming
from .job import Identity, Job, JobTask
from .programs import LANCECTL_FAILED, LANCECTL_NO_DAEMON, LANCECTL_NOT_WRITTEN, Answer
from .results import Results, files_named_by
from .workflow import files_of

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Runner(Protocol):
    """What does graphs: lancectl, or a ComfyUI."""

    def run(self, workflow: Path, inputs: Path, output: Path, is_unwanted: Callable[[], bool]) -> Answer: ...


class TaskFailed(FarmError):
    """may_work: another try may go better."""

    def __init__(self, text: str, may_work: bool, is_daemon_gone: bool = False) -> None:
        super().__init__(text)
        self.may_work = may_work
        self.is_daemon_gone = is_daemon_gone


@dataclass
class Done:
    seconds: float
    was_there: bool
    receipt: dict[str, Any]


class TaskRun:
    """What all tasks of a worker share."""

    def __init__(self, job: Job, identity: Identity, scratch: Path, worker: str) -> None:
        """scratch: a folder on this node, for the graph of the moment."""
        self._job, self._identity, self._worker = job, identity, worker
        self._graph_file = scratch / "graph.json"
        self._results = Results(job.folder)
        self._checked: set[str] = set()

    def run(self, claim: Claim, runner: Runner, is_unwanted: Callable[[], bool]) -> Done:
        """TaskFailed; DiskError when this node cannot write."""
        task = self._job.tasks.get(claim.number)
        if not task:
            raise TaskFailed("the job has no such task", may_work=False)
        digest = self._identity.digest(task.request)
        began = time.monotonic()
        try:
            if self._results.is_there(task.number):
                if not self._results.problem(task.number, digest):
                    return Done(time.monotonic() - began, True, self._results.receipt(task.number))
                self._results.set_aside(task.number)
            return self._make(task, claim, digest, runner, is_unwanted)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise DiskError(f"{error.strerror}: {error.filename or self._job.folder}") from None
            raise TaskFailed(f"{error.strerror}: {error.filename}", may_work=True) from None

    def _make(self, task: JobTask, claim: Claim, digest: str, runner: Runner, is_unwanted: Callable[[], bool]) -> Done:
        began, started = time.monotonic(), time.time()
        graph = self._job.graph_of(task)
        self._check_inputs([name for _, _, name in files_of(graph)])
        with naming(self._graph_file):
            self._graph_file.write_text(json.dumps(graph), encoding="utf-8")
        folder = self._results.begin(claim.name)
        try:
            answer = runner.run(self._graph_file, self._job / "inputs", folder, is_unwanted)
            if answer.exit_code != 0:
                raise self._failure(answer, folder)
            seconds = time.monotonic() - began
            in_job = sum(float(receipt.get("total_seconds") or 0) for receipt in answer.receipts)
            receipt = {
                "task": task.number, "digest": digest, "request": task.request, "values": task.values,
                "labels": task.labels, "worker": self._worker, "attempt": claim.attempt, "started": started,
                "seconds": round(seconds, 4), "job_seconds": round(in_job, 4),
                "outputs": files_named_by(answer.outputs, folder), "receipts": answer.receipts,
            }  # fmt: skip
            is_first = self._results.publish(folder, task.number, receipt)
        except BaseException:
            self._results.drop(folder)
            raise
        return Done(time.monotonic() - began, not is_first, receipt)

    def _check_inputs(self, names: list[str]) -> None:
        """That files of the job are still what prepare put there; each is read once by a worker."""
        for name in set(names) - self._checked:
            path = self._job / "inputs" / name
            if not path.is_file() or hash_of(path) != name.partition(".")[0]:
                raise TaskFailed(f"inputs/{name} is missing or not what prepare put there: prepare anew", False)
            self._checked.add(name)

    def _failure(self, answer: Answer, folder: Path) -> FarmError:
        words = answer.words or f"lancectl ended with {answer.exit_code}"
        words = words.replace(str(folder) + "/", "").replace(str(self._graph_file), "workflow.json")
        if answer.exit_code == LANCECTL_NOT_WRITTEN and (is_full(folder) or "space" in words or "too large" in words):
            return DiskError(words)
        may_work = answer.exit_code in (LANCECTL_FAILED, LANCECTL_NO_DAEMON, LANCECTL_NOT_WRITTEN)
        return TaskFailed(words, may_work, answer.exit_code == LANCECTL_NO_DAEMON)
