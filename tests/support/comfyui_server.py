"""Starts a real ComfyUI with this repository as its node pack, and talks to it as its front end does."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import websocket

ROOT = Path(__file__).resolve().parents[2]
# On a busy machine ComfyUI takes minutes to import itself, and half a minute to answer.
START_SECONDS, ANSWER_SECONDS = 600, 180
RUN_SECONDS = 600  # of a graph, from one message to the next
PREVIEW_WITH_METADATA, TEXT = 4, 3  # kinds of binary websocket messages


@dataclass
class Run:
    """What the front end was told about one prompt."""

    status: str = ""  # success, error, interrupted, rejected
    seconds: float = 0.0
    server_seconds: float = 0.0  # from its start to its end by ComfyUI's own clock, to the millisecond
    progress: list[tuple[int, int]] = field(default_factory=list)  # (value, max) per message
    progress_at: list[float] = field(default_factory=list)  # when each came, time.monotonic()
    previews: list[bytes] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)  # under nodes
    text_nodes: list[str] = field(default_factory=list)  # the node of each text
    executed: list[str] = field(default_factory=list)  # nodes that ran, not those answered from the cache
    started_at: dict[str, float] = field(default_factory=dict)  # when each of them began, time.monotonic()
    error: str = ""
    error_type: str = ""  # as the front end shows it before the words
    outputs: dict[str, Any] = field(default_factory=dict)
    disturbed_at: float | None = None
    told_before: str = ""  # the last text before the disturbance
    ended: float = 0.0

    @property
    def ended_after_disturbance_seconds(self) -> float:
        assert self.disturbed_at is not None
        return self.ended - self.disturbed_at


class ComfyUI:
    """A running ComfyUI; a context manager that ends it."""

    def __init__(
        self,
        comfyui: Path,
        python: str,
        base: Path,
        environment: dict[str, str],
        neighbours: Mapping[str, Path] | None = None,
        pack: Path = ROOT,
    ) -> None:
        """`base` has its models, inputs and outputs. neighbours: single-file packs beside this one, by folder name.
        pack: a copy of this repository, if it is not to be the repository."""
        nodes = base / "custom_nodes"
        nodes.mkdir(parents=True)
        for name, source in (neighbours or {}).items():
            (nodes / name).mkdir()
            shutil.copy(source, nodes / name / "__init__.py")
        (nodes / "lanced").symlink_to(pack)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = base / "comfyui.log"
        command = [python, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port), "--disable-auto-launch"]
        command += ["--preview-method", "auto"]  # its default is none at all
        command += ["--base-directory", str(base), "--database-url", f"sqlite:///{base / 'comfyui.db'}"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=comfyui,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._client_id = uuid.uuid4().hex

    def __enter__(self) -> ComfyUI:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.get("/system_stats")
                return self
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self._process.kill()
                    raise RuntimeError(f"ComfyUI does not start:\n{self.log.read_text()[-3000:]}") from None
                time.sleep(0.2)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def request(self, path: str, body: Any = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            content: bytes = answer.read()
        return content

    def get(self, path: str) -> Any:
        return json.loads(self.request(path))

    def fetch_file(self, entry: dict[str, str]) -> bytes:
        """A file that an output node saved, such as run.outputs["3"]["images"][0]."""
        return self.request("/view?" + urllib.parse.urlencode(entry))

    def interrupt(self) -> None:
        self.request("/interrupt", {})

    def forget(self) -> None:
        """Have its cache dropped, so that the next prompt is done whole."""
        self.request("/free", {"free_memory": True})
        time.sleep(1.2)  # it does so when its queue has been empty for up to a second

    def upload(self, path: Path) -> None:
        """Put a picture or video into ComfyUI's input folder, as dropping it on a loader node does."""
        self.upload_bytes(path.name, path.read_bytes())

    def upload_bytes(self, name: str, content: bytes) -> None:
        boundary = uuid.uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
        head += "Content-Type: application/octet-stream\r\n\r\n"
        tail = f'\r\n--{boundary}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\n1\r\n--{boundary}--\r\n'
        body = head.encode() + content + tail.encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        request = urllib.request.Request(f"{self.url}/upload/image", body, kind)
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS):
            pass

    def run(
        self,
        prompt: dict[str, Any],
        disturb: Callable[[], object] | None = None,
        after_seconds: float = 0.0,
        timeout: float = RUN_SECONDS,
        extra_data: dict[str, Any] | None = None,
    ) -> Run:
        """Queue an API-form workflow and follow it to its end. extra_data: what the front end sends beside it.
        `disturb`, such as self.interrupt, is called once
        `after_seconds` have passed since it began to run, if it has not ended by then."""
        run = Run()
        socket_url = f"{self.url.replace('http', 'ws')}/ws?clientId={self._client_id}"
        connection = websocket.create_connection(socket_url, timeout=timeout)
        started = time.monotonic()

        def disturb_now() -> None:
            run.told_before = run.texts[-1] if run.texts else ""
            run.disturbed_at = time.monotonic()
            assert disturb is not None
            disturb()

        later = threading.Timer(after_seconds, disturb_now)
        try:
            connection.send(json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}))
            try:
                body = {"prompt": prompt, "client_id": self._client_id, "extra_data": extra_data or {}}
                queued = json.loads(self.request("/prompt", body))
            except urllib.error.HTTPError as error:
                run.status, run.error = "rejected", error.read().decode()
                return run
            while not run.status:
                message = connection.recv()
                if isinstance(message, bytes):
                    self._take_binary(run, message)
                    continue
                event = json.loads(message)
                if event["data"].get("prompt_id") != queued["prompt_id"]:
                    continue
                if event["type"] == "execution_start" and disturb is not None:
                    later.start()
                self._take_event(run, event)
            run.ended = time.monotonic()
            run.seconds = run.ended - started
        finally:
            later.cancel()
            if later.ident is not None:
                later.join()
            connection.close()
        entry = self._history(queued["prompt_id"])
        run.outputs = entry["outputs"]
        times = [message["timestamp"] / 1000 for _, message in entry["status"]["messages"]]
        run.server_seconds = times[-1] - times[0]
        return run

    def _history(self, prompt_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + ANSWER_SECONDS
        while not (history := self.get(f"/history/{prompt_id}")) and time.monotonic() < deadline:
            time.sleep(0.02)  # the entry appears just after the last event
        entry: dict[str, Any] = history[prompt_id]
        return entry

    def last_outputs(self) -> dict[str, Any]:
        """What the output nodes of the newest prompt saved, whoever queued it."""
        # It leaves the queue just after its last event, when its entry is there.
        deadline = time.monotonic() + ANSWER_SECONDS
        while self.get("/queue")["queue_running"] and time.monotonic() < deadline:
            time.sleep(0.02)
        (entry,) = self.get("/history?max_items=1").values()
        outputs: dict[str, Any] = entry["outputs"]
        return outputs

    @staticmethod
    def _take_event(run: Run, event: dict[str, Any]) -> None:
        kind, data = event["type"], event["data"]
        if kind == "progress":
            run.progress.append((data["value"], data["max"]))
            run.progress_at.append(time.monotonic())
        elif kind == "executing" and data["node"] is not None:
            run.executed.append(data["node"])
            run.started_at[data["node"]] = time.monotonic()
        elif kind == "execution_error":
            run.status, run.error, run.error_type = "error", data["exception_message"], data["exception_type"]
        elif kind in ("execution_success", "execution_interrupted"):
            run.status = kind.removeprefix("execution_")

    @staticmethod
    def _take_binary(run: Run, message: bytes) -> None:
        kind, length = struct.unpack(">II", message[:8])
        if kind == PREVIEW_WITH_METADATA:
            run.previews.append(message[8 + length :])
        elif kind == TEXT:
            run.text_nodes.append(message[8 : 8 + length].decode())
            run.texts.append(message[8 + length :].decode())
