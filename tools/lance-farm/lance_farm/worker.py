"""worker: holds one lanced as its child, does tasks of the job one after the other, and ends when none is left.

Threads: this one, and the beat's. When all tasks are taken but some are still done elsewhere, one worker waits in case
their workers die (the warden); the others end, so that no card is held by a process with nothing to do.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .beats import Beat, Watch
from .claims import Claim, Claims
from .comfyui import ComfyRunner, ComfySetup
from .errors import EXIT_CANCELLED, EXIT_DONE, EXIT_SIGNALLED, DiskError, FarmError, NodeError
from .files import moved, write_first
from .job import LEASE_SECONDS, Job, difference
from .log import Log
from .programs import Daemon, Graphs
from .scratch import scratch_folder
from .task_run import TaskFailed, TaskRun

IDLE_SECONDS = 1.0
CLOCK_SECONDS = 60.0  # a clock that is further off is told of


def name_of_worker() -> str:
    host = os.environ.get("SLURMD_NODENAME") or socket.gethostname().partition(".")[0]
    return re.sub(r"[^A-Za-z0-9-]", "-", f"{host}-{os.getpid()}-{uuid.uuid4().hex[:4]}")


class Worker:
    def __init__(self, job: Job, model: Path, daemon_options: Sequence[str], comfyui: ComfySetup | None) -> None:
        self._job, self._model, self._options, self._comfyui = job, model, daemon_options, comfyui
        self.name = name_of_worker()
        self._claims = Claims(job.folder, self.name)
        self._signal = 0
        self._loads = 0
        self._daemon: Daemon | None = None
        self._graphs: Graphs | ComfyRunner | None = None

    def run(self) -> int:
        """The exit code; prints and logs its own errors."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        settled = self._job.identity
        lease = settled.lease_seconds if settled else LEASE_SECONDS
        try:
            self._job.make_folders()
            self._scratch = scratch_folder()
            self._log = Log(self._job / "log", self.name)
            self._beat = Beat(self._job / "workers", self.name, lease, host=socket.gethostname(), **_allocation())
        except OSError as error:
            raise DiskError(f"{self.name}: {error.strerror}: {error.filename}") from None
        reason, exit_code = "", EXIT_DONE
        try:
            self._log.write("started", tasks=len(self._job.tasks), clock_off=self._clock_off())
            self._work(lease)
            exit_code = self._how_it_ended()
        except FarmError as error:
            reason, exit_code = str(error), self._how_it_ended() or error.exit_code
            print(f"lance-farm: {self.name}: {reason}", flush=True)
        except OSError as error:  # of the job's folder
            reason, exit_code = f"{error.strerror}: {error.filename}", DiskError.exit_code
            print(f"lance-farm: {self.name}: {reason}", flush=True)
        finally:
            self._end_daemon()
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._say_goodbye(reason, exit_code)
        return exit_code

    def _say_goodbye(self, reason: str, exit_code: int) -> None:
        try:
            self._beat.close(reason=reason, exit_code=exit_code, task=None)
            self._log.write("ended", reason=reason, exit_code=exit_code)
            self._log.close()
        except OSError as error:
            print(f"lance-farm: {self.name}: {error.strerror}: {error.filename}", flush=True)

    def _how_it_ended(self) -> int:
        if self._signal:
            return EXIT_SIGNALLED + self._signal
        return EXIT_CANCELLED if self._job.is_cancelled else EXIT_DONE

    def _on_signal(self, number: int, _: Any) -> None:
        self._signal = number

    def _is_unwanted(self) -> bool:
        return bool(self._signal) or self._job.is_cancelled

    def _clock_off(self) -> float:
        """Seconds that this clock is ahead of the job folder's file server; told, and used for timelines alone."""
        probe = self._job / "workers" / f".clock-{self.name}"
        before = time.time()
        probe.touch()
        off = before - probe.stat().st_mtime
        probe.unlink()
        off = round(off, 1)
        if abs(off) > CLOCK_SECONDS:
            self._beat.tell(clock_off=off)
        return off

    # ---- The daemon ----

    def _begin(self) -> TaskRun:
        """Start what does graphs, and make sure that it makes the job's bytes. NodeError."""
        began = time.monotonic()
        self._daemon = Daemon(self._model, self._options, self._is_unwanted)
        self._loads += 1
        facts = self._daemon.facts
        seconds = round(time.monotonic() - began, 3)
        self._log.write("loaded", seconds=seconds, pid=self._daemon.pid, backend=facts.backend, model=facts.model)
        self._beat.tell(state="working", loads=self._loads, backend=facts.backend, daemon=self._daemon.pid)
        identity = self._job.identity or self._job.settle(facts, LEASE_SECONDS)
        if what := difference(identity.facts, facts):
            raise NodeError(f"this node {what}")
        if self._job.runner == "comfyui":
            if not self._comfyui:
                raise NodeError("this job needs ComfyUI: --comfyui DIR")
            self._graphs = ComfyRunner(self._comfyui, self._daemon.endpoint, self._job / "inputs")
        else:
            self._graphs = Graphs(self._daemon.endpoint, self._job.client)
        return TaskRun(self._job, identity, self._scratch, self.name)

    def _end_daemon(self) -> None:
        if self._graphs:
            self._graphs.close()
        if self._daemon:
            self._daemon.end()
        self._graphs = self._daemon = None

    # ---- Tasks ----

    def _work(self, lease: float) -> None:
        task_run = self._begin()
        watch = Watch(self._job / "workers", lease)
        while not self._is_unwanted():
            claim = self._claims.take()
            if claim:
                task_run = self._do(claim, task_run)
            elif not self._claims.running() or self._has_warden(watch):
                break
            else:
                self._take_from_the_dead(watch)
                time.sleep(min(IDLE_SECONDS, lease / 4))

    def _do(self, claim: Claim, task_run: TaskRun) -> TaskRun:
        """Do one task. What does the next one: the same, unless the daemon died."""
        assert self._graphs
        try:
            self._beat.tell(task=claim.number)
            self._log.write("began", task=claim.number, attempt=claim.attempt)
            done = task_run.run(claim, self._graphs, self._is_unwanted)
        except TaskFailed as error:
            return self._after_failure(claim, error, task_run)
        except (FarmError, OSError):
            self._claims.give_back(claim)
            raise
        self._claims.end(claim)
        facts = {"seconds": round(done.seconds, 4), "job_seconds": done.receipt.get("job_seconds")}
        self._log.write("found" if done.was_there else "done", task=claim.number, attempt=claim.attempt, **facts)
        return task_run

    def _after_failure(self, claim: Claim, error: TaskFailed, task_run: TaskRun) -> TaskRun:
        assert self._daemon
        reason = str(error)
        if self._is_unwanted():
            self._claims.give_back(claim)
            self._log.write("given back", task=claim.number)
            return task_run
        is_alive = self._daemon.is_running()
        if not is_alive:
            reason = f"it ended its daemon, try {claim.attempt}: {self._daemon.last_words()[-300:]}"
        waits = self._claims.try_again(claim, reason, error.may_work)
        self._log.write("retry" if waits else "failed", task=claim.number, attempt=claim.attempt, reason=reason)
        if is_alive and not error.is_daemon_gone:
            return task_run
        self._end_daemon()
        return self._begin()

    # ---- When others die ----

    def _take_from_the_dead(self, watch: Watch) -> None:
        for claim in self._claims.running():
            if claim.worker == self.name or not watch.is_gone(claim.worker):
                continue
            reason = f"its worker {claim.worker} died, try {claim.attempt}"
            mine = self._claims.take_over(claim)
            if mine:
                waits = self._claims.try_again(mine, reason)
                self._log.write("retry" if waits else "failed", task=claim.number, attempt=claim.attempt, reason=reason)

    def _has_warden(self, watch: Watch) -> bool:
        """Whether another worker waits for the end of others' tasks, and lives, as it is seen to: what a dead one left
        in the folder must not send all who come after it home. Where there is none this one is it."""
        path = self._job / "warden"
        while not write_first(path, self.name):
            try:
                warden = path.read_text(encoding="utf-8")
            except FileNotFoundError:
                continue
            if warden == self.name:
                return False
            if not watch.is_gone(warden):
                return watch.is_seen_alive(warden)
            moved(path, self._job / "work" / f"warden-{uuid.uuid4().hex[:8]}")
        return False


def _allocation() -> dict[str, Any]:
    """Where a scheduler put this worker."""
    names = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "CUDA_VISIBLE_DEVICES")
    return {"allocation": {name: os.environ[name] for name in names if name in os.environ}}
