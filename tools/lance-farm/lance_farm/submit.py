"""submit: says what a job's results come from, and has a scheduler start workers; cancel stops them; retry puts tasks
back."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .beats import is_gone_here, machine_id
from .claims import Claims
from .errors import FarmError
from .files import names_in, read_json, write_json
from .job import LEASE_SECONDS, Job, difference
from .programs import Daemon, Facts, facts_of, its_environment, this_program
from .results import Results

_JSON = re.compile(r"[^.].*\.json")
SCHEDULERS = ("slurm", "openjd", "local")


@dataclass(frozen=True)
class Wish:
    """What submit was told."""

    to: str
    model: str
    workers: int = 1
    lease: float = LEASE_SECONDS
    endpoint: str = ""  # of the daemon to ask; empty: one is started here for it
    first_worker: bool = False  # the first worker's daemon decides
    cards: list[str] = field(default_factory=list)  # local: CUDA_VISIBLE_DEVICES of the workers, in turn
    daemon_options: list[str] = field(default_factory=list)
    comfyui: list[str] = field(default_factory=list)  # options of worker that say where ComfyUI is
    options: list[str] = field(default_factory=list)  # the scheduler's own


def submit(job: Job, wish: Wish) -> str:
    """Start workers; what was done, in a line. FarmError, and nothing was started."""
    if (job.runner == "comfyui") != bool(wish.comfyui) or (wish.comfyui and wish.to == "openjd"):
        raise FarmError(
            f"the job was prepared with --runner {job.runner}: --comfyui DIR goes with comfyui, and not to openjd"
        )
    _refuse_what_does_not_go_together(wish)
    job.make_folders()
    before = job.identity
    if not wish.first_worker or before:
        _settle(job, wish)
    (job / "cancelled").unlink(missing_ok=True)
    missing = job.tasks.keys() - Results(job.folder).numbers()
    if not missing:
        return f"all {len(job.tasks)} tasks have their results; nothing to start"
    if not _has_work(job, missing) and wish.to != "openjd":  # whose chunks try failed tasks again
        raise FarmError(f"all that is left has failed ({len(missing)} tasks): lance-farm retry JOB --failed --submit")
    how = {"slurm": _to_slurm, "local": _to_local, "openjd": _to_openjd}[wish.to]
    told = how(job, wish)
    submitted = {"t": time.time(), "wish": asdict(wish), "again": before is not None} | told
    write_json(job / "submits" / f"{time.time_ns()}-{uuid.uuid4().hex[:4]}.json", submitted)
    again = " once more (the same results count, no task is done twice)" if before else ""
    return f"submitted{again}: {len(missing)} tasks, {told['words']}"


def _refuse_what_does_not_go_together(wish: Wish) -> None:
    """Options that would do nothing. FarmError."""
    if wish.to == "local" and wish.options:
        raise FarmError("--to local has no scheduler that options after -- could be for")
    if wish.to != "local" and wish.cards:
        raise FarmError(f"--cards goes with --to local; with {wish.to} the scheduler gives cards")
    if wish.to == "openjd" and wish.workers > 1:
        raise FarmError("--workers does not go with --to openjd, which itself decides on its sessions")


def _has_work(job: Job, missing: Set[int]) -> bool:
    """Whether a worker would find something to do. Tasks whose results somebody has taken away, so that they are
    nowhere, wait again."""
    claims = Claims(job.folder)
    if claims.waiting() or claims.running():
        return True
    lost = missing - set(claims.failed_numbers())
    claims.add(lost)
    return bool(lost)


def _settle(job: Job, wish: Wish) -> None:
    facts = facts_of(wish.endpoint) if wish.endpoint else _facts_here(Path(wish.model), wish.daemon_options)
    identity = job.settle(facts, wish.lease)
    if what := difference(identity.facts, facts):
        raise FarmError(f"this job was submitted before, and what is asked now {what}; prepare another job for it")


def _facts_here(model: Path, options: Sequence[str]) -> Facts:
    daemon = Daemon(model, options)
    facts = daemon.facts
    daemon.end()
    return facts


def _worker_options(wish: Wish) -> list[str]:
    return ["--model", wish.model, *(f"--daemon-option={option}" for option in wish.daemon_options), *wish.comfyui]


def _to_slurm(job: Job, wish: Wish) -> dict[str, Any]:
    if not shutil.which("sbatch"):
        raise FarmError("sbatch is not in PATH: is this a login node of Slurm?")
    log = str(job / "log").replace("%", "%%")
    command = ["sbatch", "--parsable", f"--array=1-{wish.workers}", f"--output={log}/slurm-%A_%a.out", *wish.options]
    # As words, not as the environment, of which a site may hand on nothing (--export=NONE).
    told = its_environment() | {name: os.environ[name] for name in ("LANCE_FARM_BIN",) if name in os.environ}
    program = ["env", *(f"{name}={value}" for name, value in told.items()), *this_program()]
    worker = [*program, "worker", str(job.folder), *_worker_options(wish)]
    done = subprocess.run([*command, str(job / "slurm.sh"), *worker], capture_output=True, text=True)
    if done.returncode != 0:
        raise FarmError(f"sbatch refused: {done.stderr.strip()}")
    number = done.stdout.strip().partition(";")[0]
    return {"slurm": number, "words": f"Slurm job {number}, {wish.workers} workers"}


def _to_local(job: Job, wish: Wish) -> dict[str, Any]:
    pids = []
    for place in range(wish.workers):
        card = {"CUDA_VISIBLE_DEVICES": wish.cards[place % len(wish.cards)]} if wish.cards else {}
        command = [*this_program(), "worker", str(job.folder), *_worker_options(wish)]
        pids.append(_start(command, job / "log" / f"local-{time.time_ns()}.out", card))
    return {"pids": pids, "machine": machine_id(), "words": f"{wish.workers} workers on this machine"}


def _to_openjd(job: Job, wish: Wish) -> dict[str, Any]:
    """OpenJobDescription has no one queue: job/openjd becomes a bundle for those that there are, and where its own
    command line is installed, that runs the job on this machine."""
    parameters = {"JobFolder": str(job.folder), "Model": wish.model, "DaemonOptions": shlex.join(wish.daemon_options)}
    values = [{"name": name, "value": value} for name, value in parameters.items()]
    write_json(job / "openjd" / "parameter_values.json", {"parameterValues": values})
    if not shutil.which("openjd"):
        return {"words": f"openjd is not in PATH; a farm takes it with: deadline bundle submit {job / 'openjd'}"}
    line = ["openjd", "run", str(job / "openjd" / "template.json"), "--step", "Tasks", *wish.options]
    for name, value in parameters.items():
        line += ["-p", f"{name}={value}"]
    log = job / "log" / f"openjd-{time.time_ns()}.out"
    pid = _start(line, log, {})
    return {"pids": [pid], "machine": machine_id(), "words": f"openjd run, whose log is {log}"}


def _start(command: Sequence[str], log: Path, environment: dict[str, str]) -> int:
    """Start a process that goes on when this one ends; its pid."""
    with log.open("wb") as out:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | its_environment() | environment,
        ).pid


def cancel(job: Job) -> str:
    """Have all workers end: they see a file in the job's folder within seconds; schedulers are told besides."""
    (job / "cancelled").touch()
    told = []
    for submitted in submits_of(job):
        if submitted.get("slurm") and shutil.which("scancel"):
            subprocess.run(["scancel", str(submitted["slurm"])], capture_output=True)
            told.append(f"Slurm job {submitted['slurm']}")
    for worker in workers_of(job):
        if worker.get("state") != "ended" and worker.get("machine") == machine_id() and not is_gone_here(worker):
            with contextlib.suppress(OSError):  # it has just ended, or is another user's: the file tells it
                os.kill(int(worker["pid"]), signal.SIGTERM)
    return f"cancelled{': ' + ', '.join(told) if told else ''}; running tasks stop within a step"


