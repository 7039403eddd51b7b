"""A lanced whose allocations fail when a test says so, or what it asks the system and nng for, with every task and
request of the protocol.

Whatever fails: there is success with the bytes of a good run, or an error that says so; never a death, a hang, a job
that is done with other bytes, or memory that nothing points to when it ends (LeakSanitizer, which is linked into
build/tests/leak-telling-lanced). tests/e2e/test_failing_memory.py and test_failing_calls.py try some tens; as a
program (`make faults`) this fails, of a daemon with a journal, every call site of an allocation once, and allocations
here and there until they are 2,000; or each open, read, write, sync, rename and so on, one by one along every action.
Several daemons are at it at once, each with a journal of its own: most of the time is spent waiting for what is written
behind an answer.

    PYTHONPATH=protocol/python:tests/support .venv/bin/python -m failing [--what calls]
"""

from __future__ import annotations

import argparse
import contextlib
import mmap
import random
import re
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from lanced_client import Client, ConnectionFailed, LanceError
from lanced_process import BUILD, DEMO_AWQ, LANCED, SLOWER, Lanced
from small_jobs import digest, small_jobs

POINTS = 2000
AT_ONCE = 6  # daemons
MOST_SITES = 16384
CONTROL_BYTES = 8 * (6 + 8 + MOST_SITES)  # struct control of tests/faults/failing.c
WATCH, COUNTED, FAIL_AT, FAIL_SITE, FAILED, SITE_COUNT = range(0, 48, 8)
FRAMES, SITES = 48, 48 + 8 * 8
WATCH_NOTHING, WATCH_COUNTS, WATCH_SITES = range(3)

LEAK_TELLING_LANCED = BUILD / "tests/leak-telling-lanced"
END_SECONDS = 30 * SLOWER

Action = Callable[[Client], str]  # returns a digest of all that it got
Task = TypeVar("Task")


@dataclass(frozen=True)
class Kind:
    """What fails, and which errors may come of it."""

    library: str  # of tests/faults
    has_journal: bool
    codes: frozenset[str]
    left_out: frozenset[str] = frozenset()  # actions


ALLOCATIONS = Kind("libfailing_memory", has_journal=False, codes=frozenset({"no_memory"}))
# A first preview fits its colours without a call to the system, in twenty times the time of another one.
CALLS = Kind("libfailing_calls", has_journal=True, codes=frozenset({"no_memory", "io", "bad_file"}),
             left_out=frozenset({"first preview"}))  # fmt: skip


def actions() -> dict[str, Action]:
    """Small jobs of every task, and the other requests; those that take longest come last."""
    jobs = small_jobs()

    def job(name: str) -> Action:
        task, request = jobs[name]
        return lambda client: digest(client.generate(task, **request))

    def inquire(client: Client) -> str:
        hello, models, stats = client.hello(), client.models(), client.stats()
        assert hello.version and models and stats["jobs"]
        return str([hello.limits, [model.name for model in models], sorted(stats), sorted(stats["memory"])])

    def load(client: Client) -> str:
        client.unload()
        return f"{client.load()}".split("load_seconds")[0]

    def load_for_a_job(client: Client) -> str:
        client.unload()
        return job("t2i from latents")(client)

    def first_preview(client: Client) -> str:
        client.unload()
        return job("t2i")(client)

    loads = {"load": load, "t2i after unload": load_for_a_job, "first preview": first_preview}
    return {"inquiries": inquire} | {name: job(name) for name in jobs} | loads


