"""A lanced of the demo's own, on a socket that nobody else knows."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lanced_client import Client, ConnectionFailed
from lanced_client.starter import OwnDaemon

# Enough for a build with a sanitizer on a busy machine: in good days it does not count.
ANSWER_SECONDS = 30


@contextmanager
def private_daemon(binary: Path, model: Path, log_path: Path) -> Iterator[Client]:
    """A daemon on a socket that nobody else knows; it ends with the block."""
    with tempfile.TemporaryDirectory(prefix="lanced-demo-") as folder:
        daemon = OwnDaemon(binary, f"ipc://{folder}/lanced.ipc", ["--model", str(model)], log_path)
        try:
            try:
                daemon.ready()
            except ConnectionFailed as error:
                raise SystemExit(str(error)) from error
            with Client(daemon.endpoint, timeout=ANSWER_SECONDS) as client:
                yield client
        finally:
            daemon.end()
