"""What a request and its payload cost between a Python client and lanced: latencies in ms, payloads in GB/s.

    PYTHONPATH=protocol/python python3 tools/wire_bench.py [--endpoint URL | --start [--beside DIR]]
                                                           [--megabytes N] [--json]

Asks a lanced that runs and leaves it as it was; with --start, build/lanced with the demo model, for as long as it
takes. For each way to connect (the nng library through pynng, and the client's own socket):

  hello        one small request and its answer
  submit+wait  from submit until the end of a job that has next to nothing to do, less the time of the job's own steps
  up           N megabytes from an array into the daemon's memory, which it does not have, for a job that it refuses;
               a job that it takes waits for the rest of their hash, too
  down         a result with about N megabytes of pixels, made once by decode, from the daemon's memory into an array

Every figure is the best and the median of several tries: on a shared machine the rest is other people's work.
Payloads also have the gigabytes for each second of processor time that both processes took together, which other
people's work changes less: what an idle machine reaches when the two do not overlap at all.

--beside DIR does the same work with another tree of lanced that is built, its daemon with its client, try by try in
turn, and tells how many times as fast this one was: the median over the pairs, which had the same neighbours.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lanced_client import BadRequest, Client, Progress, default_endpoint
from lanced_client.transport import Peer, PynngPeer, SocketPeer

ROOT = Path(__file__).resolve().parents[1]
SIDE = 768
CELLS = SIDE // 16
FRAME_BYTES = SIDE * SIDE * 3
TOO_MANY_FRAMES = 122  # encode takes 121
TRIES = {"hello_ms": 500, "submit_wait_ms": 200, "up_gb_per_s": 40, "down_gb_per_s": 40}
PEERS: dict[str, Callable[[str], Peer]] = {"socket": SocketPeer, "pynng": PynngPeer}

Try = dict[str, float]  # its seconds, the payload's bytes, and the processor's seconds so far


# --- In a process of its own, which does as it is told on standard input ------------------------------------------


class Tries:
    """One client of one daemon. Uses of lanced_client only what its older versions have, too."""

    def __init__(self, client: Client, megabytes: int) -> None:
        self._client = client
        self._pid = client.hello().pid
        self._numbers = itertools.count(time.time_ns())
        height = max(16, megabytes * 1_000_000 // (TOO_MANY_FRAMES * SIDE * 3))
        self._source = np.random.default_rng(0).integers(0, 256, (TOO_MANY_FRAMES, height, SIDE, 3), dtype=np.uint8)
        pictures = max(1, round(megabytes * 1e6 / FRAME_BYTES))
        self._latents = np.zeros((min(pictures, 32), 48, 1, CELLS, CELLS), np.float32)

    def run(self) -> None:
        with self._client.submit("decode", latents=self._latents) as job:
            pixels = job.result().pixels
            assert pixels is not None
            works: dict[str, tuple[Callable[[], object], int]] = {
                "hello_ms": (self._client.hello, 0),
                "submit_wait_ms": (self._job, 0),
                "up_gb_per_s": (self._up, self._source.nbytes),
                "down_gb_per_s": (job.result, pixels.nbytes),
            }
            for line in sys.stdin:
                work, payload_bytes = works[line.strip()]
                start = time.perf_counter()
                of_job_itself = work()
                seconds = time.perf_counter() - start - (of_job_itself if isinstance(of_job_itself, float) else 0.0)
                told = {"seconds": seconds, "bytes": payload_bytes, "processor": self._processor_seconds()}
                print(json.dumps(told), flush=True)

    def _processor_seconds(self) -> float:
        """Processor time that this process and the daemon have taken; 0 for one that is not on this machine."""
        try:
            fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return time.process_time()
        return time.process_time() + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _job(self) -> float:
        """A small job; returns the seconds of its steps."""
        with self._client.submit("decode", latents=np.zeros((1, 48, 1, 1, 1), np.float32)) as job:
            return sum(event.step_seconds or 0.0 for event in job.events() if isinstance(event, Progress))

    def _up(self) -> None:
        """Send a video that the daemon does not have, for a job that it refuses."""
        mark = next(self._numbers).to_bytes(8, "little")
        self._source.reshape(-1)[:8] = np.frombuffer(mark, np.uint8)
        try:
            self._client.submit("encode", source=self._source)
        except BadRequest:
            return
        raise SystemExit("the daemon took a video that it should refuse")


def work(endpoint: str, peer: str, megabytes: int) -> None:
    with Client(endpoint, timeout=600.0, peer_factory=PEERS[peer]) as client:
        client.load()
        Tries(client, megabytes).run()


# --- Who tells it -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def worker(tree: Path, endpoint: str, peer: str, megabytes: int) -> Iterator[Callable[[str], Try]]:
    """A process with the client of a tree; call it with the name of what it is to try once."""
    command = [sys.executable, __file__, "--worker", peer, "--endpoint", endpoint, "--megabytes", str(megabytes)]
    environment = os.environ | {"PYTHONPATH": str(tree / "protocol/python")}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None

        def once(what: str) -> Try:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(f"{what}\n")
            process.stdin.flush()
            told = process.stdout.readline()
            if not told:
                raise SystemExit(f"the client of {tree} ended")
            answer: Try = json.loads(told)
            return answer

        yield once
        process.stdin.close()


@contextlib.contextmanager
def started(tree: Path) -> Iterator[str]:
    """The endpoint of a tree's lanced, of our own."""
    with tempfile.TemporaryDirectory(prefix="lanced-") as folder:
        endpoint = f"ipc://{folder}/lanced.ipc"
        command = [str(tree / "build/lanced"), "--model", str(tree / "demo/lance-demo"), "--endpoint", endpoint]
        with subprocess.Popen([*command, "--log-level", "warning", "--until-eof"], stdin=subprocess.PIPE) as daemon:
            while not Path(endpoint.removeprefix("ipc://")).exists() and daemon.poll() is None:
                time.sleep(0.05)
            yield endpoint


