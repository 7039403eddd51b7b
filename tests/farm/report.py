"""make farm-report: what docs/farm.md shows, measured here and now: build/farm/report.md, timeline.svg, page.png."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from farm_jobs import done_counts, farm, prepared, submitted, workers, write_workflow
from farm_scenarios import made_by, run_with_troubles, three_jobs
from farm_simulation import simulate
from farm_timeline import timeline
from lance_farm.job import Job
from lance_farm.status import events_of, status_of
from lanced_process import ROOT
from slurm_cluster import Cluster, why_not

OUT = ROOT / "build/farm"
TASKS = 1000
SLURM_TASKS = (100, 60, 40)
SIMULATED = ((10, 1000), (100, 1000), (1000, 1000))
CHROMIUM = shutil.which("chromium")


def seconds_of(do: Callable[[], object]) -> float:
    began = time.monotonic()
    do()
    return time.monotonic() - began


def overheads(job: Job) -> list[float]:
    """Of each task in a warm worker, claim to claim, without the job's own time; seconds."""
    found = []
    for name in {event["worker"] for event in events_of(job)}:
        began = [event for event in events_of(job) if event["worker"] == name and event["event"] == "began"]
        ended = {event["task"]: event for event in events_of(job) if event["worker"] == name and "job_seconds" in event}
        for this, after in pairwise(began[1:]):
            found.append(after["t"] - this["t"] - ended[this["task"]]["job_seconds"])
    return found


def thousand(folder: Path) -> list[str]:
    """1,000 tasks: prepared, done by two workers, told, collected, shown."""
    workflow = write_workflow(folder)
    command: list[str | Path] = ["prepare", workflow, "--seeds", f"1..{TASKS}", "-o", folder / "job"]
    prepare = seconds_of(lambda: farm(*command))
    job = Job(folder / "job")
    lines = [
        f"{TASKS} tasks prepared in {prepare:.1f} s, status in {seconds_of(lambda: farm('status', job.folder)):.2f} s"
    ]
    done = submitted(job, "--workers", "2", "--daemon-option=--threads=1")
    assert done.returncode == 0, done.stdout
    extra = sorted(overheads(job))
    status = seconds_of(lambda: farm("status", job.folder))
    lines.append(f"status of {TASKS} done tasks in {status:.2f} s; loads: {status_of(job)['loads']} of 2 workers")
    median, high = statistics.median(extra), extra[int(0.95 * len(extra))]
    lines.append(
        f"a task costs {1e3 * median:.0f} ms beside its job's own time (median; 95 % under {1e3 * high:.0f} ms)"
    )
    shutil.rmtree(OUT / "page", ignore_errors=True)
    lines.append(f"collected in {seconds_of(lambda: farm('collect', job.folder, '-o', OUT / 'page')):.1f} s")
    if CHROMIUM:
        page = (OUT / "page/index.html").as_uri()
        subprocess.run([CHROMIUM, "--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1280,900",
                        f"--screenshot={OUT / 'page.png'}", page], check=True, capture_output=True)  # fmt: skip
        lines.append(f"its page of {TASKS} rows in Chromium: page.png")
    return lines


def speed_up(folder: Path) -> list[str]:
    """One worker, then two, with one thread of the machine each."""
    seconds = []
    for count in (1, 2):
        home = folder / str(count)
        home.mkdir()
        job = prepared(home, "--seeds", "1..40", workflow=write_workflow(home, width=128, height=128, steps=12))
        assert submitted(job, "--workers", str(count), "--daemon-option=--threads=1").returncode == 0
        told = [event["t"] for event in events_of(job) if event["event"] in ("began", "done")]
        seconds.append(max(told) - min(told))
    return [f"40 pictures: 1 worker {seconds[0]:.1f} s, 2 workers {seconds[1]:.1f} s: "
            f"{seconds[0] / seconds[1]:.2f} times, on {os.cpu_count()} cores"]  # fmt: skip


def on_slurm(folder: Path) -> list[str]:
    if reason := why_not():
        return [f"Slurm: {reason}"]
    with tempfile.TemporaryDirectory(prefix="slurm-") as home, Cluster(Path(home), 4) as cluster:
        jobs = three_jobs(folder / "slurm", SLURM_TASKS)
        troubles = run_with_troubles(cluster, jobs, workers_each=2)
    events = sorted((event for job in jobs for event in events_of(job)), key=lambda event: float(event["t"]))
    (OUT / "timeline.svg").write_text(timeline(events, troubles))
    alone = three_jobs(folder / "alone", SLURM_TASKS)
    for job in alone:
        assert submitted(job).returncode == 0
    same = sum(here == there for job, single in zip(jobs, alone, strict=True)
               for here, there in zip(made_by(job).values(), made_by(single).values(), strict=True))  # fmt: skip
    ends = [count for job in jobs for count in done_counts(job).values()]
    tries = sum(event["event"] == "retry" for event in events)
    return [f"Slurm, 4 nodes, {len(ends)} tasks of 3 workflows: each ended {min(ends)} to {max(ends)} times, {same} of"
            f" {len(ends)} with the bytes of a single machine, {tries} second tries,"
            f" {sum(len(workers(job)) for job in jobs)} workers: timeline.svg"]  # fmt: skip


def simulated(folder: Path) -> list[str]:
    lines = ["", "| nodes | tasks | s | ms a task | status, s | collect, s | MB | most often done |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for nodes, tasks in SIMULATED:
        home = folder / f"{nodes}-{tasks}"
        home.mkdir()
        told = simulate(prepared(home, "--seeds", f"1..{tasks}", workflow=write_workflow(home)), nodes, home / "out")
        lines.append(
            f"| {nodes} | {tasks} | {told.work_seconds:.1f} | {1e3 * told.work_seconds / tasks:.1f} |"
            f" {told.status_seconds:.2f} | {told.collect_seconds:.1f} | {told.peak_bytes / 1e6:.0f} |"
            f" {told.most_done} |"
        )
    return [*lines, ""]


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    lines = []
    for part in (thousand, speed_up, simulated, on_slurm):
        with tempfile.TemporaryDirectory(prefix="farm-") as folder:
            for line in part(Path(folder)):
                print(line, flush=True)
                lines.append(line)
    (OUT / "report.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
