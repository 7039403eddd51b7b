"""A lanced whose allocations fail when a test says so, with every task and request of the protocol.

Whatever fails: there is success with the bytes of a good run, or an error that says so; never a death, a hang, or a
job that is done with other bytes. tests/e2e/test_failing_memory.py tries some tens of allocations; as a program
(`make faults`) this fails every call site once, and allocations here and there until they are 2,000:

    PYTHONPATH=protocol/python:tests/support .venv/bin/python -m failing_memory
"""

from __future__ import annotations

import argparse
import hashlib
import mmap
import random
import re
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np

from lanced_client import Client, ConnectionFailed, LanceError, Result
from lanced_process import BUILD, DEMO_AWQ, REQUEST, Lanced

LIBRARY = BUILD / "tests/libfailing_memory.so"
POINTS = 2000
CONTROL_BYTES = 8 * (6 + 8 + 16384)  # struct control of tests/faults/failing_memory.c
WATCH, COUNTED, FAIL_AT, FAIL_SITE, FAILED, SITE_COUNT = range(0, 48, 8)
FRAMES, SITES = 48, 48 + 8 * 8
WATCH_NOTHING, WATCH_COUNTS, WATCH_SITES = range(3)

Action = Callable[[Client], str]  # returns a digest of all that it got


def digest(result: Result) -> str:
    whole = hashlib.sha256(f"{result.text} {result.seed}".encode())
    for array in (result.pixels, result.latents, result.token_ids):
        whole.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()


def actions() -> dict[str, Action]:
    """Small jobs of every task, and the other requests."""
    picture = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), np.uint8)
    clip = np.random.default_rng(2).integers(0, 256, (5, 56, 56, 3), np.uint8)
    latents = np.random.default_rng(3).standard_normal((1, 48, 1, 2, 2), np.float32)
    quick: dict[str, Any] = {"prompt": REQUEST["prompt"], "num_inference_steps": 2, "seed": 3}
    size: dict[str, Any] = {"width": 32, "height": 32}
    edit: dict[str, Any] = {"resolution": "32x32/56x56"}

    def job(task: str, **params: Any) -> Action:
        return lambda client: digest(client.generate(task, **params))

    def inquire(client: Client) -> str:
        hello, models, stats = client.hello(), client.models(), client.stats()
        assert hello.version and models and stats["jobs"]
        return str([hello.limits, [model.name for model in models], sorted(stats), sorted(stats["memory"])])

    def load(client: Client) -> str:
        client.unload()
        return f"{client.load()}".split("load_seconds")[0]

    def load_for_a_job(client: Client) -> str:
        client.unload()
        return digest(client.generate("t2i", **quick, **size))

    return {
        "inquiries": inquire,
        "load": load,
        "t2i after unload": load_for_a_job,
        "t2i": job("t2i", **quick, **size, preview=True),
        "t2i batch": job("t2i", **quick, **size, batch_size=2),
        "t2i from latents": job("t2i", **quick, latents=latents, denoise=0.5),
        "t2v": job("t2v", **quick, **size, num_frames=5, preview=True),
        "i2v": job("i2v", **quick, source=picture, num_frames=5, **edit),
        "image_edit": job("image_edit", **quick, source=picture, **edit),
        "video_edit": job("video_edit", **quick, source=clip, fps=4.0, **edit),
        "x2t_image": job("x2t_image", prompt="What is it?", source=picture, resolution="56x56", max_new_tokens=4),
        "x2t_video": job("x2t_video", prompt="What is it?", source=clip, fps=4.0, resolution="56x56", max_new_tokens=4,
                         temperature=0.7, seed=5),
        "encode": job("encode", source=picture),
        "decode": job("decode", latents=latents),
    }


class FailingLanced(Lanced):
    """A daemon with the library preloaded, and the file that is shared with it."""

    def __init__(self) -> None:
        # Without kept prefixes a job does the same each time.
        super().__init__("--prefix-cache", "0", "--threads", "2", models=(DEMO_AWQ,))
        self.command = ["setarch", "-R", *self.command]  # a call site has the same address in every daemon
        self._control_path = self.log.parent / "control"
        self._control_path.write_bytes(bytes(CONTROL_BYTES))
        with self._control_path.open("r+b") as file:
            self._control = mmap.mmap(file.fileno(), CONTROL_BYTES)
        self.environment |= {"LD_PRELOAD": str(LIBRARY), "FAILING_MEMORY": str(self._control_path)}

    def get(self, at: int) -> int:
        return int(struct.unpack_from("=Q", self._control, at)[0])

    def set(self, at: int, value: int) -> None:
        struct.pack_into("=Q", self._control, at, value)

    def arm(self, watch: int, fail_at: int = 0, fail_site: int = 0) -> None:
        for at, value in ((COUNTED, 0), (FAILED, 0), (FAIL_AT, fail_at), (FAIL_SITE, fail_site), (WATCH, watch)):
            self.set(at, value)

    def disarm(self) -> None:
        self.set(WATCH, WATCH_NOTHING)

    def sites(self) -> list[int]:
        return [self.get(SITES + 8 * i) for i in range(self.get(SITE_COUNT))]

    def failed_at(self) -> str:
        """The return addresses of the last allocation that failed, for addr2line."""
        return " ".join(f"{self.get(FRAMES + 8 * i):x}" for i in range(8))

    def is_alive(self) -> bool:
        return self.process.poll() is None