def figures_of(tries: list[Try], is_payload: bool) -> dict[str, float]:
    """Of the tries but the first, which warmed up."""
    seconds = sorted(one["seconds"] for one in tries[1:])
    best, median = seconds[0], statistics.median(seconds)
    if not is_payload:
        return {"best": 1000 * best, "median": 1000 * median}
    payload_bytes = tries[0]["bytes"]
    processor = tries[-1]["processor"] - tries[0]["processor"]
    return {
        "best": payload_bytes / best / 1e9,
        "median": payload_bytes / median / 1e9,
        "per_processor_second": payload_bytes * (len(tries) - 1) / processor / 1e9,
    }


def measure(this: Callable[[str], Try], other: Callable[[str], Try] | None) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for what, count in TRIES.items():
        tries: list[Try] = []
        others: list[Try] = []
        for number in range(count + 1):
            for do, done in ((this, tries), (other, others))[:: 1 if number % 2 else -1]:
                if do is not None:
                    done.append(do(what))
        is_payload = tries[0]["bytes"] > 0
        figures[what] = figures_of(tries, is_payload)
        if others:
            figures[what]["beside"] = figures_of(others, is_payload)
            pairs = [b["seconds"] / a["seconds"] for a, b in zip(tries[1:], others[1:], strict=True)]
            figures[what]["times_as_fast"] = statistics.median(pairs)
    return figures


def line_of(value: dict[str, Any], unit: str) -> str:
    line = f"best {value['best']:8.3f} {unit:4}  median {value['median']:8.3f} {unit:4}"
    if "per_processor_second" in value:
        line += f"  {value['per_processor_second']:6.3f} GB for each second of processor time"
    return line


def show(name: str, figures: dict[str, Any], beside: Path | None) -> None:
    for what, value in figures.items():
        unit = "ms" if what.endswith("_ms") else "GB/s"
        label = what.removesuffix("_ms").removesuffix("_gb_per_s")
        print(f"{name:7} {label:12} {line_of(value, unit)}")
        if beside is not None:
            times = f"{value['times_as_fast']:.2f} times as fast here"
            print(f"{'':20} {line_of(value['beside'], unit)}: {beside}, {times}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Request latency and payload rate of a lanced that runs.")
    parser.add_argument("--endpoint", default=default_endpoint(), help="of the lanced to ask (default: as lancectl's)")
    parser.add_argument("--start", action="store_true", help="ask build/lanced with the demo model, started for this")
    parser.add_argument("--beside", type=Path, metavar="DIR", help="another built tree, tried in turn with this one")
    parser.add_argument("--megabytes", type=int, default=16, help="of a payload (default 16)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--worker", choices=sorted(PEERS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(arguments.endpoint, arguments.worker, arguments.megabytes)
    if arguments.beside and not arguments.start:
        parser.error("--beside needs --start: each tree has a daemon of its own")
    peers = [name for name in PEERS if name == "socket" or importlib.util.find_spec("pynng")]
    with contextlib.ExitStack() as stack:
        endpoint = stack.enter_context(started(ROOT)) if arguments.start else arguments.endpoint
        other_endpoint = stack.enter_context(started(arguments.beside)) if arguments.beside else None
        all_figures = {}
        for name in peers:
            with contextlib.ExitStack() as of_peer:
                this = of_peer.enter_context(worker(ROOT, endpoint, name, arguments.megabytes))
                other = None
                if other_endpoint is not None:
                    other = of_peer.enter_context(worker(arguments.beside, other_endpoint, name, arguments.megabytes))
                all_figures[name] = measure(this, other)
    if arguments.json:
        print(json.dumps(all_figures, indent=1))
        return None
    for name, figures in all_figures.items():
        show(name, figures, arguments.beside)
    return None


if __name__ == "__main__":
    main()
