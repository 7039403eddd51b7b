"""Starting the lanced that the user built or installed on this machine, when none answers. It runs on Linux alone; on
other systems the nodes talk to one elsewhere.

The daemon ends with ComfyUI, however that ends: it watches a pipe that ComfyUI holds open. Nothing
is installed, downloaded or run through a shell.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sys
import threading
from pathlib import Path

import folder_paths

from ..protocol.python.lanced_client import ConnectionFailed, LanceError
from ..protocol.python.lanced_client.starter import OwnDaemon, daemon_answers, models_in
from .model_folders import CLONE, model_folders, searchable

RUNS_HERE = sys.platform.startswith("linux")
# Where packages and `make install` put programs; a desktop's ComfyUI may have a PATH without them.
USUAL_FOLDERS = ("/usr/local/bin", "/usr/bin", "~/.local/bin")
IDLE_UNLOAD_SECONDS = 600  # without a job, then the weights leave the card; LANCED_IDLE_UNLOAD overrides, 0: never

_lock = threading.Lock()
_started: dict[str, OwnDaemon] = {}  # by endpoint; holds the pipes open


def find_binary() -> Path | None:
    """The daemon built in this clone, else an installed one: in PATH, or where programs usually are."""
    built = CLONE / "build" / "lanced"
    if built.is_file():
        return built
    usual = [str(Path(folder).expanduser()) for folder in USUAL_FOLDERS]
    installed = shutil.which("lanced", path=os.pathsep.join([os.environ.get("PATH", ""), *usual]))
    return Path(installed) if installed else None


def start(endpoint: str) -> None:
    """Start a daemon at an ipc endpoint and return when it answers. ConnectionFailed says what is in the way."""
    with _lock:
        if daemon_answers(endpoint):
            return  # another node was quicker
        if not endpoint.startswith("ipc://"):
            raise ConnectionFailed(f"no lanced answers at {endpoint}: start it there, or check the endpoint")
        if not RUNS_HERE:
            raise ConnectionFailed(
                f"no lanced answers at {endpoint}, and none runs on this system: start it on a Linux machine with"
                " --endpoint tls+tcp://0.0.0.0:8471 (docs/security.md), and put its address into the endpoint of Lance"
                " Model, or into LANCED_ENDPOINT in ComfyUI's environment"
            )
        binary = find_binary()
        if binary is None:
            raise ConnectionFailed(
                f"no lanced answers at {endpoint}, and there is none to start. One command builds it, with the compiler"
                f" and libraries that it needs: cd {shlex.quote(str(CLONE))} && sh tools/setup.sh demo && make"
            )
        folders, models = _models_for(binary)
        if not models:
            raise ConnectionFailed(
                f"no lanced answers at {endpoint}, and there is no model to start it with: put a Lance checkpoint's"
                f" folder into {model_folders()[0]}"
            )
        _launch(binary, folders, endpoint)


def is_ours(endpoint: str) -> bool:
    """Whether the daemon there was started by this ComfyUI, for itself."""
    return endpoint in _started and _started[endpoint].is_running()


def offered_models() -> list[str]:
    """Names of the models that a daemon would be started with; none where none can be."""
    binary = find_binary() if RUNS_HERE else None
    try:
        return _models_for(binary)[1] if binary else []
    except LanceError as error:
        logging.warning("lanced: %s", error)
        return []


def _models_for(binary: Path) -> tuple[list[Path], list[str]]:
    """The folders of checkpoints to start it with, and the models that are in them: the demo models where there are no
    others. LanceError when it cannot be asked."""
    for folders in (model_folders(), [CLONE / "demo"]):
        found = searchable(folders)
        models = models_in(binary, found) if found else []
        if models:
            return found, models
    return [], []


def _launch(binary: Path, folders: list[Path], endpoint: str) -> None:
    arguments = ["--lazy", "--idle-unload", os.environ.get("LANCED_IDLE_UNLOAD", str(IDLE_UNLOAD_SECONDS))]
    for folder in folders:
        arguments += ["--models", str(folder)]
    if endpoint in _started:
        _started[endpoint].is_running()  # takes notice of its end, so that no zombie stays
    _started[endpoint] = OwnDaemon(binary, endpoint, arguments, Path(folder_paths.get_user_directory()) / "lanced.log")
    _started[endpoint].ready()
