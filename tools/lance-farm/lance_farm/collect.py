"""collect: what a job made, for people: named files, contact sheets, a clip, a CSV of all receipts, and a page."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .claims import Claims
from .errors import FarmError
from .files import whole_folder, write_whole
from .job import Identity, Job
from .page import Entry, Thumbnail, page_of
from .programs import Facts, find_program
from .results import Results

PER_SHEET = 100
SHEET_COLUMNS = 10
CELL = 128
_SLUG_CHARACTERS = 80
_STEM_BYTES = 200  # a name is 255 on most disks, with its number and ending
_SHOWN_ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".mp4", ".webm"}
_PICTURES = {".png", ".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True)
class Collection:
    output: Path
    name: str = ""  # a pattern such as "{prompt}-{seed}"; empty: all labels
    clip: bool = False
    fps: float = 12.0


@dataclass
class Told:
    tasks: int = 0
    done: int = 0
    files: int = 0
    problems: list[str] = field(default_factory=list)


def collect(job: Job, wish: Collection) -> Told:
    """FarmError when the folder of outputs is not empty, or the pattern names no column."""
    if wish.output.exists() and any(wish.output.iterdir()):
        raise FarmError(f"{wish.output} is there already and not empty")
    names = _Names(job, wish.name)
    told = Told(tasks=len(job.tasks))
    with whole_folder(wish.output) as output:
        (output / "files").mkdir()
        entries = _entries(job, output, names, told)
        shown = [(entry, name) for entry in entries for name in entry.files if Path(name).suffix in _SHOWN_ENDINGS]
        _make_sheets(output, shown, told)
        if wish.clip:
            _make_clip(output, wish.fps, [name for _, name in shown if Path(name).suffix in _PICTURES], told)
        write_whole(output / "receipts.csv", _table_of(entries, job.identity))
        write_whole(output / "index.html", page_of(job.folder.name, entries))
    return told


class _Names:
    """File names from labels, each once."""

    def __init__(self, job: Job, pattern: str) -> None:
        self._pattern = pattern
        self._taken: set[str] = set()
        known = {"task", *(label for task in job.tasks.values() for label in task.labels)}
        for name in re.findall(r"{([^}]*)}", pattern):
            if name not in known:
                raise FarmError(f'--name: there is no column "{name}"; there are {", ".join(sorted(known))}')

    def name(self, number: int, labels: dict[str, str], index: int, count: int, ending: str) -> str:
        if self._pattern:
            values = labels | {"task": f"{number:06}"}
            stem = re.sub(r"{([^}]*)}", lambda found: slug(values.get(found[1], "")), self._pattern)
            stem = stem.replace("/", "-")
        else:
            stem = "-".join([f"{number:06}", *filter(None, map(slug, labels.values()))])[:_SLUG_CHARACTERS]
        stem = shortened(stem, _STEM_BYTES).strip(".-") or f"{number:06}"
        stem += f"-{index + 1}" if count > 1 else ""
        name, again = f"{stem}{ending}", 1
        while name.lower() in self._taken:  # also where a disk does not tell A from a
            again += 1
            name = f"{stem}-{again}{ending}"
        self._taken.add(name.lower())
        return name


def slug(text: str) -> str:
    """The text as a part of a file's name: letters and digits of any script, joined by dashes."""
    words = re.split(r"[^\w.]+", unicodedata.normalize("NFC", text))
    return "-".join(word for word in words if word.strip("."))[:_SLUG_CHARACTERS].strip("-.")


def shortened(text: str, most: int) -> str:
    """As much of its beginning as `most` bytes of UTF-8 hold, in whole characters."""
    return text.encode()[:most].decode(errors="ignore")


