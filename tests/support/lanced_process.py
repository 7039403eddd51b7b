"""A real lanced with the demo model, started for a test and ended after it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from lanced_client import Client, ConnectionFailed, TooLarge
from lanced_client.transport import Peer, open_peer

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("LANCED_BUILD", "build")
LANCED = BUILD / "lanced"
LANCECTL = BUILD / "lancectl"
DEMO_MODEL = ROOT / "demo/lance-demo"
DEMO_AWQ = ROOT / "demo/lance-demo-awq"
DEMO_AWQ64 = ROOT / "demo/lance-demo-awq64"
DEMO_NVFP4 = ROOT / "demo/lance-demo-nvfp4"
# Another build is one with a sanitizer, on which everything takes its time.
SLOWER = 6 if "LANCED_BUILD" in os.environ else 1
START_SECONDS = 30 * SLOWER
ANSWER_SECONDS = 30.0 * SLOWER  # long: the machine may be busy with other things
LANCECTL_SECONDS = 120 * SLOWER

# A quick picture, and one that takes long enough to be stopped in the middle.
REQUEST: dict[str, Any] = {
    "prompt": "a large red circle on the left on a blue background",
    "width": 64,
    "height": 64,
    "num_inference_steps": 4,
    "seed": 11,
}
LONG_REQUEST: dict[str, Any] = REQUEST | {"width": 256, "height": 256, "num_inference_steps": 1000}


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Lanced:
    """A context manager; `arguments` are added to the command line."""

    def __init__(
        self,
        *arguments: str,
        models: tuple[Path, ...] = (DEMO_MODEL,),
        endpoint: str | None = None,
        token: str | None = None,
        environment: dict[str, str] | None = None,
        is_ready: bool = True,
        program: Path = LANCED,
    ) -> None:
        """Without `is_ready` nobody waits until it answers; `program` is another that takes lanced's options."""
        self._is_ready = is_ready
        self.token = token
        self.environment = os.environ | (environment or {})
        # A short path: a socket's may have about 100 characters, which pytest's own folders use up.
        self._folder = tempfile.TemporaryDirectory(prefix="lanced-")
        self.endpoint = endpoint or f"ipc://{self._folder.name}/lanced.ipc"
        self.log = Path(self._folder.name) / "log"
        self.command = [str(program), "--endpoint", self.endpoint]
        for model in models:
            self.command += ["--model", str(model)]
        self.command += arguments
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def __enter__(self) -> Lanced:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        if error is not None:
            print(f"lanced said:\n{self.log.read_text(errors='replace')[-4000:]}")
        self._folder.cleanup()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                             env=self.environment)
        if self._is_ready:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        with self.client() as client:
            while True:
                try:
                    client.hello()
                    return
                except ConnectionFailed:
                    if self.process.poll() is not None or time.monotonic() > deadline:
                        self.process.kill()
                        raise RuntimeError(f"lanced does not start:\n{self.log.read_text()}") from None
                    time.sleep(0.02)

    def client(self, peer_factory: Callable[[str], Peer] = open_peer) -> Client:
        return Client(self.endpoint, token=self.token, timeout=ANSWER_SECONDS, peer_factory=peer_factory)

    def lancectl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(LANCECTL), *arguments],
            env=os.environ | {"LANCED_ENDPOINT": self.endpoint},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LANCECTL_SECONDS,
        )


def memory_of(task: str, request: dict[str, Any]) -> float:
    """What the daemon says that a job of the demo model needs, in MB."""
    with Lanced("--memory", "1M") as daemon, daemon.client() as client:
        client.load()
        try:
            client.submit(task, **request)
        except TooLarge as refused:
            (needed,) = re.findall(r"needs ([0-9.]+) MB", str(refused))
            return float(needed)
    raise AssertionError("a megabyte is enough")
