"""lanced and lancectl: where they are, a lanced of a worker's own, and graphs for it to do.

A lanced is a child that watches the pipe of its standard input (`lanced --until-eof`), which only its parent holds
open, so that it ends however the parent ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DiskError, NodeError, redacted
from .files import is_full
from .scratch import scratch_folder

START_SECONDS = 1800.0  # a large checkpoint from a slow disk
END_SECONDS = 60.0
POLL_SECONDS = 0.5
_READ_BYTES = 1 << 16

LANCECTL_FAILED = 1  # exit codes of lancectl
LANCECTL_USAGE = 2
LANCECTL_NO_DAEMON = 3
LANCECTL_NOT_WRITTEN = 5


def this_program() -> list[str]:
    """The command that runs lance-farm as it runs now; with its_environment."""
    return [sys.executable, "-m", "lance_farm"]


def its_environment() -> dict[str, str]:
    package = str(Path(__file__).resolve().parent.parent)
    return {"PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))}


def await_end(process: subprocess.Popen[bytes], seconds: float = END_SECONDS) -> None:
    """Wait for a child that was asked to end; it is killed where it does not."""
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def find_program(name: str) -> str:
    """In the folder that LANCE_FARM_BIN names, else in PATH. NodeError."""
    folder = os.environ.get("LANCE_FARM_BIN")
    found = shutil.which(name, path=folder) if folder else shutil.which(name)
    if not found:
        raise NodeError(f"{name} is not in {folder or 'PATH'}: install lanced (make install), or set LANCE_FARM_BIN")
    return found


def ask_lancectl(endpoint: str, *arguments: str) -> tuple[int, str]:
    """One command of lancectl: its exit status, and what it said."""
    done = subprocess.run(
        [find_program("lancectl"), *arguments, "--endpoint", endpoint],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr.strip()


def _load(endpoint: str, name: str, is_unwanted: Callable[[], bool]) -> tuple[int, str]:
    """lancectl load, which takes as long as the model takes, or until is_unwanted: its status, and what it said."""
    command = [find_program("lancectl"), "load", name, "--json", "--endpoint", endpoint]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as load:
        while True:
            try:
                _, said = load.communicate(timeout=POLL_SECONDS)
                return load.returncode, said.strip()
            except subprocess.TimeoutExpired:
                if is_unwanted():
                    load.kill()


@dataclass(frozen=True)
class Facts:
    """What a daemon is, as far as it decides the bytes that it makes."""

    model: str
    hash: str
    backend: str
    build: str


def facts_of(endpoint: str) -> Facts:
    """Of the daemon there and its loaded model. NodeError when it does not answer, or has no model loaded."""
    status, text = ask_lancectl(endpoint, "status", "--json")
    if status != 0:
        raise NodeError(f"the daemon at {endpoint} does not answer: {text}")
    told = json.loads(text)
    model = told.get("model") or {}
    if not model.get("hash"):
        raise NodeError(f"the daemon at {endpoint} has no model loaded: lancectl load NAME")
    return Facts(model["name"], model["hash"], told["backend"], told.get("build", ""))


class Daemon:
    """A lanced with one model. `end`, or the end of this process, ends it."""

    def __init__(
        self, model: Path, options: Sequence[str] = (), is_unwanted: Callable[[], bool] = lambda: False
    ) -> None:
        """Start it and have it load; NodeError with its own words when it does not, or when is_unwanted, asked twice a
        second, says so before it has. DiskError where it had no room to say them."""
        if not model.is_dir():
            raise NodeError(f"no model at {model}")
        self._folder = scratch_folder()
        self.endpoint = f"ipc://{self._folder}/lanced.ipc"
        self._log = self._folder / "log"
        name = model.resolve().name
        command = [find_program("lanced"), "--endpoint", self.endpoint, "--model", f"{name}={model}", "--until-eof"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--on-term", "cancel", *options],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._await(name, is_unwanted)
            self.facts = facts_of(self.endpoint)
        except BaseException:
            self.end()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_running(self) -> bool:
        return self._process.poll() is None

    def last_words(self) -> str:
        """The end of its log, in one line."""
        return redacted(" ".join(self._log.read_text(errors="replace").split("\n")[-4:]).strip())

    def _await(self, name: str, is_unwanted: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            status, text = _load(self.endpoint, name, is_unwanted)
            if is_unwanted():
                raise NodeError(f"stopped before {name} was loaded")
            if status == 0:
                return
            if status != LANCECTL_NO_DAEMON or not self.is_running():
                if is_full(self._folder):  # which its log could not say
                    raise DiskError(f"lanced does not start here: no space left in {self._folder.parent}")
                raise NodeError(f"lanced does not start here: {self.last_words() or text}")
            time.sleep(0.05)
        raise NodeError(f"lanced has not loaded {name} in {START_SECONDS:.0f} s: {self.last_words()}")

    def end(self) -> None:
        """End it, its jobs cancelled; killed where it does not."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        await_end(self._process)
        shutil.rmtree(self._folder, ignore_errors=True)