def retry(job: Job, damaged: bool) -> str:
    """Failed tasks wait again, and with `damaged` those whose results are not what their receipts say."""
    claims, results = Claims(job.folder), Results(job.folder)
    job.make_folders()
    (job / "cancelled").unlink(missing_ok=True)
    numbers = claims.failed_numbers()
    identity = job.identity
    if damaged and identity:
        for number in sorted(job.tasks.keys() & results.numbers()):
            if results.problem(number, identity.digest(job.tasks[number].request)):
                results.set_aside(number)
                numbers.append(number)
    for number in numbers:
        claims.retry(number)
    return f"{len(numbers)} tasks wait again"


def resubmit(job: Job) -> str:
    """As the last time."""
    submits = submits_of(job)
    if not submits:
        raise FarmError("this job was not submitted yet")
    return submit(job, Wish(**submits[-1]["wish"]))


def is_local(job: Job) -> bool:
    """Whether all its workers are this machine's own."""
    return all(one["wish"].get("to") == "local" for one in submits_of(job))


def may_come(job: Job) -> bool:
    """Whether a process that was started on this machine lives: a busy one takes long until it shows itself."""
    here = [one for one in submits_of(job) if one.get("machine") == machine_id()]
    started = [{"machine": one["machine"], "pid": pid} for one in here for pid in one.get("pids", [])]
    return not all(is_gone_here(process) for process in started)


def submits_of(job: Job) -> list[dict[str, Any]]:
    """What each submit was told and did, in order."""
    return [told for told in _told_in(job / "submits") if isinstance(told.get("wish"), dict)]


def workers_of(job: Job) -> list[dict[str, Any]]:
    """What each worker said last."""
    return [told for told in _told_in(job / "workers") if told.get("worker")]


def _told_in(folder: Path) -> list[dict[str, Any]]:
    return [read_json(folder / name) for name in names_in(folder, _JSON)]
