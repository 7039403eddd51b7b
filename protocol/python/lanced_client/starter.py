"""Starting a lanced of a program's own: a child that ends with the program, however that ends.

The child watches the pipe of its standard input (`lanced --until-eof`), which the program holds open, and has a session
of its own: Ctrl-C is the program's, which decides what becomes of its jobs. The log of a daemon before stays beside the
new one, with ".1" behind its name: it may tell why that one is gone. Where no lanced can run (Windows, macOS) there is
none to start; the module imports there all the same.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from .client import Client
from .errors import AnswerTimeout, ConnectionFailed, LanceError

START_SECONDS = 60.0  # enough for a build with a sanitizer on a busy machine
END_SECONDS = 60.0
ASK_SECONDS = 2.0
LIST_SECONDS = 30.0  # for a look into folders, which may lie on another machine


def daemon_answers(endpoint: str) -> bool:
    """Whether a daemon is there now: also one that is slow, or says no."""
    try:
        with Client(endpoint, timeout=ASK_SECONDS) as client:
            client.hello()
    except LanceError as error:
        return isinstance(error, AnswerTimeout) or not isinstance(error, ConnectionFailed)
    return True


def models_in(binary: Path, folders: Sequence[Path]) -> list[str]:
    """Names of the models that a daemon with these folders of checkpoints would offer. ConnectionFailed: none said."""
    command = [str(binary), "--list-models", *(word for folder in folders for word in ("--models", str(folder)))]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIST_SECONDS)
        said = done.stderr.decode(errors="replace").strip()
        if done.returncode == 0:
            return [str(name) for name in json.loads(done.stdout)]
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        said = str(error)
    raise ConnectionFailed(f"{binary} cannot say which models it would offer: {said}")


class OwnDaemon:
    """A started daemon. `end` or the program's end ends it."""

    def __init__(self, binary: Path, endpoint: str, arguments: Sequence[str], log_path: Path) -> None:
        """Start it; `ready` waits until it answers. OSError when the program or the log cannot be opened."""
        command = [str(binary), "--endpoint", endpoint, "--until-eof", "--on-term", "cancel", *arguments]
        self.endpoint = endpoint
        self.log_path = log_path
        log_path.parent.mkdir(parents=True, exist_ok=True)
        if log_path.exists():
            log_path.replace(log_path.with_name(log_path.name + ".1"))
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def is_running(self) -> bool:
        return self._process.poll() is None

    def ready(self, seconds: float = START_SECONDS) -> None:
        """Return when it answers. ConnectionFailed with its last words when it ended, or does not answer in time; then
        it is ended."""
        deadline = time.monotonic() + seconds
        while not daemon_answers(self.endpoint):
            if not self.is_running() or time.monotonic() > deadline:
                became = "does not answer" if self.is_running() else f"ended with status {self._process.returncode}"
                self.end()
                said = " ".join(self.log_path.read_text(errors="replace").strip().splitlines()[-3:])
                raise ConnectionFailed(
                    f"lanced was started and {became} at {self.endpoint}: {said} (log: {self.log_path})"
                )
            time.sleep(0.05)

    def end(self) -> None:
        """Have it end, its jobs cancelled; killed where it does not."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
