"""status: what a job has come to, from its folder alone: four lists of names, and a file for each worker."""

from __future__ import annotations

import statistics
import time
import uuid
from pathlib import Path
from typing import Any

from .beats import is_gone_here
from .claims import Claims
from .files import is_full, names_in
from .job import LEASE_SECONDS, Job, difference
from .log import read_log
from .programs import Facts
from .results import Results
from .submit import submits_of, workers_of

_SAMPLES = 200
_TWICE = 2


def status_of(job: Job) -> dict[str, Any]:
    """tasks, done, running, failed, waiting: how many; seconds_left or null; workers; failures; problems: lines."""
    claims, results = Claims(job.folder), Results(job.folder)
    # In the order in which tasks move, so that none is missed on its way.
    waiting, claimed = claims.waiting().keys() & job.tasks.keys(), claims.running()
    failures = claims.failed()
    done = job.tasks.keys() & results.numbers()
    missing = job.tasks.keys() - done
    running = {claim.number: claim for claim in claimed if claim.number in missing}
    failed = {number: told for number, told in failures.items() if number in missing}
    workers = workers_of(job)
    alive = _alive(job, workers)
    left = len(missing) - len(failed)
    return {
        "tasks": len(job.tasks),
        "done": len(done),
        "running": len(running),
        "failed": len(failed),
        "waiting": len(waiting - done),
        "cancelled": job.is_cancelled,
        "seconds_left": _seconds_left(job, left, len(alive)),
        "workers": {"alive": len(alive), "ended": len(workers) - len(alive)},
        "loads": sum(int(worker.get("loads") or 0) for worker in workers),
        "now": [{"task": claim.number, "worker": claim.worker, "attempt": claim.attempt} for claim in running.values()],
        "failures": [{"task": number, **told} for number, told in sorted(failed.items())],
        "problems": _problems(job, workers, alive, left),
    }


def _alive(job: Job, workers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By the file server's clock: those whose file was written less than the lease ago."""
    identity = job.identity
    lease = identity.lease_seconds if identity else LEASE_SECONDS
    now = _time_there(job / "workers")
    alive = []
    for worker in workers:
        if worker.get("state") == "ended" or is_gone_here(worker):
            continue
        if now - (job / "workers" / f"{worker['worker']}.json").stat().st_mtime < lease:
            alive.append(worker)
    return alive


def _time_there(folder: Path) -> float:
    """What the file server's clock says, from a file that is written now."""
    probe = folder / f".now-{uuid.uuid4().hex[:8]}"
    try:
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    except OSError:
        return time.time()  # a folder that may only be read
    return now


def _seconds_left(job: Job, left: int, workers: int) -> float | None:
    """From how long the last tasks took."""
    if left == 0:
        return 0.0
    numbers = Results(job.folder).numbers()[-_SAMPLES:]
    told = [Results(job.folder).receipt(number).get("seconds") for number in numbers]
    seconds = [one for one in told if isinstance(one, int | float)]
    return round(statistics.mean(seconds) * left / workers, 1) if seconds and workers else None


def _problems(job: Job, workers: list[dict[str, Any]], alive: list[dict[str, Any]], left: int) -> list[str]:
    """A line for each thing that somebody should know."""
    lines: list[str] = []
    identity, names_alive = job.identity, {worker["worker"] for worker in alive}
    for worker in workers:
        host = worker.get("host", "?")
        if worker.get("reason"):
            lines.append(f"{host} ({worker['worker']}): {worker['reason']}")
        elif worker.get("state") != "ended" and worker["worker"] not in names_alive:
            lines.append(f"{host} ({worker.get('worker')}): died; its task is taken by others")
        if worker.get("clock_off"):
            lines.append(f"{host}: its clock is {worker['clock_off']:+.0f} s off; nothing depends on it")
        if identity and worker.get("backend") and worker["backend"] != identity.facts.backend:
            lines.append(f"{host}: {difference(identity.facts, _with_backend(identity.facts, worker['backend']))}")
    submits = submits_of(job)
    if len(submits) >= _TWICE:
        lines.append(f"submitted {len(submits)} times; no task is done twice")
    if left and workers and not alive and not job.is_cancelled:
        lines.append(f"no worker is alive and {left} tasks are not done: submit again")
    if left and is_full(job.folder):
        lines.append(f"{job.folder} has next to no space left: workers end until there is some")
    changed = [_changed(file) for file in job.settings["inputs"]]
    return lines + [line for line in changed if line]


def _with_backend(facts: Facts, backend: str) -> Facts:
    return Facts(facts.model, facts.hash, backend, facts.build)


def _changed(file: dict[str, Any]) -> str:
    """Whether a file is another than when the job was prepared, where it can still be seen."""
    try:
        info = Path(file["path"]).stat()
    except OSError:
        return ""
    is_same = (info.st_size, info.st_mtime_ns) == (file["bytes"], file["modified_ns"])
    return "" if is_same else f"{file['name']} was changed after prepare; the job goes on with the copy it took"


def lines_of(status: dict[str, Any]) -> list[str]:
    """For people."""
    counts = f"{status['done']} of {status['tasks']} done, {status['running']} running, {status['waiting']} waiting"
    left = status["seconds_left"]
    rest = f", about {_duration(left)} left" if left else ""
    lines = [f"{counts}, {status['failed']} failed; {status['workers']['alive']} workers{rest}"]
    if status["cancelled"]:
        lines.append("cancelled")
    lines += [f"task {one['task']} failed after {one.get('tries')} tries: {one.get('reason')}"
              for one in status["failures"]]  # fmt: skip
    problems: list[str] = status["problems"]
    return lines + problems


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def events_of(job: Job) -> list[dict[str, Any]]:
    """What all workers did, with the file server's time, in order."""
    events = []
    for name in names_in(job / "log"):
        if not name.endswith(".jsonl"):
            continue
        off = 0.0
        for event in read_log(job / "log" / name):
            off = float(event.get("clock_off") or off)
            events.append(event | {"worker": name.removesuffix(".jsonl"), "t": event["t"] - off})
    return sorted(events, key=lambda event: float(event["t"]))


def is_over(status: dict[str, Any]) -> bool:
    return bool(status["done"] + status["failed"] == status["tasks"] or status["cancelled"])