class Trial:
    """Runs actions on one daemon while allocations fail, and keeps what went wrong."""

    def __init__(self, names: list[str] | None = None) -> None:
        self.daemon = FailingLanced()
        self.actions = {name: action for name, action in actions().items() if names is None or name in names}
        self.good: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self.wrong: list[str] = []
        self.told: Counter[str] = Counter()  # words of errors

    def __enter__(self) -> Trial:
        self.daemon.start()
        with self.daemon.client() as client:
            client.load()
            for name, action in self.actions.items():
                action(client)  # the first time something may be made that stays
                self.daemon.arm(WATCH_COUNTS)
                self.good[name] = action(client)
                self.daemon.disarm()
                self.counts[name] = self.daemon.get(COUNTED)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.daemon.__exit__(kind, error, trace)

    def find_sites(self) -> dict[int, str]:
        """Every call site, with the first action that comes by."""
        found: dict[int, str] = {}
        with self.daemon.client() as client:
            for name, action in self.actions.items():
                self.daemon.arm(WATCH_SITES)
                action(client)
                self.daemon.disarm()
                for site in self.daemon.sites():
                    found.setdefault(site, name)
        return found

    def _note(self, name: str, what: str) -> None:
        self.wrong.append(f"{name}: {what} (failed at {self.daemon.failed_at()})")

    def try_once(self, name: str, fail_at: int = 0, fail_site: int = 0) -> bool:
        """One action with one allocation that fails. Returns whether one did."""
        daemon = self.daemon
        with daemon.client() as client:
            daemon.arm(WATCH_SITES if fail_site else WATCH_COUNTS, fail_at, fail_site)
            try:
                got = self.actions[name](client)
                if got != self.good[name]:
                    self._note(name, "another result than a good run's")
            except ConnectionFailed as error:
                self._note(name, f"no answer: {error}" if daemon.is_alive() else "lanced died")
            except LanceError as error:
                self.told[f"{error.code}: {error}"] += 1
                if error.code != "no_memory":
                    self._note(name, f"says {error.code}: {error}")
            except Exception as error:  # of the client: it was told too little
                self._note(name, f"{type(error).__name__}: {error}")
            finally:
                daemon.disarm()
        self._see_that_it_serves(name)
        return daemon.get(FAILED) > 0

    def _see_that_it_serves(self, name: str) -> None:
        check = "t2i" if "t2i" in self.actions else name
        try:
            if self.daemon.is_alive():
                with self.daemon.client() as client:
                    if self.actions[check](client) == self.good[check]:
                        return
                    self._note(name, f"the next {check} has another result")
        except (LanceError, OSError) as error:
            self._note(name, f"the next {check} failed: {error}")
        self.daemon.process.kill()
        self.daemon.process.wait()
        self.daemon.start()

    def sample(self, points: int, seed: int = 1) -> int:
        """Fail allocations here and there in every action; returns how many failed."""
        chance = random.Random(seed)
        names = sorted(self.actions)
        failed = 0
        for point in range(points):
            name = names[point % len(names)]
            failed += self.try_once(name, fail_at=chance.randint(1, self.counts[name]))
        return failed


def names_of(addresses: str) -> str:
    """The functions of lanced at some return addresses, as far as addr2line knows them without randomisation."""
    base = 0x555555554000
    offsets = [int(address, 16) - base - 1 for address in addresses.split()]
    own = [hex(offset) for offset in offsets if 0 < offset < 1 << 32]
    lines = subprocess.run(["addr2line", "-sfe", str(BUILD / "lanced"), *own], capture_output=True, text=True).stdout
    return " < ".join(lines.split("\n")[0:-1:2])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=POINTS)
    parser.add_argument("--only", action="append", help="an action")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-sites", action="store_true")
    options = parser.parse_args()
    started = time.monotonic()
    with Trial(options.only) as trial:
        print("allocations:", ", ".join(f"{name} {count}" for name, count in trial.counts.items()))
        sites = {} if options.no_sites else trial.find_sites()
        failed = sum(trial.try_once(name, fail_site=site) for site, name in sites.items())
        print(f"{len(sites)} call sites, {failed} failed, {time.monotonic() - started:.0f} s")
        rest = max(0, options.points - failed)
        sampled = trial.sample(rest, options.seed)
        print(f"{rest} sampled counts, {sampled} failed, {time.monotonic() - started:.0f} s")
        told = Counter[str]()
        for words, count in trial.told.items():
            told[re.sub(r"\b[0-9a-f]{32}\b|\d+", "N", words)] += count
        for words, count in sorted(told.items()):
            print(f"  {count} times {words}")
        for what in trial.wrong:
            where = what.rsplit("(failed at ", 1)[1].rstrip(")")
            print(f"failed: {what.rsplit(' (failed at', 1)[0]}\n    {names_of(where)}")
        tried = len(sites) + rest
    print(f"{tried - len(trial.wrong)} passed, {len(trial.wrong)} failed")
    return 1 if trial.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
