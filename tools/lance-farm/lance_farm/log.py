"""What a worker did: a line of JSON for each step, in a file that it alone writes. `t` is seconds by its own clock."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import redacted
from .files import naming


class Log:
    def __init__(self, folder: Path, worker: str) -> None:
        """OSError when it cannot be written."""
        self._path = folder / f"{worker}.jsonl"
        self._file = self._path.open("a", encoding="utf-8")

    def write(self, event: str, **facts: Any) -> None:
        """OSError, as when the disk is full."""
        line = {"t": round(time.time(), 3), "event": event} | facts
        with naming(self._path):
            self._file.write(redacted(json.dumps(line, ensure_ascii=False)) + "\n")
            self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Its lines; one that is only half there, as after a crash, is passed over."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                continue