class FailingLanced(Lanced):
    """A daemon with a library of tests/faults preloaded, and the file that is shared with it."""

    def __init__(self, kind: Kind, tells_leaks: bool) -> None:
        # Without kept prefixes a job does the same each time.
        program = LEAK_TELLING_LANCED if tells_leaks else LANCED
        super().__init__("--prefix-cache", "0", "--threads", "2", models=(DEMO_AWQ,), program=program)
        self.state = self.log.parent / "state"
        self.command += ["--state", str(self.state), "--result-cache", "0"] if kind.has_journal else []
        self.command = ["setarch", "-R", *self.command]  # a call site has the same address in every daemon
        self._control_path = self.log.parent / "control"
        self._control_path.write_bytes(bytes(CONTROL_BYTES))
        with self._control_path.open("r+b") as file:
            self._control = mmap.mmap(file.fileno(), CONTROL_BYTES)
        self.environment |= {"LD_PRELOAD": str(BUILD / f"tests/{kind.library}.so"), "FAILING": str(self._control_path)}

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
        """The return addresses of the last call that failed, for addr2line."""
        return " ".join(f"{self.get(FRAMES + 8 * i):x}" for i in range(8))

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class Trial:
    """Runs actions on one daemon while calls of a kind fail, and keeps what went wrong."""

    def __init__(self, kind: Kind = ALLOCATIONS, names: list[str] | None = None, tells_leaks: bool = True) -> None:
        self.kind = kind
        self.daemon = FailingLanced(kind, tells_leaks)
        self.actions = {
            name: action
            for name, action in actions().items()
            if name not in kind.left_out and (names is None or name in names)
        }
        self.good: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self.wrong: list[str] = []
        self.told: Counter[str] = Counter()  # words of errors
        self.restarts = 0  # of daemons that were killed, so that their leaks are not known

    def __enter__(self) -> Trial:
        self.daemon.start()
        with self.daemon.client() as client:
            client.load()
            for name, action in self.actions.items():
                action(client)  # the first time something may be made that stays
                self._settle(client)
                self.daemon.arm(WATCH_COUNTS)
                self.good[name] = action(client)
                self._settle(client)
                self.daemon.disarm()
                self.counts[name] = self.daemon.get(COUNTED)
        return self

    def _settle(self, client: Client) -> None:
        """Wait until what is written behind an answer is written. The call that is to fail may be one of this."""
        waiting = self.kind.has_journal
        while waiting and self.daemon.is_alive():
            with contextlib.suppress(LanceError):
                waiting = client.stats()["journal"]["waiting"] > 0
            time.sleep(0.005 if waiting else 0.0)  # or these requests would be most of what is counted

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.daemon.__exit__(kind, error, trace)

    def find_sites(self) -> dict[int, str]:
        """Every call site, with the first action that comes by: none of the slow ones where another one does."""
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
        """One action with one call that fails. Returns whether one did."""
        daemon = self.daemon
        with daemon.client() as client:
            self._settle(client)
            daemon.arm(WATCH_SITES if fail_site else WATCH_COUNTS, fail_at, fail_site)
            try:
                got = self.actions[name](client)
                if got != self.good[name]:
                    self._note(name, "another result than a good run's")
            except ConnectionFailed as error:
                self._note(name, f"no answer: {error}" if daemon.is_alive() else "lanced died")
            except LanceError as error:
                self.told[f"{error.code}: {error}"] += 1
                if error.code not in self.kind.codes:
                    self._note(name, f"says {error.code}: {error}")
            except Exception as error:  # of the client: it was told too little
                self._note(name, f"{type(error).__name__}: {error}")
            finally:
                self._settle(client)
                daemon.disarm()
        self._see_that_it_serves(name)
        return daemon.get(FAILED) > 0

    def _see_that_it_serves(self, name: str) -> None:
        # A picture, of those that are there the one without a preview: its colours would be fitted after each load.
        check = next((picture for picture in ("t2i from latents", "t2i") if picture in self.actions), name)
        try:
            if self.daemon.is_alive():
                with self.daemon.client() as client:
                    if self.actions[check](client) == self.good[check]:
                        return
                    self._note(name, f"the next {check} has another result")
        except (LanceError, OSError) as error:
            self._note(name, f"the next {check} failed: {error}")
        self.restarts += self.daemon.is_alive()
        self.daemon.stop()
        self._start()

    def _start(self) -> None:
        """With its model: it answers before it has that, on a busy machine long before."""
        self.daemon.start()
        with self.daemon.client() as client:
            client.load()

    def _end(self) -> None:
        """In order, with status 0: LeakSanitizer has another one for it."""
        said_before = self.daemon.log.stat().st_size
        self.daemon.process.terminate()
        status = self.daemon.process.wait(END_SECONDS)
        if status:
            self._note("the end", f"status {status}: {self.daemon.log.read_text()[said_before:]}")

    def leaks(self) -> int:
        """Places that LeakSanitizer named, in all ends together."""
        return len(re.findall(r"^(?:Direct|Indirect) leak of ", self.daemon.log.read_text(), re.MULTILINE))

    def see_that_nothing_leaked(self) -> None:
        """Of all that was tried since the daemon was started."""
        self._end()
        self.daemon.start()

    def see_that_it_ends(self) -> None:
        """In order, with a journal that is whole and holds nothing that nobody waits for."""
        with self.daemon.client() as client:
            self._settle(client)
        self._end()
        checked = subprocess.run([str(LANCED), "--state", str(self.daemon.state), "--check"], capture_output=True,
                                 text=True, timeout=60)  # fmt: skip
        if checked.returncode or "of which 0 were accepted" not in checked.stdout:
            self._note("the end", f"--check: {checked.stdout}{checked.stderr}")
        if left := list((self.daemon.state / "contents").iterdir()):
            self._note("the end", f"{len(left)} contents are left")
        self.daemon.start()

    def _end_and_crash(self) -> None:
        """The next start has something to recover, and what leaked until now is known."""
        if self.daemon.is_alive():
            self._end()
        self._start()
        self._see_that_it_serves("start")
        self.daemon.stop()

    def find_start_sites(self) -> list[int]:
        self._end_and_crash()
        self.daemon.arm(WATCH_SITES)
        self._start()
        self.daemon.disarm()
        return self.daemon.sites()

    def try_start(self, site: int) -> bool:
        """A start during which this site fails once: it serves, or ends with status 1 and words. Returns whether one
        failed."""
        self._end_and_crash()
        self.daemon.arm(WATCH_SITES, fail_site=site)
        said_before = self.daemon.log.stat().st_size
        try:
            self._start()  # it ends when its model cannot be loaded
        except (RuntimeError, LanceError) as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.daemon.process.wait(2)
            status, words = self.daemon.process.poll(), self.daemon.log.read_text()[said_before:]
            is_told = isinstance(error, LanceError) and error.code in self.kind.codes
            if status not in (None, 1) or not (is_told or re.search("lanced: | error ", words)):
                self._note("start", f"status {status}: {words[-200:]}")
        self.daemon.disarm()
        self._see_that_it_serves("start")
        return self.daemon.get(FAILED) > 0

    def counted_calls(self) -> list[tuple[str, int]]:
        """Each call of each action."""
        return [(name, at) for name, count in self.counts.items() for at in range(1, count + 1)]

    def some_calls(self, points: int, seed: int = 1) -> list[tuple[str, int]]:
        """Calls here and there in every action."""
        chance = random.Random(seed)
        names = sorted(self.actions)
        return [(name, chance.randint(1, self.counts[name])) for name in (names[i % len(names)] for i in range(points))]


