"""What a request and its payload cost between a Python client and lanced: latencies in ms, payloads in GB/s.

    PYTHONPATH=protocol/python python3 tools/wire_bench.py [--endpoint URL | --start] [--megabytes N] [--json]

Asks a lanced that runs and leaves it as it was; with --start, build/lanced with the demo model, for as long as it
takes. For each way to connect (the nng library through pynng, and the client's own socket):

  hello        one small request and its answer
  submit+wait  from submit until the end of a job that has next to nothing to do, less the time of the job's own steps
  up           N megabytes that the daemon does not have, piece by piece, with their hash on either side
  down         a result with about N megabytes of pixels, made once by decode and fetched again and again, in pieces

Every figure is the best and the median of several tries: on a shared machine the rest is other people's work.
Payloads also have the gigabytes for each second of processor time that both processes took together, which other
people's work changes less: what an idle machine reaches when the two do not overlap at all.
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
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lanced_client import BadRequest, Client, ConnectionFailed, Progress, default_endpoint
from lanced_client.transport import Peer, PynngPeer, SocketPeer

ROOT = Path(__file__).resolve().parents[1]
SIDE = 768
CELLS = SIDE // 16
FRAME_BYTES = SIDE * SIDE * 3
TOO_MANY_FRAMES = 122  # encode takes 121
REQUESTS = 500
JOBS = 10
PAYLOADS = 40


def seconds_of(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def tries(action: Callable[[], object], count: int) -> list[float]:
    action()
    return sorted(seconds_of(action) for _ in range(count))


def milliseconds(seconds: list[float]) -> dict[str, float]:
    return {"best": 1000 * seconds[0], "median": 1000 * statistics.median(seconds)}


def processor_seconds(pid: int) -> float:
    """Processor time that this process and the daemon have taken; 0 for one that is not on this machine."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return time.process_time()
    return time.process_time() + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def payload(pid: int, payload_bytes: int, action: Callable[[], object]) -> dict[str, float]:
    action()
    before = processor_seconds(pid)
    seconds = sorted(seconds_of(action) for _ in range(PAYLOADS))
    processor = processor_seconds(pid) - before
    return {
        "best": payload_bytes / seconds[0] / 1e9,
        "median": payload_bytes / statistics.median(seconds) / 1e9,
        "per_processor_second": payload_bytes * PAYLOADS / processor / 1e9,
    }


def job_overhead(client: Client) -> float:
    """Seconds of a small job that no step took."""
    latents = np.zeros((1, 48, 1, 1, 1), np.float32)
    start = time.perf_counter()
    with client.submit("decode", latents=latents) as job:
        steps = [event.step_seconds or 0.0 for event in job.events() if isinstance(event, Progress)]
        return time.perf_counter() - start - sum(steps)


def refused(client: Client, source: np.ndarray[Any, Any], number: int) -> None:
    """Send a video that the daemon does not have, for a job that it refuses."""
    source.reshape(-1)[:8] = np.frombuffer(number.to_bytes(8, "little"), np.uint8)
    try:
        client.submit("encode", source=source)
    except BadRequest:
        return
    raise SystemExit("the daemon took a video that it should refuse")


def measure(endpoint: str, peer: Callable[[str], Peer], megabytes: int) -> dict[str, Any]:
    height = max(16, megabytes * 1_000_000 // (TOO_MANY_FRAMES * SIDE * 3))
    source = np.random.default_rng(0).integers(0, 256, (TOO_MANY_FRAMES, height, SIDE, 3), dtype=np.uint8)
    pictures = max(1, round(megabytes * 1e6 / FRAME_BYTES))
    latents = np.zeros((min(pictures, 32), 48, 1, CELLS, CELLS), np.float32)
    numbers = itertools.count(time.time_ns())
    with Client(endpoint, timeout=600.0, peer_factory=peer) as client:
        client.load()
        pid = client.hello().pid
        figures: dict[str, Any] = {
            "hello_ms": milliseconds(tries(client.hello, REQUESTS)),
            "submit_wait_ms": milliseconds(sorted(job_overhead(client) for _ in range(JOBS))),
            "up_gb_per_s": payload(pid, source.nbytes, lambda: refused(client, source, next(numbers))),
        }
        with client.submit("decode", latents=latents) as job:
            pixels = job.result().pixels
            assert pixels is not None
            figures["down_gb_per_s"] = payload(pid, pixels.nbytes, job.result)
    return figures


@contextlib.contextmanager
def started() -> Iterator[str]:
    """The endpoint of a lanced of our own."""
    with tempfile.TemporaryDirectory(prefix="lanced-") as folder:
        endpoint = f"ipc://{folder}/lanced.ipc"
        command = [str(ROOT / "build/lanced"), "--model", str(ROOT / "demo/lance-demo"), "--endpoint", endpoint]
        with subprocess.Popen([*command, "--log-level", "warning", "--until-eof"], stdin=subprocess.PIPE) as daemon:
            with Client(endpoint) as client:
                while daemon.poll() is None:
                    with contextlib.suppress(ConnectionFailed):
                        client.load()
                        break
                    time.sleep(0.05)
            yield endpoint


def main() -> None:
    parser = argparse.ArgumentParser(description="Request latency and payload rate of a lanced that runs.")
    parser.add_argument("--endpoint", default=default_endpoint(), help="of the lanced to ask (default: as lancectl's)")
    parser.add_argument("--start", action="store_true", help="ask build/lanced with the demo model, started for this")
    parser.add_argument("--megabytes", type=int, default=16, help="of a payload (default 16)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    peers: dict[str, Callable[[str], Peer]] = {"socket": SocketPeer}
    if importlib.util.find_spec("pynng"):
        peers["pynng"] = PynngPeer
    with started() if arguments.start else contextlib.nullcontext(arguments.endpoint) as endpoint:
        figures = {name: measure(endpoint, peer, arguments.megabytes) for name, peer in peers.items()}
    if arguments.json:
        print(json.dumps(figures, indent=1))
        return
    for name, values in figures.items():
        for what, value in values.items():
            unit = "ms" if what.endswith("_ms") else "GB/s"
            label = what.removesuffix("_ms").removesuffix("_gb_per_s")
            line = f"{name:7} {label:12} best {value['best']:8.3f} {unit:4}  median {value['median']:8.3f} {unit:4}"
            if "per_processor_second" in value:
                line += f"  {value['per_processor_second']:8.3f} GB for each second of processor time"
            print(line)


if __name__ == "__main__":
    main()
