"""Claims, results and beats: files alone. Of many workers one gets a task; what is whole counts, once."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from farm_jobs import ENVIRONMENT, wait_until
from lance_farm.beats import Beat, Watch, machine_id
from lance_farm.claims import MOST_TRIES, Claim, Claims
from lance_farm.files import read_json, whole_folder
from lance_farm.job import FOLDERS
from lance_farm.results import Results
from lance_farm.scratch import scratch_folder, scratch_for_now


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FOLDERS:
        (tmp_path / name).mkdir()
    return tmp_path


def test_each_task_goes_to_one_of_many_workers(folder: Path) -> None:
    Claims(folder).add(range(1, 201))
    taken: list[Claim] = []

    def work(worker: str) -> None:
        claims = Claims(folder, worker)
        while claim := claims.take():
            taken.append(claim)
            claims.end(claim)

    threads = [threading.Thread(target=work, args=(f"w{place}",)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claim.number for claim in taken) == list(range(1, 201))
    assert len({claim.worker for claim in taken}) > 1


def test_a_task_is_tried_three_times_and_can_be_had_tried_again(folder: Path) -> None:
    claims = Claims(folder, "w")
    claims.add([7])
    for attempt in range(1, MOST_TRIES + 1):
        claim = claims.take()
        assert claim == Claim(7, attempt, "w")
        assert claims.try_again(claim, "it broke") == (attempt < MOST_TRIES)
    assert claims.take() is None
    assert claims.failed() == {7: {"reason": "it broke", "tries": MOST_TRIES, "worker": "w"}}
    claims.retry(7)
    assert claims.failed() == {}
    assert claims.take() == Claim(7, 1, "w")


def test_a_task_that_was_given_back_keeps_its_tries(folder: Path) -> None:
    claims = Claims(folder, "w")
    claims.add([1])
    claim = claims.take()
    assert claim
    claims.give_back(claim)
    assert claims.take() == claim


def test_a_dead_workers_task_goes_to_one_of_those_who_see_it(folder: Path) -> None:
    Claims(folder).add([1])
    claim = Claims(folder, "dead").take()
    assert claim
    heirs = [Claims(folder, name).take_over(claim) for name in ("a", "b")]
    assert heirs == [Claim(1, 1, "a"), None]


def test_of_two_results_one_is_kept_whole(folder: Path) -> None:
    results = Results(folder)
    for worker in ("a", "b"):
        work = results.begin(f"000001.1.{worker}")
        (work / "out.txt").write_text(worker)
        told: dict[str, Any] = {"digest": "d", "worker": worker, "attempt": 1, "seconds": 0.5}
        told |= {"outputs": {}, "receipts": []}
        assert results.publish(work, 1, told) == (worker == "a")
    assert (results.folder_of(1) / "out.txt").read_text() == "a"
    assert list((folder / "work").iterdir()) == []
    assert results.problem(1, "d") == ""
    assert results.problem(1, "e") == "it is of another model, backend or build"
    (results.folder_of(1) / "out.txt").write_text("b")
    assert "other bytes" in results.problem(1, "d")


def test_a_worker_lives_as_long_as_its_number_grows_whatever_its_clock_says(folder: Path) -> None:
    lease, file = 0.2, folder / "workers/w.json"
    watch = Watch(folder / "workers", lease)
    for beat in (5, 6, 7):
        file.write_text(json.dumps({"worker": "w", "pid": 1, "machine": "elsewhere", "state": "working", "beat": beat}))
        assert not watch.is_gone("w")
        time.sleep(lease + 0.1)
    assert watch.is_gone("w")


def test_a_workers_number_grows_by_itself_until_it_says_that_it_has_ended(folder: Path) -> None:
    watch = Watch(folder / "workers", 60)
    beat = Beat(folder / "workers", "w", 0.2, machine="elsewhere")
    wait_until(lambda: read_json(folder / "workers/w.json")["beat"] > 3)
    assert not watch.is_gone("w")
    beat.close()
    assert watch.is_gone("w")


def test_a_worker_that_is_seen_for_the_first_time_is_neither_gone_nor_alive(folder: Path) -> None:
    watch = Watch(folder / "workers", 60)
    told = {"worker": "w", "pid": 1, "machine": "elsewhere", "state": "working"}
    for beat, is_alive in ((5, False), (5, False), (6, True)):
        (folder / "workers/w.json").write_text(json.dumps(told | {"beat": beat}))
        assert (watch.is_gone("w"), watch.is_seen_alive("w")) == (False, is_alive)


def test_a_process_that_nobody_has_waited_for_is_gone(folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        told = {"worker": "w", "pid": child.pid, "machine": machine_id(), "beat": 1}
        (folder / "workers/w.json").write_text(json.dumps(told))
        watch = Watch(folder / "workers", 60)
        assert (watch.is_gone("w"), watch.is_seen_alive("w")) == (False, True)
        child.kill()
        while not watch.is_gone("w"):
            time.sleep(0.01)
        assert not watch.is_seen_alive("w")


def test_what_a_killed_process_left_in_tmp_goes_with_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine = scratch_folder()
    code = "import os; from lance_farm.scratch import scratch_folder; print(scratch_folder(), flush=True); os._exit(9)"
    left = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT | {"TMPDIR": str(tmp_path)},
                          capture_output=True, text=True).stdout.strip()  # fmt: skip
    assert {str(path) for path in tmp_path.iterdir()} == {str(mine), left}
    with scratch_for_now() as another:
        assert {*tmp_path.iterdir()} == {mine, another}
    assert {*tmp_path.iterdir()} == {mine}


def test_a_folder_that_is_not_finished_leaves_nothing_and_one_that_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new/below", "empty"):
        with pytest.raises(OSError), whole_folder(tmp_path / name) as made:
            (made / "a").mkdir()
            (made / "a/file").write_text("half")
            raise OSError
    assert not (tmp_path / "new/below").exists()
    assert list((tmp_path / "empty").iterdir()) == []
