"""Who does which task: a file per task, which moves by rename, so that of several workers one gets it.

    todo/000017.2            task 17 waits for its second try
    running/000017.2.WORKER  WORKER does it
    failed/000017            it is not tried any more: {"reason", "tries", "worker"}

Other names are none of these: file servers and desktops leave folders and files of their own (@eaDir, Thumbs.db).

A task with a result has none of them. Between two of these steps a worker may die: then the task is found where it
was, tried again, and found done. Listing a folder is one request to a file server, whatever the number of tasks.
"""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .files import moved, names_in, read_json, write_json

MOST_TRIES = 3
MOST_MISSES = 4
_WAITS = re.compile(r"\d{6}\.\d+")
_RUNS = re.compile(r"\d{6}\.\d+\.[^.]+")
_HAS_FAILED = re.compile(r"\d{6}")


@dataclass(frozen=True)
class Claim:
    number: int
    attempt: int  # from 1
    worker: str

    @property
    def name(self) -> str:
        return f"{self.number:06}.{self.attempt}.{self.worker}"


class Claims:
    def __init__(self, folder: Path, worker: str = "") -> None:
        """worker: the name of who claims; letters, digits, dashes and underscores."""
        self._todo, self._running, self._failed = (folder / name for name in ("todo", "running", "failed"))
        self._worker = worker
        self._listed: list[str] = []

    def add(self, numbers: Iterable[int]) -> None:
        """Tasks that wait from now on."""
        for number in numbers:
            (self._todo / f"{number:06}.1").touch()

    def take(self) -> Claim | None:
        """A task that waits; None: there is none. Each worker goes through the list from a place of its own, so that
        few want the same task; one that finds several taken lists anew, since the others have been busy."""
        misses = 0
        while True:
            if misses >= MOST_MISSES or not self._listed:
                self._listed, misses = self._list_anew(), 0
            if not self._listed:
                return None
            if claim := self._take(self._listed.pop()):
                return claim
            misses += 1

    def _list_anew(self) -> list[str]:
        listed = names_in(self._todo, _WAITS)
        start = random.randrange(len(listed)) if listed else 0
        return (listed[start:] + listed[:start])[::-1]

    def take_this(self, number: int) -> Claim | None:
        """That task, if it waits or has failed."""
        with contextlib.suppress(FileNotFoundError):
            (self._failed / f"{number:06}").rename(self._todo / f"{number:06}.1")
        waiting = [name for name in names_in(self._todo, _WAITS) if name.startswith(f"{number:06}.")]
        return self._take(waiting[0]) if waiting else None

    def _take(self, name: str) -> Claim | None:
        number, _, attempt = name.partition(".")
        claim = Claim(int(number), int(attempt), self._worker)
        return claim if moved(self._todo / name, self._running / claim.name) else None

    def running(self) -> list[Claim]:
        parts = [name.split(".") for name in names_in(self._running, _RUNS)]
        return [Claim(int(number), int(attempt), worker) for number, attempt, worker in parts]

    def waiting(self) -> dict[int, int]:
        """The next try of each task that waits."""
        return {int(name[:6]): int(name[7:]) for name in names_in(self._todo, _WAITS)}

    def failed(self) -> dict[int, dict[str, Any]]:
        return {int(name): read_json(self._failed / name) for name in names_in(self._failed, _HAS_FAILED)}

    def failed_numbers(self) -> list[int]:
        return [int(name) for name in names_in(self._failed, _HAS_FAILED)]

    def end(self, claim: Claim) -> None:
        """The task has its result."""
        (self._running / claim.name).unlink(missing_ok=True)
        (self._failed / f"{claim.number:06}").unlink(missing_ok=True)

    def take_over(self, claim: Claim) -> Claim | None:
        """The claim of a worker that is gone, as this one's; None: somebody else was faster, or it was done."""
        mine = Claim(claim.number, claim.attempt, self._worker)
        return mine if moved(self._running / claim.name, self._running / mine.name) else None

    def give_back(self, claim: Claim) -> None:
        """The task was not done, for no fault of its own."""
        with contextlib.suppress(FileNotFoundError):
            (self._running / claim.name).rename(self._todo / f"{claim.number:06}.{claim.attempt}")

    def try_again(self, claim: Claim, reason: str, may_work: bool = True) -> bool:
        """The task went wrong, or its worker is gone: it waits for its next try, or has failed, as one has that may
        not work another time. Whether it waits."""
        if may_work and claim.attempt < MOST_TRIES:
            with contextlib.suppress(FileNotFoundError):
                (self._running / claim.name).rename(self._todo / f"{claim.number:06}.{claim.attempt + 1}")
            return True
        self._fail(claim, reason)
        return False

    def _fail(self, claim: Claim, reason: str) -> None:
        """The task is not tried any more."""
        told = {"reason": reason, "tries": claim.attempt, "worker": claim.worker}
        write_json(self._failed / f"{claim.number:06}", told)
        (self._running / claim.name).unlink(missing_ok=True)

    def retry(self, number: int) -> None:
        """A task that has failed waits again, for its first try. One that has not, too, as when its result was changed.
        By one rename, so that what the next worker says of it is not taken away."""
        if not moved(self._failed / f"{number:06}", self._todo / f"{number:06}.1"):
            (self._todo / f"{number:06}.1").touch()
