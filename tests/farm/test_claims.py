"""Claims, results and beats: files alone. Of many workers one gets a task; what is whole counts, once."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from lance_farm.beats import Beat, Watch
from lance_farm.claims import MOST_TRIES, Claim, Claims
from lance_farm.job import FOLDERS
from lance_farm.results import Results


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
        assert results.publish(work, 1, {"digest": "d"}) == (worker == "a")
    assert (results.folder_of(1) / "out.txt").read_text() == "a"
    assert list((folder / "work").iterdir()) == []
    assert results.problem(1, "d") == ""
    assert results.problem(1, "e") == "it is of another model, backend or build"
    (results.folder_of(1) / "out.txt").write_text("b")
    assert "other bytes" in results.problem(1, "d")


def test_a_worker_lives_as_long_as_its_number_grows_whatever_its_clock_says(folder: Path) -> None:
    lease = 0.6
    watch = Watch(folder / "workers", lease)
    beat = Beat(folder / "workers", "w", lease, machine="elsewhere")
    for _ in range(10):
        assert not watch.is_gone("w")
        time.sleep(lease / 5)
    beat.close()
    assert watch.is_gone("w")
    silent = folder / "workers/s.json"
    silent.write_text(json.dumps({"worker": "s", "pid": 1, "machine": "elsewhere", "state": "working", "beat": 5}))
    assert not watch.is_gone("s")
    time.sleep(lease + 0.1)
    assert watch.is_gone("s")
