"""Who waits how long for a lanced that is busy, in figures: `make who-waits`, for docs/operations.md.

A question about a picture, idle and while a film is made, whose bytes are compared; one job of one client behind sixty
of another; `stats` meanwhile. All with the demo model, on whatever this machine has.
"""

from __future__ import annotations

import hashlib
import statistics
import threading
import time
from typing import Any

from demo.shapes import Scene
from lanced_client import Client, Progress, Result
from lanced_process import REQUEST, Lanced

CIRCLE = Scene("circle", "red", "blue", "large", "left").frames()
QUESTION: dict[str, Any] = {"prompt": "Describe the image.", "source": CIRCLE, "resolution": "128x128"}
FILM: dict[str, Any] = REQUEST | {"width": 128, "height": 128, "num_frames": 33, "num_inference_steps": 30}
PICTURE: dict[str, Any] = REQUEST | {"width": 128, "height": 128, "num_inference_steps": 20}
ASKED, MANY = 20, 60


def seconds_of(client: Client, task: str, **request: Any) -> float:
    began = time.monotonic()
    client.generate(task, **request)
    return time.monotonic() - began


def hash_of(result: Result) -> str:
    assert result.pixels is not None
    return hashlib.sha256(result.pixels.tobytes()).hexdigest()[:16]


def told(name: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    median = statistics.median(ordered)
    print(f"{name}: p50 {median * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms, n {len(ordered)}", flush=True)


class Stats(threading.Thread):
    """Asks for `stats` over and over."""

    def __init__(self, daemon: Lanced) -> None:
        super().__init__()
        self._daemon = daemon
        self._is_over = threading.Event()
        self.seconds: list[float] = []

    def run(self) -> None:
        with self._daemon.client() as client:
            while not self._is_over.wait(0.02):
                began = time.monotonic()
                client.stats()
                self.seconds.append(time.monotonic() - began)

    def stop(self) -> None:
        self._is_over.set()
        self.join()


def film_with_questions(daemon: Lanced, client: Client) -> None:
    told("a question, idle", [seconds_of(client, "x2t_image", seed=i, **QUESTION) for i in range(ASKED)])
    steps: list[float] = []
    alone = client.generate(
        "t2v", lambda event: steps.append(event.step_seconds or 0) if isinstance(event, Progress) else None, **FILM
    )
    print(f"the film alone: {alone.receipt['total_seconds']:.2f} s, its longest step {max(steps) * 1e3:.1f} ms")
    stats = Stats(daemon)
    stats.start()
    with daemon.client() as other, other.submit("t2v", **FILM) as film:
        while not film.poll(1):
            pass
        waits: list[float] = []
        while len(waits) < ASKED and film.ended is None:
            waits.append(seconds_of(client, "x2t_image", seed=len(waits), **QUESTION))
            film.poll(0)
        told("a question while it is made", waits)
        result = film.result()
    stats.stop()
    told("stats meanwhile", stats.seconds)
    print(f"the film with questions: {result.receipt['total_seconds']:.2f} s, of these paused"
          f" {result.receipt.get('paused_seconds', 0):.2f} s; {hash_of(alone)} alone, {hash_of(result)} with them")


def one_behind_sixty(daemon: Lanced, client: Client) -> None:
    alone = seconds_of(client, "t2i", **PICTURE)
    stats = Stats(daemon)
    stats.start()
    with Client(daemon.endpoint, name="the one with sixty") as other:
        began = time.monotonic()
        many = [other.submit("t2i", **PICTURE | {"seed": seed}) for seed in range(MANY)]
        waited = seconds_of(client, "t2i", **PICTURE | {"seed": MANY})
        for job in many:
            job.result()
        everything = time.monotonic() - began
    stats.stop()
    print(f"a picture: {alone * 1e3:.1f} ms alone, {waited * 1e3:.1f} ms behind {MANY} of another client, which had all"
          f" theirs after {everything:.2f} s")
    told("stats meanwhile", stats.seconds)


if __name__ == "__main__":
    with Lanced("--queue", "100") as daemon, daemon.client() as client:
        client.load()
        film_with_questions(daemon, client)
        one_behind_sixty(daemon, client)