@dataclass(frozen=True)
class Answer:
    """What became of one graph. exit_code: lancectl's; words: what it said on stderr, in one line."""

    exit_code: int
    outputs: dict[str, Any]
    receipts: list[dict[str, Any]]
    words: str


class Graphs:
    """One `lancectl graphs`, which does graphs one after the other without a program's start for each."""

    def __init__(self, endpoint: str | None, client: str = "lance-farm") -> None:
        """endpoint: of the daemon; None to check graphs only. client: by which the daemon has clients take turns."""
        where = ["--endpoint", endpoint] if endpoint else []
        # To append: so both sides write and read at places of their own.
        self._said = tempfile.TemporaryFile("a+b")  # noqa: SIM115
        self._unread = b""
        self._process = subprocess.Popen(
            [find_program("lancectl"), "graphs", "-q", *where],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=os.environ | {"LANCED_CLIENT": client},
            start_new_session=True,  # Ctrl-C is its parent's, who decides what becomes of the job
        )

    def check(self, workflow: Path, inputs: Path) -> Answer:
        """Whether the graph could be run, without a daemon."""
        return self._ask({"workflow": str(workflow), "input_dir": str(inputs), "dry_run": True}, lambda: False)

    def run(self, workflow: Path, inputs: Path, output: Path, is_unwanted: Callable[[], bool]) -> Answer:
        """Do a graph. When is_unwanted, asked twice a second, says so, the job is cancelled within one step."""
        return self._ask({"workflow": str(workflow), "input_dir": str(inputs), "output": str(output)}, is_unwanted)

    def _ask(self, request: dict[str, Any], is_unwanted: Callable[[], bool]) -> Answer:
        stdin = self._process.stdin
        assert stdin
        before = self._said.seek(0, os.SEEK_END)
        told: dict[str, Any] = {}
        with contextlib.suppress(BrokenPipeError):
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
        while line := self._line(is_unwanted):
            answer = json.loads(line)
            if "exit_code" in answer:
                return self._answer(int(answer["exit_code"]), told, before)
            told = answer
        return self._answer(LANCECTL_NO_DAEMON, {}, before)

    def _line(self, is_unwanted: Callable[[], bool]) -> bytes:
        """The next line; empty when lancectl has ended."""
        assert self._process.stdout
        out = self._process.stdout.fileno()
        is_interrupted = False
        while b"\n" not in self._unread:
            if select.select([out], [], [], POLL_SECONDS)[0]:
                came = os.read(out, _READ_BYTES)
                if not came:
                    return b""
                self._unread += came
            elif not is_interrupted and is_unwanted():
                self._process.send_signal(signal.SIGINT)
                is_interrupted = True
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _answer(self, exit_code: int, told: dict[str, Any], before: int) -> Answer:
        self._said.seek(before)
        lines = self._said.read().decode(errors="replace").replace("lancectl: ", "").splitlines()
        words = redacted("; ".join(line for line in lines if line.strip()))
        return Answer(exit_code, told.get("outputs", {}), told.get("receipts", []), words)

    def close(self) -> None:
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        await_end(self._process)
        if self._process.stdout:
            self._process.stdout.close()
        self._said.close()
