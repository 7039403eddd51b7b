"""The journal after a loss of power: it opens, it is whole, and nothing that was acknowledged is missing.

POWER_LOSSES says at how many moments (`make chaos` has 100).
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
from pathlib import Path

from lanced_process import BUILD, LANCED
from power_loss import Disk, Entry, read_log

MOMENTS = int(os.environ.get("POWER_LOSSES", "20"))
JOBS = 60
SEED = 7


def record(folder: Path) -> list[Entry]:
    log = folder.with_suffix(".log")
    folder.mkdir()
    subprocess.run(
        [str(BUILD / "tests/journal-load"), str(folder), str(JOBS), str(SEED)],
        env=os.environ
        | {
            "LD_PRELOAD": str(BUILD / "tests/librecorded_writes.so"),
            "RECORDED_WRITES_FOLDER": str(folder),
            "RECORDED_WRITES_LOG": str(log),
        },
        check=True,
        timeout=120,
    )
    return read_log(log)


def missing(state: Path, acks: list[str]) -> list[str]:
    """What was acknowledged and is not there."""
    rows = {}
    with sqlite3.connect(state / "journal.db") as database:
        for number, job_state, result in database.execute(
            "SELECT number, state, EXISTS (SELECT 1 FROM holds WHERE job = number AND kind = 'result') FROM jobs"
        ):
            rows[str(number)] = (job_state, bool(result))
    released = {ack.split()[1] for ack in acks if ack.startswith("releasing")}
    lost = []
    for what, number in (ack.split() for ack in acks):
        state_of, has_result = rows.get(number, ("", False))
        is_there = state_of != "" if what == "accepted" else state_of == "done" and (has_result or number in released)
        if what != "releasing" and not is_there:
            lost.append(f"{what} {number}")
    return lost


def test_whenever_the_power_goes_the_journal_is_whole_and_no_acknowledged_job_is_missing(tmp_path: Path) -> None:
    entries = record(tmp_path / "recorded")
    chance = random.Random(SEED)
    first = next(index for index, entry in enumerate(entries) if entry.name == "contents")
    moments = sorted(chance.sample(range(first + 1, len(entries)), MOMENTS))
    disk, at, seen = Disk(), 0, 0
    for moment in moments:
        while at < moment:
            disk.follow(entries[at])
            at += 1
        image = tmp_path / "image"
        disk.write_image(image, chance)
        if (image / "state").exists():
            checked = subprocess.run(
                [str(LANCED), "--state", str(image / "state"), "--check"], capture_output=True, text=True, timeout=60
            )
            assert checked.returncode == 0, f"after entry {moment}: {checked.stdout}{checked.stderr}"
            assert missing(image / "state", disk.acks) == [], f"after entry {moment}"
        else:
            assert disk.acks == []
        seen = len(disk.acks)
        shutil.rmtree(image)
    print(f"{MOMENTS} moments of {len(entries)} writes, the last with {seen} acknowledged: whole, nothing missing")
    assert seen > JOBS
