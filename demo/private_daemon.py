"""A lanced of the demo's own, on a socket that nobody else knows."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lanced_client import Client, ConnectionFailed

# Enough for a build with a sanitizer on a busy machine: in good days none of them counts.
START_SECONDS = 60
ANSWER_SECONDS = 30
END_SECONDS = 60


@contextmanager
def private_daemon(binary: Path, model: Path, log_path: Path) -> Iterator[Client]:
    """A daemon on a socket that nobody else knows; it ends with the block."""
    with tempfile.TemporaryDirectory(prefix="lanced-demo-") as folder, log_path.open("wb") as log:
        endpoint = f"ipc://{folder}/lanced.ipc"
        command = [str(binary), "--endpoint", endpoint, "--model", str(model), "--until-eof", "--on-term", "cancel"]
        # It ends with this program, however that ends: with the pipe to its standard input.
        # A session of its own: Ctrl-C is for this program, which then cancels its job and ends the daemon.
        daemon = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            with Client(endpoint, timeout=ANSWER_SECONDS) as client:
                wait_until_it_answers(client, daemon, log_path)
                yield client
                client.shutdown()
            daemon.wait(timeout=END_SECONDS)
        finally:
            if daemon.poll() is None:
                daemon.terminate()
                try:
                    daemon.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()


def wait_until_it_answers(client: Client, daemon: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            client.hello()
            return
        except ConnectionFailed as error:
            if daemon.poll() is not None:
                log = log_path.read_text(errors="replace")
                raise SystemExit(f"{log}\nlanced ended with status {daemon.returncode}; its log is above") from error
            if time.monotonic() > deadline:
                raise SystemExit(f"lanced did not answer within {START_SECONDS} s; see {log_path}") from error
            time.sleep(0.05)