def names_of(addresses: str) -> str:
    """The functions of lanced at some return addresses, as far as addr2line knows them without randomisation."""
    base = 0x555555554000
    offsets = [int(address, 16) - base - 1 for address in addresses.split()]
    own = [hex(offset) for offset in offsets if 0 < offset < 1 << 32]
    lines = subprocess.run(["addr2line", "-sfe", str(LEAK_TELLING_LANCED), *own], capture_output=True, text=True).stdout
    return " < ".join(lines.split("\n")[0:-1:2])


def share(trials: list[Trial], tasks: Iterable[Task], attempt: Callable[[Trial, Task], bool]) -> tuple[int, int]:
    """Each trial takes the next task when it is done with its last. Returns how many there were, and succeeded."""
    lock, waiting, tried = threading.Lock(), iter(tasks), 0

    def work(trial: Trial) -> int:
        nonlocal tried
        done = 0
        while True:
            with lock:
                try:
                    task = next(waiting)
                except StopIteration:
                    return done
                tried += 1
            done += attempt(trial, task)

    with ThreadPoolExecutor(len(trials)) as pool:
        done = sum(pool.map(work, trials))
    return tried, done


def fail_all(
    what: str, trials: list[Trial], tasks: Iterable[Task], attempt: Callable[[Trial, Task], bool]
) -> tuple[int, int]:
    started = time.monotonic()
    tried, failed = share(trials, tasks, attempt)
    print(f"{tried} {what}: {failed} were met and failed, {time.monotonic() - started:.0f} s", flush=True)
    return tried, failed


