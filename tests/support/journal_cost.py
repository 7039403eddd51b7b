"""What a journal adds to a job's time, in figures: `make journal-cost`, for docs/operations.md.

Two lanced with the demo model, one of them with a state folder, are given the same small picture in turns: seconds from
submit to the result, in pairs. FOLDER says where the state folder is made: on a disk each fsync costs what the disk
takes, in memory (/dev/shm) what remains is lanced's own. As many fsyncs as the journal waits for, and one on that disk
of as many bytes as the picture has, stand beside it.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lanced_client import Client
from lanced_process import REQUEST, Lanced

PICTURE: dict[str, Any] = REQUEST | {"width": 128, "height": 128, "num_inference_steps": 20}
SMALL: dict[str, Any] = REQUEST | {"width": 64, "height": 64, "num_inference_steps": 1}


def seconds_of(client: Client, request: dict[str, Any], seed: int) -> float:
    began = time.monotonic()
    client.generate("t2i", cache=False, **request | {"seed": seed})
    return time.monotonic() - began


def write_seconds(folder: str, count: int) -> list[float]:
    """One write and fsync of a picture's bytes at the end of a file, so often."""
    data, seconds = bytes(PICTURE["width"] * PICTURE["height"] * 3), []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(count):
            began = time.monotonic()
            file.write(data)
            file.flush()
            os.fdatasync(file.fileno())
            seconds.append(time.monotonic() - began)
    return seconds


def told(name: str, seconds: list[float]) -> None:
    print(f"{name}: least {min(seconds) * 1e3:.2f} ms, median {statistics.median(seconds) * 1e3:.2f}", flush=True)


def measure(name: str, request: dict[str, Any], without: Client, having: Client, jobs: int) -> None:
    before = having.stats()["journal"]
    plain: list[float] = []
    kept: list[float] = []
    for seed in range(jobs):
        plain.append(seconds_of(without, request, seed))
        kept.append(seconds_of(having, request, seed))
    after = having.stats()["journal"]
    told(f"{name} without a journal", plain)
    told(f"{name} with one", kept)
    told("  the differences", [more - less for more, less in zip(kept, plain, strict=True)])
    counts = {what: (after[what] - before[what]) / jobs for what in ("transactions", "syncs") if what in after}
    print("  for each job: " + ", ".join(f"{count:.2f} {what}" for what, count in counts.items()), flush=True)


if __name__ == "__main__":
    parent, jobs = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        told(f"a write and fsync of a picture in {parent}", write_seconds(folder, 50))
        with Lanced() as plain, Lanced("--state", str(Path(folder) / "state")) as kept:
            with plain.client() as without, kept.client() as having:
                without.load()
                having.load()
                measure("a picture", PICTURE, without, having, jobs)
                measure("a smaller one in one step", SMALL, without, having, jobs)
