"""Many clients at once that poll, cancel and hang up, and the books of what became of their jobs."""

from __future__ import annotations

import contextlib
import hashlib
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from lanced_client import AnswerTimeout, Client
from lanced_client.transport import SocketPeer
from lanced_process import SLOWER, Lanced

CLIENTS = 32
LONGEST_POLL_MS = 50
SEEDS = range(4)
SMALL: dict[str, Any] = {"prompt": "a red circle", "width": 64, "height": 64, "num_inference_steps": 2}
HANG_UP_SECONDS = 0.002  # into a request that is answered later than that
PATIENCE_SECONDS = 120.0 * SLOWER  # for one answer, which may be late on a busy machine but must come
BLOBS = [random.Random(seed).randbytes(2_300_000) for seed in range(3)]
ENDINGS = ("done", "failed", "cancelled")


def unbalanced(jobs: dict[str, Any], made: int, submitted: int) -> list[str]:
    """What is wrong with a daemon's count of jobs (`stats`) when all clients have done: each was made once."""
    faults = []
    if made != submitted:
        faults.append(f"{submitted} jobs were submitted, {made} were made of them")
    if jobs["queued"] + jobs["running"] > 0:
        faults.append(f"jobs that nobody waits for are left: {jobs}")
    return faults


@contextlib.contextmanager
def busy_machine(loops: int) -> Iterator[None]:
    """So many programs that want a processor each."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


class Stress:
    """`run` returns when every client's last job has ended; `counts` says what happened, `faults` what must not."""

    def __init__(self, daemon: Lanced) -> None:
        self.daemon = daemon
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self._lock = threading.Lock()
        with daemon.client() as client:
            self._pixels = {seed: client.generate("t2i", seed=seed, **SMALL).pixels for seed in SEEDS}
            self._submitted_before = client.stats()["jobs"]["submitted"]

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        with ThreadPoolExecutor(CLIENTS) as pool:
            done = [pool.submit(self._be_a_client, number, end) for number in range(CLIENTS)]
        for future in done:
            future.result()
        with self.daemon.client() as client:
            jobs = client.stats()["jobs"]
        self.faults += unbalanced(jobs, jobs["submitted"] - self._submitted_before, self.counts["submitted"])

    def _be_a_client(self, number: int, end: float) -> None:
        chance = random.Random(number)
        with Client(self.daemon.endpoint, timeout=PATIENCE_SECONDS, peer_factory=SocketPeer) as client:
            while time.monotonic() < end and not self.faults:
                try:
                    self._do_a_job(client, chance)
                except Exception as error:  # whatever it is, a client should not have seen it
                    with self._lock:
                        self.faults.append(f"client {number}: {type(error).__name__}: {error}")

    def _do_a_job(self, client: Client, chance: random.Random) -> None:
        seed = chance.choice(SEEDS)
        job = f"stress-{chance.getrandbits(64):016x}"
        params = SMALL | {"seed": str(seed)}
        self._count("submitted")
        for _ in range(chance.choice((1, 1, 2))):  # a repetition is no second job
            client.call("submit", job=job, task="t2i", params=params)
        if chance.random() < 0.2:
            self._put(client, chance)
        cancels = chance.random() < 0.3
        after, ending = 0, ""
        while not ending:
            if chance.random() < 0.1:
                self._hang_up(client, job, after)
            if cancels and chance.random() < 0.1:
                client.cancel(job)
            for event in self._poll(client, job, after, chance.randint(1, LONGEST_POLL_MS)):
                after += 1
                if event["sequence"] != after or ending:
                    raise AssertionError(f"event {event} came as number {after}")
                ending = event["event"] if event["event"] in ENDINGS else ""
        self._count(ending)
        if ending == "done":
            _, piece = client.call("get", job=job, tensor="pixels")
            assert piece["piece"].tobytes() == np.asarray(self._pixels[seed]).tobytes()
        elif not cancels:
            raise AssertionError(f"{job} ended as {ending}")
        client.call("release", job=job)

    def _put(self, client: Client, chance: random.Random) -> None:
        """One of a few blobs that others put too, in some order."""
        data = chance.choice(BLOBS)
        piece_bytes = client.hello().limits["piece_bytes"]
        fields: dict[str, Any] = {"blob": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        pieces = list(range(0, len(data), piece_bytes))
        for offset in chance.sample(pieces, len(pieces)):
            piece = np.frombuffer(data, np.uint8)[offset : offset + piece_bytes]
            client.call("put", {"piece": piece}, offset=offset, **fields)
        self._count("puts")
        answer, _ = client.call("put", **fields)
        if not answer["complete"]:
            raise AssertionError(f"a blob whose pieces all came is not complete: {answer}")

    def _poll(self, client: Client, job: str, after: int, timeout_ms: int) -> list[dict[str, Any]]:
        self._count("polls")
        answer, _ = client.call("wait", job=job, after=after, timeout_ms=timeout_ms)
        return list(answer["events"])

    def _hang_up(self, client: Client, job: str, after: int) -> None:
        try:
            client.call("wait", timeout=HANG_UP_SECONDS, job=job, after=after, timeout_ms=LONGEST_POLL_MS)
        except AnswerTimeout:
            self._count("hung up")

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1