def report(trials: list[Trial]) -> None:
    told = Counter[str]()
    for trial in trials:
        for words, count in trial.told.items():
            told[re.sub(r"\b[0-9a-f]{32}\b|lanced-\w+|\d+", "N", words)] += count
    for words, count in sorted(told.items()):
        print(f"  {count} times {words}")
    for what in (what for trial in trials for what in trial.wrong):
        where = what.rsplit("(failed at ", 1)[1].rstrip(")")
        print(f"failed: {what.rsplit(' (failed at', 1)[0]}\n    {names_of(where)}")


def fail_one_by_one(kind: Kind, trials: list[Trial], points: int, seed: int, only_sites: bool) -> int:
    """All that there is of a kind; returns how many failed."""
    print(f"{kind.library}:", ", ".join(f"{name} {count}" for name, count in trials[0].counts.items()), flush=True)

    def try_site(trial: Trial, task: tuple[int, str]) -> bool:
        return trial.try_once(task[1], fail_site=task[0])

    def try_call(trial: Trial, task: tuple[str, int]) -> bool:
        return trial.try_once(task[0], fail_at=task[1])

    tried, failed = fail_all("call sites of jobs and requests", trials, trials[0].find_sites().items(), try_site)
    if not only_sites:
        calls = trials[0].some_calls(max(0, points - tried), seed) if points else trials[0].counted_calls()
        failed += fail_all("calls of jobs and requests", trials, calls, try_call)[1]
    if not points:
        failed += fail_all("call sites of a start", trials, trials[0].find_start_sites(), Trial.try_start)[1]
    for trial in trials:
        trial.see_that_it_ends()
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=("allocations", "calls"), default="allocations")
    parser.add_argument("--points", type=int, default=POINTS, help="allocations that are tried, sites included")
    parser.add_argument("--only", action="append", help="an action")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only-sites", action="store_true", help="each call site once and no more")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="daemons")
    options = parser.parse_args()
    if Path("/dev/shm").is_dir():
        tempfile.tempdir = "/dev/shm"  # where an fsync costs nothing: what fails is said by the library
    are_calls = options.what == "calls"
    kind = CALLS if are_calls else replace(ALLOCATIONS, has_journal=True)
    with contextlib.ExitStack() as stack:
        trials = [stack.enter_context(Trial(kind, options.only)) for _ in range(options.at_once)]
        failed = fail_one_by_one(kind, trials, 0 if are_calls else options.points, options.seed, options.only_sites)
        report(trials)
        wrong = [what for trial in trials for what in trial.wrong]
        deaths, bytes_wrong = (sum(words in what for what in wrong) for words in ("lanced died", "another result"))
        leaks, killed = sum(trial.leaks() for trial in trials), sum(trial.restarts for trial in trials)
    print(f"{failed} failed one by one: {deaths} deaths, {leaks} leaks, {bytes_wrong} wrong bytes;"
          f" {len(wrong)} wrong in all; {killed} lanced were killed, whose leaks are not known")  # fmt: skip
    return 1 if wrong or leaks else 0


if __name__ == "__main__":
    sys.exit(main())
