"""Whether workers live: each rewrites a file with a number that grows; others watch it by their own clock alone.

So clocks that differ do not matter. A worker whose number stands still for the lease is gone; one that said that it
ended, or whose process is gone from this very machine, at once.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from .files import read_json, write_json

BEATS_PER_LEASE = 6


def machine_id() -> str:
    """Two processes with the same one see each other's pids; empty where that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


class Beat:
    """Says that a worker lives, from a thread of its own, until it is closed."""

    def __init__(self, folder: Path, worker: str, lease_seconds: float, **facts: Any) -> None:
        """facts: what the file has besides. OSError when it cannot be written at first; later that is passed over."""
        self._path = folder / f"{worker}.json"
        self._told: dict[str, Any] = {"worker": worker, "pid": os.getpid(), "machine": machine_id()}
        self._told |= {"state": "starting"} | facts
        self._beat = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._seconds = lease_seconds / BEATS_PER_LEASE
        self._write()
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self._thread.start()

    def tell(self, **facts: Any) -> None:
        """More facts, for others to see now."""
        with self._lock:
            self._told |= facts
        self._write()

    def _write(self) -> None:
        with self._lock:
            self._beat += 1
            write_json(self._path, self._told | {"beat": self._beat})

    def _go_on(self) -> None:
        while not self._closing.wait(self._seconds):
            try:
                self._write()
            except OSError:
                continue  # a file server that is away for a moment

    def close(self, **facts: Any) -> None:
        """The last word: the worker has ended."""
        self._closing.set()
        self._thread.join()
        self.tell(state="ended", **facts)


def is_gone_here(told: dict[str, Any]) -> bool:
    """Whether a worker's process ran on this machine, and does not any more."""
    if not told.get("machine") or told["machine"] != machine_id():
        return False
    try:
        os.kill(int(told["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _is_zombie(int(told["pid"]))


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and its parent has not asked for its status yet, as submit --wait has not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False


def _is_here(told: dict[str, Any]) -> bool:
    return bool(told.get("machine")) and told["machine"] == machine_id() and not is_gone_here(told)


class Watch:
    """What this process has seen of others."""

    def __init__(self, folder: Path, lease_seconds: float) -> None:
        self._folder = folder
        self._lease = lease_seconds
        self._seen: dict[str, tuple[Any, float]] = {}
        self._grown: set[str] = set()

    def is_gone(self, worker: str) -> bool:
        """Costs a read of the worker's file."""
        told = read_json(self._folder / f"{worker}.json")
        if told.get("state") == "ended" or is_gone_here(told):
            return True
        return self._seconds_still(worker, told) > self._lease

    def is_seen_alive(self, worker: str) -> bool:
        """Whether its number grew since it was first looked at, or its process is seen here. A worker that is neither
        gone nor seen alive is to be looked at again, at most for the lease. Costs a read of the worker's file."""
        told = read_json(self._folder / f"{worker}.json")
        if told.get("state") == "ended":
            return False
        self._seconds_still(worker, told)
        return _is_here(told) or worker in self._grown

    def _seconds_still(self, worker: str, told: dict[str, Any]) -> float:
        """For how long its number has stood still, as far as was seen."""
        now = time.monotonic()
        beat, since = self._seen.get(worker, (None, now))
        if worker in self._seen and beat == told.get("beat"):
            return now - since
        if worker in self._seen:
            self._grown.add(worker)
        self._seen[worker] = (told.get("beat"), now)
        return 0.0
