"""Where memory, threads or processes are short: lanced and lancectl at one level of a limit, with all seven tasks.

At every level there is success, or words and an exit status; never a signal, a hang, or a daemon that does not serve
the next job. tests/e2e/test_limits.py tries a few levels; as a program this tries them all, which takes some minutes:

    PYTHONPATH=protocol/python:tests/support .venv/bin/python -m limits
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from lanced_process import DEMO_AWQ, LANCECTL, LANCED, Lanced

SPACES_MIB = range(30, 401, 10)
PROCESSES = range(1, 41)
END_SECONDS = 40.0
PIDS_GROUP = Path("/sys/fs/cgroup/pids")

Prepare = Callable[[], None]  # what the child does before it becomes the program


@dataclass
class Outcome:
    """What happened at one level."""

    served: int = 0
    refused: list[str] = field(default_factory=list)  # the words
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        words = f"; in words: {self.refused[0][:90]}" if self.refused else ""
        return f"{self.served} served, {len(self.refused)} refused, {len(self.wrong)} wrong{words}"


def address_space(mebibytes: int) -> Prepare:
    limit = mebibytes << 20
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def can_limit_processes() -> bool:
    return os.access(PIDS_GROUP, os.W_OK) or os.getuid() != 0


def threads_of_this_user() -> int:
    count = 0
    for thread in Path("/proc").glob("[0-9]*/task/*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            count += thread.stat().st_uid == os.getuid()
    return count


@contextlib.contextmanager
def processes(most: int) -> Iterator[Prepare]:
    """At most so many processes and threads: in a control group, or else beside those that this user has."""
    if not os.access(PIDS_GROUP, os.W_OK):
        limit = threads_of_this_user() + most
        yield lambda: resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
        return
    group = PIDS_GROUP / f"lanced-test-{os.getpid()}"
    group.mkdir()

    def join() -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))

    try:
        (group / "pids.max").write_text(str(most))
        yield join
    finally:
        for _ in range(100):  # what has ended may take a moment to leave
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.05)


def tasks(folder: Path) -> list[list[str]]:
    """All seven, on a picture and a clip that are made in `folder`."""
    picture, clip = folder / "picture.png", folder / "clip"
    Image.fromarray(np.full((96, 96, 3), (40, 80, 220), np.uint8)).save(picture)
    clip.mkdir(exist_ok=True)
    for i in range(5):
        Image.fromarray(np.full((96, 96, 3), 20 * i, np.uint8)).save(clip / f"{i}.png")
    (clip / "fps.txt").write_text("12\n")
    small = ["--size", "64x64", "--steps", "2", "--quiet"]
    seen = ["--resolution", "112x112", "--max-tokens", "4", "--quiet"]
    return [
        ["t2i", "a red circle", "-o", str(folder / "t2i.png"), *small],
        ["t2v", "a red circle", "-o", str(folder / "t2v.mp4"), "--frames", "5", *small],
        ["i2v", str(picture), "it moves", "-o", str(folder / "i2v.mp4"), "--frames", "5", *small],
        ["edit", str(picture), "make it red", "-o", str(folder / "edit.png"), *small],
        ["video-edit", f"{clip}/", "make it red", "-o", str(folder / "edit.mp4"), *small],
        ["ask", str(picture), "What is it?", *seen],
        ["ask", f"{clip}/", "What is it?", *seen],
    ]


def judge(outcome: Outcome, what: str, status: int | None, said: str, program: str) -> None:
    lines = said.strip().splitlines()
    last = lines[-1] if lines else ""
    if status == 0:
        outcome.served += 1
    elif status is None:
        outcome.wrong.append(f"{what}: hangs")
    elif status == 127 and "error while loading shared libraries" in last:
        outcome.refused.append(last)  # the words of the system, before the program's first line
    elif status < 0 or status > 6:
        outcome.wrong.append(f"{what}: exit status {status}: {last}")
    elif not any(line.startswith(f"{program}: ") for line in lines):
        outcome.wrong.append(f"{what}: no words: {last}")
    else:
        outcome.refused.append(next(line for line in lines if line.startswith(f"{program}: ")))


def run_lancectl(arguments: list[str], endpoint: str, prepare: Prepare | None) -> tuple[int | None, str]:
    try:
        done = subprocess.run([str(LANCECTL), *arguments, "--endpoint", endpoint], stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=END_SECONDS, preexec_fn=prepare)
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stderr.decode(errors="replace")


def clients_under(prepare: Prepare, wanted: list[list[str]], daemon: Lanced) -> Outcome:
    """Every task through a lancectl under the limit."""
    outcome = Outcome()
    for arguments in wanted:
        status, said = run_lancectl(arguments, daemon.endpoint, prepare)
        judge(outcome, f"lancectl {arguments[0]}", status, said, "lancectl")
    return outcome


def wait_for_start(process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it answers or has ended, or the time is over."""
    deadline = time.monotonic() + END_SECONDS
    while process.poll() is None and " answers at " not in log.read_text(errors="replace"):
        if time.monotonic() > deadline:
            return
        time.sleep(0.02)


def daemon_under(prepare: Prepare, wanted: list[list[str]], folder: Path) -> Outcome:
    """Every task with a lanced under the limit, started for it and ended after it."""
    outcome = Outcome()
    endpoint, log = f"ipc://{folder}/limited.ipc", folder / "limited.log"
    command = [str(LANCED), "--model", str(DEMO_AWQ), "--endpoint", endpoint, "--lazy"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=prepare)
    try:
        wait_for_start(process, log)
        if process.poll() is None:
            for arguments in wanted:
                status, said = run_lancectl(arguments, endpoint, None)
                judge(outcome, f"a job {arguments[0]}", status, said, "lancectl")
                if process.poll() is not None:
                    outcome.wrong.append(f"lanced: ended with {process.returncode} in {arguments[0]}")
                    return outcome
            process.send_signal(signal.SIGTERM)
        end: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            end = process.wait(END_SECONDS)
        judge(outcome, "lanced", end, log.read_text(errors="replace"), "lanced")
    finally:
        process.kill()
        process.wait()
    return outcome


def main() -> int:
    wrong: list[str] = []
    count = 0

    def report(level: str, outcome: Outcome) -> None:
        nonlocal count
        count += outcome.served + len(outcome.refused) + len(outcome.wrong)
        print(f"{level}: {outcome}", flush=True)
        wrong.extend(f"{level}: {what}" for what in outcome.wrong)

    with tempfile.TemporaryDirectory(prefix="lanced-limits-") as name, Lanced(models=(DEMO_AWQ,)) as whole:
        folder = Path(name)
        wanted = tasks(folder)
        for mebibytes in SPACES_MIB:
            prepare = address_space(mebibytes)
            report(f"lanced in {mebibytes} MiB", daemon_under(prepare, wanted, folder))
            report(f"lancectl in {mebibytes} MiB", clients_under(prepare, wanted, whole))
        for most in PROCESSES if can_limit_processes() else ():
            with processes(most) as prepare:
                report(f"lanced with {most} processes", daemon_under(prepare, wanted, folder))
            with processes(most) as prepare:
                report(f"lancectl with {most} processes", clients_under(prepare, wanted, whole))
    if not can_limit_processes():
        print(f"skipped: limits of processes (none hold root, and {PIDS_GROUP} cannot be written to)")
    for what in wrong:
        print(f"failed: {what}")
    print(f"{count - len(wrong)} passed, {len(wrong)} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
