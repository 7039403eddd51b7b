"""OpenJobDescription: an environment holds one daemon for a session, and each task asks it.

    daemon-start  onEnter: starts daemon-hold, waits until the model is loaded, tells the session the daemon's token
    daemon-hold   lives beside the session: holds the daemon, starts another when it died, ends with the session
    tasks         onRun: does a chunk of tasks
    daemon-stop   onExit

Lines of the form "openjd_...: ..." on stdout are read by whoever runs the session.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .beats import Beat, Watch, is_gone_here, machine_id
from .claims import Claim, Claims
from .errors import EXIT_CANCELLED, EXIT_DONE, EXIT_SIGNALLED, EXIT_TASKS_FAILED, FarmError, NodeError
from .files import read_json, write_json
from .job import LEASE_SECONDS, Identity, Job, difference
from .log import Log
from .programs import START_SECONDS, Daemon, Facts, Graphs, its_environment, this_program
from .results import Results
from .scratch import scratch_for_now
from .task_run import TaskFailed, TaskRun
from .worker import name_of_worker

IDLE_SECONDS = 1800.0  # the longest that a daemon waits for a session's next sign of life
POLL_SECONDS = 0.5
RESTART_SECONDS = 120.0
GOING_SECONDS = 2.0  # for a daemon that ends to be seen to


def say(kind: str, text: object) -> None:
    print(f"openjd_{kind}: {text}", flush=True)


# ---- The session's daemon ----


def _session_file(session: Path) -> Path:
    return session / "lance-farm-daemon.json"


def _agent() -> int:
    """The process that runs the session, as far as it is this user's and so can be watched; else 0."""
    try:
        leader = Path(f"/proc/{os.getsid(0)}/stat").read_text().rpartition(")")[2].split()
        agent = int(leader[1])
        return agent if agent > 1 and Path(f"/proc/{agent}").stat().st_uid == os.getuid() else 0
    except (OSError, IndexError, ValueError):
        return 0


def daemon_start(job_folder: Path, model: str, options: Sequence[str], session: Path) -> None:
    """Return when the daemon has loaded. NodeError, which `status` tells too, when it cannot, or makes other bytes than
    the job's."""
    job = Job(job_folder)
    job.make_folders()
    try:
        _start_daemon(job, model, options, session)
    except NodeError as error:
        beat = Beat(job / "workers", name_of_worker(), LEASE_SECONDS, host=os.uname().nodename)
        beat.close(reason=str(error), exit_code=error.exit_code)
        raise


def _start_daemon(job: Job, model: str, options: Sequence[str], session: Path) -> None:
    token = secrets.token_hex(16)
    say("redacted_env", f"LANCED_TOKEN={token}")
    say("status", f"loading {Path(model).name}")
    command = [*this_program(), "daemon-hold", str(job.folder), "--model", model]
    command += ["--session", str(session), "--parent", str(_agent()), f"--daemon-options={shlex.join(options)}"]
    with (session / "lance-farm-daemon.log").open("wb") as log:
        holder = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                  start_new_session=True,
                                  env=os.environ | its_environment() | {"LANCED_TOKEN": token})  # fmt: skip
    told = _await_daemon(session, "", START_SECONDS, holder)
    facts = Facts(**told["facts"])
    identity = job.identity or job.settle(facts, LEASE_SECONDS)
    if what := difference(identity.facts, facts):
        say("fail", f"this node {what}")
        raise NodeError(f"this node {what}")
    say("status", f"{facts.model} on {facts.backend}")


def _await_daemon(session: Path, before: str, seconds: float, holder: subprocess.Popen[bytes] | None) -> dict[str, Any]:
    """What the holder tells of a daemon that is at another place than `before`, or of that one, if it goes on (what
    ended was the lancectl that asked it). NodeError."""
    began = time.monotonic()
    while (waited := time.monotonic() - began) < seconds:
        told = read_json(_session_file(session))
        reason = told.get("reason") or ("its holder ended" if holder and holder.poll() is not None else "")
        if reason:
            say("fail", reason)
            raise NodeError(reason)
        if told.get("endpoint") and (told["endpoint"] != before or (waited > GOING_SECONDS and _goes_on(told))):
            return told
        time.sleep(POLL_SECONDS / 10)
    say("fail", "the session's daemon does not answer")
    raise NodeError("the session's daemon does not answer")


def _goes_on(told: dict[str, Any]) -> bool:
    return not is_gone_here({"pid": told["daemon"], "machine": machine_id()})


def hold_daemon(model: Path, options: Sequence[str], session: Path, agent: int) -> int:
    """Hold a daemon until the session's folder is gone, or who runs it, or nothing was asked for long."""
    file = _session_file(session)
    is_ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: is_ended.append(number))
    asked = time.monotonic()
    loads = 0
    while not is_ended and session.is_dir():
        try:
            daemon = Daemon(model, options)
        except FarmError as error:
            write_json(file, {"reason": str(error)})
            return error.exit_code
        loads += 1
        facts = daemon.facts
        write_json(file, {"endpoint": daemon.endpoint, "pid": os.getpid(), "daemon": daemon.pid, "loads": loads,
                          "facts": vars(facts)})  # fmt: skip
        while daemon.is_running() and not is_ended and session.is_dir() and _is_there(agent):
            busy = session / "lance-farm-busy"
            asked = time.monotonic() if busy.exists() else asked
            if time.monotonic() - asked > IDLE_SECONDS:
                is_ended.append(0)
            time.sleep(POLL_SECONDS)
        was_running = daemon.is_running()
        daemon.end()
        if was_running:
            break
    return EXIT_DONE


