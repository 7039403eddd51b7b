"""Four clients with a thousand jobs of every task and every kind of weights, and the books of what became of them.

Each client has one job after another done, by nng or by a plain socket; some are submitted twice, cancelled at some
moment, or followed by a client that hangs up and comes back. Whatever happens: a job ends once, as its client wished,
with the bytes that a client alone was given, and the daemon's memory and descriptors stay what they are.

tests/e2e/test_soak.py has a short form; as a program (`make soak`) this writes build/soak/report.md and soak.svg:

    PYTHONPATH=protocol/python:tests/support .venv/bin/python -m soak --jobs 1000
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lanced_client import AnswerTimeout, Client
from lanced_client.client import Job
from lanced_client.transport import Peer, PynngPeer, SocketPeer
from lanced_process import ANSWER_SECONDS, DEMO_AWQ, DEMO_AWQ64, DEMO_MODEL, DEMO_NVFP4, ROOT, Lanced
from plot import Curve, plot
from small_jobs import digest, small_jobs
from stress import unbalanced

OUT = ROOT / "build/soak"
MODELS = (DEMO_MODEL, DEMO_AWQ, DEMO_AWQ64, DEMO_NVFP4)
OPTIONS = ("--result-cache", "0")  # every job is computed
TRANSPORTS: tuple[Callable[[str], Peer], ...] = (PynngPeer, SocketPeer, PynngPeer, SocketPeer)
STAYS = 0.6  # of the jobs are for the model of the client's last one
CANCELS, HANGS_UP, REPEATS = 0.15, 0.15, 0.1
HANG_UP_SECONDS = 0.002  # into a request that is answered later than that
SAMPLE_EVERY = 5  # jobs
# What one end of a run may have more than the other: allocators keep some, connections of clients come and go.
MEMORY_GROWTH, DESCRIPTOR_GROWTH = 1.03, 2


@dataclass(frozen=True)
class Sample:
    """Of the daemon, when so many jobs had ended."""

    jobs: int
    resident_bytes: int
    descriptors: int


def sample(pid: int, jobs: int) -> Sample:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Sample(jobs, pages * os.sysconf("SC_PAGE_SIZE"), len(list(Path(f"/proc/{pid}/fd").iterdir())))


class Soak:
    """`run` returns when the last job has ended; `counts` says what happened, `faults` what must not."""

    def __init__(self, daemon: Lanced) -> None:
        self.daemon = daemon
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.samples: list[Sample] = []
        self.forms = small_jobs()
        self._lock = threading.Lock()
        with daemon.client() as client:
            self._quiet = {
                (model.name, name): digest(client.generate(task, model=model.name, **request))
                for model in MODELS
                for name, (task, request) in self.forms.items()
            }
            self._submitted_before = client.stats()["jobs"]["submitted"]

    def run(self, jobs: int) -> None:
        numbers = itertools.count(1)
        clients = [
            threading.Thread(target=self._be_a_client, args=(place, peer, numbers, jobs))
            for place, peer in enumerate(TRANSPORTS)
        ]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        with self.daemon.client() as client:
            self._balance(client)

    def _be_a_client(self, place: int, peer: Callable[[str], Peer], numbers: itertools.count[int], jobs: int) -> None:
        chance = random.Random(place)
        model = MODELS[place % len(MODELS)].name
        client = self.daemon.client(peer)
        try:
            while (number := next(numbers)) <= jobs and not self.faults:
                if chance.random() > STAYS:
                    model = chance.choice(MODELS).name
                client = self._do_a_job(client, number, model, chance)
                self._note_end()
        except Exception as error:  # whatever it is, a client should not have seen it
            self.faults.append(f"client {place}: {type(error).__name__}: {error}")
        finally:
            client.close()

    def _do_a_job(self, client: Client, number: int, model: str, chance: random.Random) -> Client:
        """Returns the client that the job was followed to its end with."""
        name = chance.choice(list(self.forms))
        task, request = self.forms[name]
        job_id = f"soak-{number}"
        self._count("submitted")
        job = client.submit(task, model=model, job_id=job_id, **request)
        if chance.random() < REPEATS:  # a repetition is no second job
            job.submit()
            self._count("submitted twice")
        cancels_after = chance.uniform(0.0, 0.2) if chance.random() < CANCELS else None
        if chance.random() < HANGS_UP:
            with contextlib.suppress(AnswerTimeout):
                client.call("wait", timeout=HANG_UP_SECONDS, job=job_id, after=0, timeout_ms=1000)
            client.close()
            client = Client(self.daemon.endpoint, timeout=ANSWER_SECONDS, peer_factory=chance.choice(TRANSPORTS))
            job = client.submit(task, model=model, job_id=job_id, **request)
            self._count("hung up")
        ending = self._follow(job, cancels_after)
        self._count(ending)
        if ending == "done":
            if digest(job.result()) != self._quiet[model, name]:
                self.faults.append(f"{job_id}: {name} of {model} has other bytes than a quiet run's")
        elif ending != "cancelled" or cancels_after is None:
            self.faults.append(f"{job_id}: {name} of {model} ended as {job.ended}")
        job.release()
        return client

    @staticmethod
    def _follow(job: Job, cancels_after: float | None) -> str:
        """The name of the event that ended it."""
        if cancels_after is not None:
            deadline = time.monotonic() + cancels_after
            while job.ended is None and time.monotonic() < deadline:
                job.poll(max(0.0, deadline - time.monotonic()))
            job.cancel()
        for _ in job.events():
            pass
        assert job.ended is not None
        return job.ended.event

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def _note_end(self) -> None:
        with self._lock:
            self.counts["ended"] += 1
            if self.counts["ended"] % SAMPLE_EVERY == 0:
                self.samples.append(sample(self.daemon.process.pid, self.counts["ended"]))

    def _balance(self, client: Client) -> None:
        """Whether the daemon counted the jobs that the clients did, each once."""
        jobs = client.stats()["jobs"]
        self.faults += unbalanced(jobs, jobs["submitted"] - self._submitted_before, self.counts["submitted"])

    def compare_ends(self) -> None:
        """Of a long run, the second quarter with the last: the first is for what is made once and stays."""
        quarter = len(self.samples) // 4
        early, late = self.samples[quarter : 2 * quarter], self.samples[-quarter:]
        before, after = (statistics.median(one.resident_bytes for one in part) for part in (early, late))
        if after > before * MEMORY_GROWTH:
            self.faults.append(f"resident memory grew from {before / 1e6:.0f} to {after / 1e6:.0f} MB")
        files_before, files_after = (statistics.median(one.descriptors for one in part) for part in (early, late))
        if files_after > files_before + DESCRIPTOR_GROWTH:
            self.faults.append(f"open descriptors grew from {files_before:.0f} to {files_after:.0f}")


def picture_of(samples: list[Sample]) -> str:
    jobs = [float(one.jobs) for one in samples]
    memory = Curve("resident memory, MB", [one.resident_bytes / 1e6 for one in samples])
    return plot("jobs ended", jobs, [memory, Curve("open descriptors", [float(one.descriptors) for one in samples])])


def report(soak: Soak, seconds: float) -> list[str]:
    counts: dict[str, Any] = dict(soak.counts)
    memory = [one.resident_bytes / 1e6 for one in soak.samples]
    files = [one.descriptors for one in soak.samples]
    return [
        f"{counts.get('ended', 0)} jobs of {len(soak.forms)} forms by {len(TRANSPORTS)} clients on "
        f"{len(MODELS)} models in {seconds:.0f} s: {counts.get('done', 0)} done with the bytes of a quiet run, "
        f"{counts.get('cancelled', 0)} cancelled, {counts.get('submitted twice', 0)} submitted twice, "
        f"{counts.get('hung up', 0)} times hung up",
        f"resident memory {min(memory):.0f} to {max(memory):.0f} MB, {min(files)} to {max(files)} descriptors",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        with Lanced("--state", f"{folder}/state", *OPTIONS, models=MODELS) as daemon:
            soak = Soak(daemon)
            started = time.monotonic()
            soak.run(options.jobs)
            soak.compare_ends()
        lines = report(soak, time.monotonic() - started)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "soak.svg").write_text(picture_of(soak.samples))
    (OUT / "report.md").write_text("\n".join(lines + soak.faults) + "\n")
    print("\n".join(lines + [f"failed: {fault}" for fault in soak.faults]))
    return 1 if soak.faults else 0


if __name__ == "__main__":
    sys.exit(main())
