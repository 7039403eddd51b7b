"""Graphs with nodes that lancectl does not know: one headless ComfyUI for a worker, warm, done with by its HTTP API.

Its Lance nodes ask the worker's daemon. What it saves has no receipts of jobs. The kernel kills it when the
worker ends, however that ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import NodeError, redacted
from .programs import LANCECTL_FAILED, LANCECTL_NO_DAEMON, LANCECTL_USAGE, Answer, await_end
from .scratch import scratch_folder

START_SECONDS = 900.0  # on a busy machine ComfyUI takes minutes to import itself
END_SECONDS = 20.0
POLL_SECONDS = 0.05
_REQUEST_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1
_LAST_WORDS = 3


@dataclass(frozen=True)
class ComfySetup:
    """Where ComfyUI is, and how it is run. python: empty for that of a venv in the checkout, else this one."""

    folder: Path
    python: str = ""
    options: Sequence[str] = ()

    def command(self) -> list[str]:
        """NodeError when there is none."""
        if not (self.folder / "main.py").is_file():
            raise NodeError(f"no ComfyUI at {self.folder}")
        venvs = [self.folder / name / "bin/python" for name in (".venv", "venv")]
        found = next((str(path) for path in venvs if path.exists()), sys.executable)
        return [self.python or found, "main.py", "--disable-auto-launch", "--listen", "127.0.0.1", *self.options]


class ComfyRunner:
    def __init__(self, setup: ComfySetup, endpoint: str, inputs: Path) -> None:
        """Start it and wait until it answers; endpoint: of the daemon that Lance nodes ask. NodeError."""
        self._folder = scratch_folder()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        self._kept: set[Path] = set()
        command = [*setup.command(), "--port", str(port), "--input-directory", str(inputs)]
        for kind in ("output", "temp", "user"):
            (self._folder / kind).mkdir()
            command += [f"--{kind}-directory", str(self._folder / kind)]
        command += ["--database-url", f"sqlite:///{self._folder / 'comfyui.db'}"]
        library = ctypes.CDLL(None)  # looked up before the fork
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=setup.folder,
                env=os.environ | {"LANCED_ENDPOINT": endpoint},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
                start_new_session=True,
            )
        try:
            self._await()
        except BaseException:
            self.close()
            raise

    def _await(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._ask("/system_stats")
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise NodeError(f"ComfyUI does not start here: {self._last_words()}") from None
                time.sleep(0.2)

    def _last_words(self) -> str:
        lines = (self._folder / "log").read_text(errors="replace").strip().splitlines()
        return redacted(" ".join(lines[-_LAST_WORDS:]))

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Its answer as JSON. OSError, of which urllib.error.HTTPError is one."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=_REQUEST_SECONDS) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def run(self, workflow: Path, inputs: Path, output: Path, is_unwanted: Callable[[], bool]) -> Answer:
        """Do a graph; what its output nodes saved is copied to `output`, temporary files into its folder temp."""
        del inputs  # as it was started with
        graph = json.loads(workflow.read_text(encoding="utf-8"))
        try:
            number = self._ask("/prompt", {"prompt": graph})["prompt_id"]
            history = self._follow(number, is_unwanted)
        except urllib.error.HTTPError as error:
            return Answer(LANCECTL_USAGE, {}, [], f"ComfyUI refused: {_refusal(error.read())}")
        except OSError:
            return Answer(LANCECTL_NO_DAEMON, {}, [], f"ComfyUI is gone: {self._last_words()}")
        status = history.get("status", {})
        if status.get("status_str") != "success":
            return Answer(LANCECTL_FAILED, {}, [], _failure(status))
        outputs = self._take_files(history.get("outputs", {}), output)
        return Answer(0, outputs, [], "")

    def _follow(self, number: str, is_unwanted: Callable[[], bool]) -> dict[str, Any]:
        """What the history has of a prompt, once it has ended."""
        is_interrupted = False
        while True:
            told: dict[str, Any] = self._ask(f"/history/{number}")
            if number in told:
                return dict(told[number])
            if not is_interrupted and is_unwanted():
                self._ask("/interrupt", {})
                is_interrupted = True
            time.sleep(POLL_SECONDS)

    def _take_files(self, told: dict[str, Any], output: Path) -> dict[str, Any]:
        """Copy what was saved. ComfyUI answers for nodes that it need not run again with the files of the time before,
        so that the last graph's stay; older ones go."""
        outputs: dict[str, Any] = {}
        kept = set()
        for key, node in told.items():
            entry = outputs.setdefault(key, {"files": []})
            if texts := [str(text) for text in node.get("text", [])]:
                entry["text"] = texts
            for file in (item for listed in node.values() if isinstance(listed, list) for item in listed):
                if not isinstance(file, dict) or file.get("type") not in ("output", "temp"):
                    continue
                below = Path(file.get("subfolder") or "") / file["filename"]
                source = self._folder / file["type"] / below
                target = output / ("temp" if file["type"] == "temp" else "") / below
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
                kept.add(source)
                entry["files"].append(str(target))
        for path in self._kept - kept:
            path.unlink(missing_ok=True)
        self._kept = kept
        return outputs

    def close(self) -> None:
        self._process.terminate()
        await_end(self._process, END_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)


def _refusal(body: bytes) -> str:
    """The reasons of an answer to /prompt, in a line."""
    try:
        told = json.loads(body)
    except ValueError:
        return body.decode(errors="replace")[:200]
    reasons = [str(told.get("error", {}).get("message", ""))]
    for key, node in (told.get("node_errors") or {}).items():
        reasons += [f"node {key}: {error.get('message')}: {error.get('details')}" for error in node.get("errors", [])]
    return "; ".join(filter(None, reasons))


def _failure(status: dict[str, Any]) -> str:
    for kind, told in status.get("messages", []):
        if kind == "execution_error":
            return redacted(
                f"node {told.get('node_id')} ({told.get('node_type')}): {told.get('exception_message')}".strip()
            )
        if kind == "execution_interrupted":
            return "interrupted"
    return "ComfyUI did not say why"