def _is_there(pid: int) -> bool:
    try:
        if pid:
            os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def daemon_stop(session: Path) -> None:
    """Have it end, and wait until it has."""
    pid = int(read_json(_session_file(session)).get("pid") or 0)
    if pid and _is_there(pid):
        os.kill(pid, signal.SIGTERM)
        while _is_there(pid):
            time.sleep(POLL_SECONDS / 10)


# ---- A chunk of tasks ----


def numbers_of(text: str, most: int) -> Iterator[int]:
    """Of "1-10", "3,5" or "7". FarmError."""
    for part in text.split(","):
        if not (found := re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)):
            raise FarmError(f'tasks are given as 1-10 or 3,5, not as "{text}"')
        last = int(found[2] or found[1])
        if last > most or int(found[1]) < 1:
            raise FarmError(f"the job has tasks 1 to {most}, not {part.strip()}")
        yield from range(int(found[1]), last + 1)


class Chunk:
    """What doing a chunk shares between its tasks."""

    def __init__(self, job: Job, identity: Identity, session: Path, scratch: Path) -> None:
        self._job, self._identity, self._session = job, identity, session
        self._worker = name_of_worker()
        self._claims = Claims(job.folder, self._worker)
        self._log = Log(job / "log", self._worker)
        self._log.write("started")
        self._beat = Beat(job / "workers", self._worker, identity.lease_seconds, host=os.uname().nodename)
        self._run = TaskRun(job, identity, scratch, self._worker)
        self._watch = Watch(job / "workers", identity.lease_seconds)
        self._endpoint = ""
        self._graphs: Graphs | None = None
        self._is_ended: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: self._is_ended.append(number))

    def close(self) -> None:
        if self._graphs:
            self._graphs.close()
        self._beat.close()
        self._log.close()

    def why_stopped(self) -> int:
        """The exit code of a chunk that is to end before its time; else 0. Its tasks are given back."""
        if self._is_ended:
            return EXIT_SIGNALLED + self._is_ended[0]
        return EXIT_CANCELLED if self._job.is_cancelled else 0

    def _connect(self) -> None:
        """To the session's daemon."""
        if self._graphs:
            self._graphs.close()
        told = _await_daemon(self._session, self._endpoint, RESTART_SECONDS, None)
        self._endpoint = told["endpoint"]
        self._graphs = Graphs(self._endpoint, self._job.client)
        self._beat.tell(state="working", backend=self._identity.facts.backend, daemon=told["daemon"])

    def do(self, number: int) -> str:
        """Do a task, again where another try may go better; why it failed, or empty."""
        if not self._graphs:
            self._connect()
        claim = self._claim(number)
        if claim is None:
            is_done = not Results(self._job.folder).problem(number, self._digest(number))
            return "" if is_done else "somebody else does it"
        while claim:
            reason, waits = self._try(claim)
            claim = self._claims.take_this(number) if waits and not self.why_stopped() else None
        return reason

    def _digest(self, number: int) -> str:
        return self._identity.digest(self._job.tasks[number].request)

    def _claim(self, number: int) -> Claim | None:
        claim = self._claims.take_this(number)
        for other in self._claims.running() if claim is None else []:
            if other.number == number and self._watch.is_gone(other.worker):
                claim = self._claims.take_over(other)
        return claim

    def _try(self, claim: Claim) -> tuple[str, bool]:
        """Why it went wrong, or empty; and whether it waits for another try."""
        assert self._graphs
        try:
            self._beat.tell(task=claim.number)
            self._log.write("began", task=claim.number, attempt=claim.attempt)
            done = self._run.run(claim, self._graphs, lambda: bool(self.why_stopped()))
        except TaskFailed as error:
            reason = str(error)
            if self.why_stopped():
                self._claims.give_back(claim)
                return "stopped", True
            waits = self._claims.try_again(claim, reason, error.may_work)
            self._log.write("retry" if waits else "failed", task=claim.number, attempt=claim.attempt, reason=reason)
            if waits:
                say("status", f"task {claim.number}, try {claim.attempt}: {reason}")
            if error.is_daemon_gone:
                self._connect()
            return reason, waits
        except (FarmError, OSError):
            self._claims.give_back(claim)
            raise
        self._claims.end(claim)
        self._log.write("found" if done.was_there else "done", task=claim.number, attempt=claim.attempt,
                        seconds=round(done.seconds, 4), job_seconds=done.receipt.get("job_seconds"))  # fmt: skip
        return "", False


def run_tasks(job: Job, text: str, session: Path) -> int:
    """Do the tasks with the session's daemon; the exit code. Every task is tried, whatever becomes of others, unless
    the session or the job is stopped."""
    identity = job.identity
    if identity is None:
        raise FarmError("the job has no identity: daemon-start comes first")
    job.make_folders()
    numbers = list(numbers_of(text, len(job.tasks)))
    failed = []
    busy = session / "lance-farm-busy"
    busy.touch()
    with scratch_for_now() as scratch:
        chunk = Chunk(job, identity, session, scratch)
        try:
            for place, number in enumerate(numbers):
                if chunk.why_stopped():
                    break
                say("status", f"task {number}")
                if reason := chunk.do(number):
                    failed.append(f"task {number}: {reason}")
                say("progress", round(100 * (place + 1) / len(numbers), 1))
        finally:
            chunk.close()
            busy.unlink(missing_ok=True)
    if code := chunk.why_stopped():
        say("fail", "the job was cancelled" if code == EXIT_CANCELLED else "stopped by a signal")
        return code
    if failed:
        say("fail", "; ".join(failed))
    return EXIT_TASKS_FAILED if failed else EXIT_DONE
