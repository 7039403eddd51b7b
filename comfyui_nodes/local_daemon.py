"""Starting the lanced that the user built or installed on this machine, when none answers.

The daemon ends with ComfyUI, however that ends: it watches a pipe that ComfyUI holds open. Nothing
is installed, downloaded or run through a shell.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import folder_paths

from ..protocol.python.lanced_client import AnswerTimeout, Client, ConnectionFailed, LanceError
from .model_folders import CLONE, find_models, model_folders

START_SECONDS = 60.0
MOST_MODELS = 32  # that one lanced offers
IDLE_UNLOAD_SECONDS = 600  # without a job, then the weights leave the card; LANCED_IDLE_UNLOAD overrides, 0: never

_lock = threading.Lock()
_started: dict[str, subprocess.Popen[bytes]] = {}  # by endpoint; holds the pipes open

def find_binary() -> Path | None:
    """The daemon built in this clone, else the one in PATH."""
    built = CLONE / "build" / "lanced"
    if built.is_file():
        return built
    installed = shutil.which("lanced")
    return Path(installed) if installed else None


def start(endpoint: str) -> None:
    """Start a daemon at an ipc endpoint and return when it answers. ConnectionFailed says what is in the way."""
    with _lock:
        if answers(endpoint):
            return  # another node was quicker
        if not endpoint.startswith("ipc://"):
            raise ConnectionFailed(f"no lanced answers at {endpoint}: start it there, or check the endpoint")
        binary, models = find_binary(), find_models()
        if binary is None:
            raise ConnectionFailed(
                f"no lanced answers at {endpoint}, and there is none to start: run `make` in {CLONE}, or start"
                " lanced yourself"
            )
        if not models:
            raise ConnectionFailed(
                f"no lanced answers at {endpoint}, and there is no model to start it with: put a Lance checkpoint's"
                f" folder into {model_folders()[0]}"
            )
        _launch(binary, models, endpoint)


def answers(endpoint: str) -> bool:
    """Whether a daemon answers there now."""
    try:
        with Client(endpoint, timeout=2.0) as client:
            client.hello()
    except LanceError as error:
        # One that is there but slow, or says no, is no reason for a second one; who asks next sees what it says.
        return isinstance(error, AnswerTimeout) or not isinstance(error, ConnectionFailed)
    return True


def is_ours(endpoint: str) -> bool:
    """Whether the daemon there was started by this ComfyUI, for itself."""
    return endpoint in _started and _started[endpoint].poll() is None


def _launch(binary: Path, models: dict[str, Path], endpoint: str) -> None:
    command = [str(binary), "--endpoint", endpoint, "--lazy", "--until-eof", "--on-term", "cancel"]
    command += ["--idle-unload", os.environ.get("LANCED_IDLE_UNLOAD", str(IDLE_UNLOAD_SECONDS))]
    for name, directory in list(models.items())[:MOST_MODELS]:
        command += ["--model", f"{name}={directory}"]
    log_path = Path(folder_paths.get_user_directory()) / "lanced.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    if log_path.exists():  # of the one before, which may tell why that is gone
        log_path.replace(log_path.with_name(log_path.name + ".1"))
    with log_path.open("wb") as log:
        # A session of its own: Ctrl-C in ComfyUI's terminal is not meant for it.
        daemon = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    if endpoint in _started:
        _started[endpoint].poll()  # takes notice of its end, so that no zombie stays
    _started[endpoint] = daemon
    deadline = time.monotonic() + START_SECONDS
    while not answers(endpoint):
        if daemon.poll() is not None or time.monotonic() > deadline:
            said = log_path.read_text(errors="replace").strip().splitlines()[-3:]
            raise ConnectionFailed(
                f"lanced was started but does not answer at {endpoint}: {' '.join(said)} (log: {log_path})"
            )
        time.sleep(0.05)
