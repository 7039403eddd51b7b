"""The same mixed jobs counted twice: by `lanced --calibrate` beside them, and offline by `lance-quant calibrate`.

One client after the other's job: the same bytes. Four clients at once, with jobs of all three priorities, of which some
are put aside for others: the same tokens and largest values, and sums that differ by no more than the order of adding.

tests/e2e/test_live_calibration.py has a short form; as a program this does as many jobs as it is told to:

    PYTHONPATH=protocol/python:tests/support .venv/bin/python -m counted_jobs --jobs 200
"""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lanced_process import DEMO_MODEL, LANCECTL, Lanced
from quantised import quant
from safetensors_file import Entry, read

TASKS = ("t2i", "x2t_image", "t2v", "image_edit", "x2t_video", "i2v", "video_edit")
SEED, CLIENTS, MOST_FILES = 42, 4, 63
DRAWN = ("--steps", "3")
SIZE, FRAMES, SOURCE = ("--size", "32x32"), ("--frames", "5"), ("--resolution", "32x32/56x56")
CLASSES = ("interactive", "normal", "batch")


@dataclass(frozen=True)
class CountedJob:
    number: int
    task: str
    prompt: str
    source: Path | None

    def words(self, folder: Path) -> list[str]:
        """Of lancectl."""
        source = [str(self.source)] if self.source else []
        to = folder / f"{self.number}{'.mp4' if self.task in ('t2v', 'i2v', 'video_edit') else '.png'}"
        names = {"image_edit": "edit", "video_edit": "video-edit", "x2t_image": "ask", "x2t_video": "ask"}
        words = [names.get(self.task, self.task), *source, self.prompt, "--seed", str(SEED + self.number)]
        words += SOURCE if self.source else SIZE
        words += FRAMES if self.task in ("t2v", "i2v") else ()
        return words if self.task.startswith("x2t") else [*words, *DRAWN, "-o", str(to)]


def sources(folder: Path) -> dict[str, Path]:
    chance = np.random.default_rng(1)
    frames = []
    for i in range(5):
        small = chance.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(small).resize((64, 64), Image.Resampling.BILINEAR).save(folder / f"frame-{i}.png")
        frames.append(str(folder / f"frame-{i}.png"))
    clip = folder / "clip.mp4"
    command = [LANCECTL, "clip", *frames, "--fps", "4", "-o", clip]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    return {"image": folder / "frame-0.png", "video": clip}


def mixed_jobs(count: int, folder: Path) -> list[CountedJob]:
    """Tasks in turn, a few jobs of each: as many at a time as keep calibrate's example files below their limit."""
    have = sources(folder)
    at_a_time = -(-count // MOST_FILES)
    jobs = []
    for number in range(count):
        task = TASKS[number // at_a_time % len(TASKS)]
        kind = {"t2i": "", "t2v": "", "x2t_video": "video", "video_edit": "video"}.get(task, "image")
        prompt = f"is there a circle in place {number}?" if task.startswith("x2t") else f"circle number {number} turns"
        jobs.append(CountedJob(number, task, prompt, have.get(kind)))
    return jobs


def offline(jobs: list[CountedJob], folder: Path) -> dict[str, Entry]:
    words: list[str | Path] = [*DRAWN, *SIZE, *FRAMES, *SOURCE, "--seed", str(SEED), "--no-moments"]
    for number, (task, several) in enumerate(itertools.groupby(jobs, key=lambda job: job.task)):
        entries: dict[str, Any] = {}
        for job in several:
            kind = "video" if job.source and job.source.suffix == ".mp4" else "image"
            entries[str(job.number)] = job.prompt if job.source is None else {
                "interleave_array": [str(job.source), job.prompt],
                "element_dtype_array": [kind, "text"],
                "istarget_in_interleave": [0, 0],
            }
        (folder / f"{number}.json").write_text(json.dumps(entries))
        words += ["--task", task, "--examples", folder / f"{number}.json"]
    quant("calibrate", "--model", DEMO_MODEL, *words, "-o", folder / "offline.safetensors")
    return read(folder / "offline.safetensors")


def live(jobs: list[CountedJob], folder: Path, clients: int) -> dict[str, Entry]:
    """One client has one job done after the other; several have theirs done at once, of all priorities."""
    counted = folder / f"by-{clients}.safetensors"

    def have_done(job: CountedJob) -> None:
        priority = ["--priority", CLASSES[job.number * 5 % 7 % len(CLASSES)]] if clients > 1 else []
        done = daemon.lancectl(*job.words(folder), *priority)
        assert done.returncode == 0, done.stderr

    with Lanced("--calibrate", str(counted), "--result-cache", "0") as daemon:
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(have_done, jobs))
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(60) == 0
    return read(counted)


def furthest(counted: dict[str, Entry], wanted: dict[str, Entry]) -> float:
    """How far a sum is off, of the largest of its layer; tokens and largest values must be equal."""
    assert counted.keys() == wanted.keys()
    worst = 0.0
    for name, (kind, shape, data) in wanted.items():
        assert counted[name][:2] == (kind, shape)
        if name.endswith((".tokens", ".largest")):
            assert counted[name][2] == data, name
        else:
            ours, theirs = (np.frombuffer(one, np.float32).astype(float) for one in (counted[name][2], data))
            worst = max(worst, float(np.abs(ours - theirs).max() / np.abs(theirs).max()))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    count = parser.parse_args().jobs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs = mixed_jobs(count, folder)
        began = time.monotonic()
        wanted = offline(jobs, folder)
        print(f"{count} jobs of {len({job.task for job in jobs})} tasks offline: {time.monotonic() - began:.1f} s")
        for clients in (1, CLIENTS):
            began = time.monotonic()
            counted = live(jobs, folder, clients)
            words = "the same bytes" if counted == wanted else f"sums within {furthest(counted, wanted):.1e}"
            print(f"by a daemon, {clients} client(s): {words}, {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