def _entries(job: Job, output: Path, names: _Names, told: Told) -> list[Entry]:
    """Every task, with copies of its files where it has a valid result."""
    results, identity = Results(job.folder), job.identity
    done, failures = set(results.numbers()), Claims(job.folder).failed()
    entries = []
    for number, task in sorted(job.tasks.items()):
        entry = Entry(number, task.labels, "waiting")
        entries.append(entry)
        if number in done and identity:
            problem = results.problem(number, identity.digest(task.request))
            if problem:
                entry.state, entry.reason = "damaged", problem
                told.problems.append(f"task {number}: {problem}; lance-farm retry --damaged has it made anew")
                continue
            entry.state, entry.receipt = "done", results.receipt(number)
            told.done += 1
            files = [str(file["name"]) for file in entry.receipt["files"]]
            for index, name in enumerate(files):
                stored = names.name(number, task.labels, index, len(files), Path(name).suffix)
                shutil.copyfile(results.folder_of(number) / name, output / "files" / stored)
                entry.files.append(f"files/{stored}")
            told.files += len(files)
        elif number in failures:
            entry.state, entry.reason = "failed", str(failures[number].get("reason", ""))
            told.problems.append(f"task {number} failed: {entry.reason}")
    return entries


def _make_sheets(output: Path, shown: list[tuple[Entry, str]], told: Told) -> None:
    """Contact sheets, which are also the page's thumbnails: few files for many rows."""
    (output / "sheets").mkdir()
    for start in range(0, len(shown), PER_SHEET):
        part = shown[start : start + PER_SHEET]
        sheet = f"sheets/sheet-{start // PER_SHEET + 1:03}.png"
        arguments = ["sheet", *(name for _, name in part), "-o", sheet]
        arguments += ["--columns", str(SHEET_COLUMNS), "--cell", str(CELL)]
        if problem := _lancectl(output, arguments):
            told.problems.append(f"{sheet}: {problem}")
            continue
        for place, (entry, name) in enumerate(part):
            column, row = place % SHEET_COLUMNS, place // SHEET_COLUMNS
            entry.thumbnails[name] = Thumbnail(sheet, column * CELL, row * CELL, CELL)


def _make_clip(output: Path, fps: float, pictures: list[str], told: Told) -> None:
    """All pictures one after the other."""
    if not pictures:
        told.problems.append("--clip: there are no pictures")
    elif problem := _lancectl(output, ["clip", *pictures, "-o", "clip.mp4", "--fps", f"{fps:g}"]):
        told.problems.append(f"clip.mp4: {problem}")


def _lancectl(folder: Path, arguments: list[str]) -> str:
    """What went wrong; empty: nothing."""
    done = subprocess.run(
        [find_program("lancectl"), *arguments], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    return done.stderr.strip().removeprefix("lancectl: ") if done.returncode != 0 else ""


def _table_of(entries: list[Entry], identity: Identity | None) -> str:
    """CSV with a line per task: what was asked, and what its receipts say."""
    labels = list(dict.fromkeys(label for entry in entries for label in entry.labels))
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\r\n")
    table.writerow(["task", "state", "reason", *labels, "files", "text", "seconds", "job_seconds", "worker", "attempt",
                    "seeds", "model", "model_hash", "backend", "build", "digest", "receipts"])  # fmt: skip
    for entry in entries:
        asked = [entry.labels.get(label, "") for label in labels]
        table.writerow([entry.number, entry.state, entry.reason, *asked, *_facts(entry, identity)])
    return out.getvalue()


def _facts(entry: Entry, identity: Identity | None) -> list[Any]:
    told = entry.receipt
    jobs = told.get("receipts", [])
    seeds = " ".join(str(receipt["params"].get("seed", "")) for receipt in jobs)
    facts = identity.facts if identity and told else Facts("", "", "", "")
    receipts = json.dumps(jobs, ensure_ascii=False) if jobs else ""
    names = ("seconds", "job_seconds", "worker", "attempt")
    source = [facts.model, facts.hash, facts.backend, facts.build, told.get("digest", ""), receipts]
    return [" ".join(entry.files), entry.text, *(told.get(name, "") for name in names), seeds, *source]
