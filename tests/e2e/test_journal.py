"""lanced --state: what was accepted is done, whatever becomes of the process, with the same bytes and once."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from lanced_client import (
    BadRequest,
    Client,
    ConnectionFailed,
    Failed,
    InternalError,
    LanceError,
    NotFound,
    Progress,
    Result,
    Text,
)
from lanced_client.client import Job
from lanced_process import DEMO_AWQ, DEMO_MODEL, LANCED, REQUEST, ROOT, Lanced

# Some 2 s of work, in steps of milliseconds.
FILM: dict[str, Any] = REQUEST | {"width": 128, "height": 128, "num_inference_steps": 400}
SMALL: dict[str, Any] = {key: value for key, value in REQUEST.items() if key != "seed"} | {"num_inference_steps": 40}
CLIENTS = 4
ALL_MADE = ("--result-cache", "0")  # each job, also where the same was asked before
POISONED_LANCED = LANCED.parent / "tests/poisoned-lanced"
KILLS = int(os.environ.get("KILLS", "8"))  # `make chaos` has 200


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def quiet_film() -> Iterator[np.ndarray[Any, Any]]:
    with Lanced() as daemon, daemon.client() as client:
        yield pixels_of(client.submit("t2i", **FILM))


def pixels_of(job: Job) -> np.ndarray[Any, Any]:
    pixels = job.result().pixels
    assert pixels is not None
    return pixels


def same(result: Result, pixels: np.ndarray[Any, Any]) -> bool:
    return result.pixels is not None and np.array_equal(result.pixels, pixels)


def kill_and_start(daemon: Lanced) -> None:
    daemon.process.send_signal(signal.SIGKILL)
    daemon.process.wait()
    daemon.start()


def follow_to_step(job: Job, step: int) -> None:
    while not any(isinstance(event, Progress) and event.total_step >= step for event in job.poll(1.0)):
        assert job.ended is None


def check(state: Path) -> str:
    answer = subprocess.run([str(LANCED), "--state", str(state), "--check"], capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def test_a_job_goes_on_from_its_saved_state_when_the_daemon_was_killed_and_gives_the_same_bytes(
    state: Path, quiet_film: np.ndarray[Any, Any]
) -> None:
    with Lanced("--state", str(state), "--save-steps", "20") as daemon, daemon.client() as client:
        job = client.submit("t2i", **FILM)
        follow_to_step(job, 100)
        kill_and_start(daemon)
        steps = [event.step for event in job.events() if isinstance(event, Progress) and event.stage == "denoise"]
        assert steps[0] > 20  # who waits just goes on waiting, and sees it go on
        result = job.result()
        assert same(result, quiet_film)
        receipt = result.receipt
        assert (receipt["attempt"], receipt["resumed"]) == (2, True)
        assert client.submit("t2i", job_id=job.id, **FILM).result().receipt == receipt  # a repetition starts nothing


def test_without_a_saved_state_it_begins_anew_and_gives_the_same_bytes(
    state: Path, quiet_film: np.ndarray[Any, Any]
) -> None:
    with Lanced("--state", str(state), "--save-seconds", "0") as daemon, daemon.client() as client:
        job = client.submit("t2i", **FILM)
        follow_to_step(job, 100)
        kill_and_start(daemon)
        result = job.result()
        assert same(result, quiet_film)
        assert (result.receipt["attempt"], result.receipt["resumed"]) == (2, False)


def stop(daemon: Lanced) -> int:
    daemon.process.send_signal(signal.SIGTERM)
    return daemon.process.wait(30)


def test_sigterm_lays_the_jobs_aside_and_the_next_daemon_goes_on_with_the_same_bytes(
    state: Path, quiet_film: np.ndarray[Any, Any]
) -> None:
    with Lanced("--state", str(state), "--save-seconds", "0", *ALL_MADE) as daemon, daemon.client() as client:
        running, waiting = client.submit("t2i", **FILM), client.submit("t2i", **FILM)
        for step in (50, 100, 150, 200):  # once more than it may be hit by an end that is not in order
            follow_to_step(running, step)
            assert stop(daemon) == 0
            assert "2 were accepted" in check(state)
            daemon.start()
        steps = [event.step for event in running.events() if isinstance(event, Progress) and event.stage == "denoise"]
        assert steps[0] > 150
        for job in running, waiting:
            assert same(job.result(), quiet_film)
        receipts = [job.result().receipt for job in (running, waiting)]
        assert [(receipt["attempt"], receipt["resumed"]) for receipt in receipts] == [(1, True), (1, False)]


def test_without_a_state_folder_sigterm_finishes_what_is_there_and_so_does_lancectl_shutdown_with_one(
    state: Path, quiet_film: np.ndarray[Any, Any]
) -> None:
    for arguments in ([], ["--state", str(state)]):
        with Lanced(*arguments) as daemon, daemon.client() as client:
            job = client.submit("t2i", **FILM)
            follow_to_step(job, 3)
            if arguments:
                assert daemon.lancectl("shutdown").returncode == 0
            else:
                daemon.process.send_signal(signal.SIGTERM)
            assert same(job.result(), quiet_film)
            assert daemon.process.wait(30) == 0


def test_a_signal_while_shutdown_finishes_jobs_and_a_limit_of_processor_time_leave_them_to_the_next_daemon(
    state: Path, quiet_film: np.ndarray[Any, Any]
) -> None:
    with Lanced("--state", str(state)) as daemon, daemon.client() as client:
        job = client.submit("t2i", **FILM)
        follow_to_step(job, 3)
        assert daemon.lancectl("shutdown").returncode == 0
        assert stop(daemon) == 0
        daemon.start()
        follow_to_step(job, 50)
        daemon.process.send_signal(signal.SIGXCPU)
        assert daemon.process.wait(30) == 1
        daemon.start()
        assert same(job.result(), quiet_film)


def test_jobs_wait_for_a_daemon_that_finds_its_model(state: Path, tmp_path: Path) -> None:
    with Lanced("--state", str(state)) as daemon, daemon.client() as client:
        job = client.submit("t2i", **FILM)
        follow_to_step(job, 3)
        assert stop(daemon) == 0
        (tmp_path / "empty").mkdir()
        elsewhere = Lanced("--state", str(state), models=(tmp_path / "empty",))
        assert subprocess.run(elsewhere.command, capture_output=True, timeout=60).returncode == 1
        assert "1 were accepted" in check(state)
        daemon.start()
        pixels_of(job)


def test_a_job_that_named_no_model_keeps_the_one_it_was_submitted_for_while_that_is_offered(
    state: Path, quiet_film: np.ndarray[Any, Any]
) -> None:
    kept = ("--state", str(state))
    with Lanced(*kept, models=(DEMO_MODEL, DEMO_AWQ)) as daemon, daemon.client() as client:
        jobs = [client.submit("t2i", **FILM), client.submit("t2i", **FILM, cache=False)]
        follow_to_step(jobs[0], 3)
        assert stop(daemon) == 0
        with Lanced(*kept, models=(DEMO_AWQ, DEMO_MODEL), endpoint=daemon.endpoint) as other:
            result = jobs[0].result()
            assert same(result, quiet_film) and result.receipt["model"]["name"] == DEMO_MODEL.name
            assert stop(other) == 0
        with Lanced(*kept, models=(DEMO_AWQ,), endpoint=daemon.endpoint):
            assert jobs[1].result().receipt["model"]["name"] == DEMO_AWQ.name


def test_payloads_and_results_outlive_the_daemon_and_a_release_takes_them_away(
    state: Path, peer_factory: Any
) -> None:
    source = np.random.default_rng(3).integers(0, 256, (1, 512, 512, 3), np.uint8)
    question = {"prompt": "What is it?", "source": source, "max_new_tokens": 5}
    with Lanced("--state", str(state)) as daemon, daemon.client(peer_factory) as client:
        job = client.submit("x2t_image", **question)
        kill_and_start(daemon)
        answer = job.result()
        kill_and_start(daemon)
        assert job.result().text == answer.text
        assert "1 with" in check_after_end(daemon, state).split("waiting for their clients: ")[1]
        daemon.start()
        job.release()
        with pytest.raises(NotFound):
            client.call("result", job=job.id)
        assert "0 with" in check_after_end(daemon, state).split("waiting for their clients: ")[1]
        assert not list((state / "contents").iterdir())
        daemon.start()


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def check_after_end(daemon: Lanced, state: Path) -> str:
    stop(daemon)
    return check(state)


Made = TypeVar("Made")


def again(ask: Callable[[], Made]) -> Made:
    """Until a daemon answers: on a busy machine the next one may take longer to start than a client waits."""
    for _ in range(100):
        with contextlib.suppress(ConnectionFailed):
            return ask()
        time.sleep(0.1)
    return ask()


class Load:
    """Clients that have small jobs done one after another, whatever becomes of the daemon."""

    def __init__(self, daemon: Lanced, expected: list[np.ndarray[Any, Any]]) -> None:
        self.daemon, self.expected = daemon, expected
        self.is_over = threading.Event()
        self.ended = 0  # jobs
        self.hit = 0  # of them, by an end of the daemon
        self.repeated_steps = 0
        self.faults: list[str] = []
        self._numbers = itertools.count(1)
        self.clients = [threading.Thread(target=self._follow, args=(index,)) for index in range(CLIENTS)]

    def _follow(self, index: int) -> None:
        chance = random.Random(index)
        try:
            with self.daemon.client() as client:
                while not self.is_over.is_set():
                    self._do_one(client, chance.randrange(len(self.expected)))
        except LanceError as error:
            self.faults.append(f"{type(error).__name__}: {error}")

    def _do_one(self, client: Client, seed: int) -> None:
        name = f"job-{next(self._numbers)}"
        job = again(lambda: client.submit("t2i", **SMALL, seed=seed, job_id=name))
        endings, last = 0, 0
        while job.ended is None:
            for event in again(lambda: job.poll(10.0)):
                endings += event.event in ("done", "failed", "cancelled")
                if isinstance(event, Progress) and event.stage == "denoise":
                    self.repeated_steps += max(0, last - event.step + 1)
                    last = event.step
        result = again(job.result)
        if endings != 1 or not same(result, self.expected[seed]):
            self.faults.append(f"job {job.id} ended {endings} times, or with other bytes")
        again(job.release)
        self.hit += result.receipt["attempt"] > 1
        self.ended += 1

    def __enter__(self) -> Load:
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        for client in self.clients:
            client.join(120)

    def wait_for_more(self, jobs: int) -> None:
        wanted, deadline = self.ended + jobs, time.monotonic() + 60
        while self.ended < wanted and not self.faults and time.monotonic() < deadline:
            time.sleep(0.002)


def test_of_jobs_under_kills_each_ends_once_with_its_bytes(state: Path) -> None:
    with Lanced() as daemon, daemon.client() as client:
        expected = [pixels_of(client.submit("t2i", **SMALL, seed=seed)) for seed in range(8)]
    chance = random.Random(5)
    with Lanced("--state", str(state), "--save-steps", "5", *ALL_MADE) as daemon:
        with Load(daemon, expected) as load:
            for _ in range(KILLS):
                load.wait_for_more(2)  # so that no job is hit three times
                time.sleep(chance.uniform(0.0, 0.1))
                kill_and_start(daemon)
        assert load.faults == []
        print(f"{KILLS} kills, {load.ended} jobs, {load.hit} of them hit, {load.repeated_steps} steps repeated")
        told = check_after_end(daemon, state)
        assert f"jobs: {load.ended}, of which 0 were accepted" in told
        daemon.start()


def test_a_job_that_kills_the_daemon_is_tried_three_times_and_the_queue_behind_it_is_done(state: Path) -> None:
    with Lanced("--state", str(state), "--save-seconds", "0") as daemon, daemon.client() as client:
        poison = client.submit("t2i", **FILM)
        behind = client.submit("t2i", **REQUEST)
        for _ in range(3):
            follow_to_step(poison, 3)
            kill_and_start(daemon)
        pixels_of(behind)
        with pytest.raises(InternalError, match="was being stepped at three ends of the daemon"):
            poison.result()
        assert isinstance(poison.ended, Failed)


class Supervisor:
    """Starts a daemon again whenever it has ended, as systemd does; `ends` are the statuses that it ended with."""

    def __init__(self, daemon: Lanced) -> None:
        self.ends: list[int] = []
        self._daemon, self._is_over = daemon, False
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while True:
            status = self._daemon.process.wait()
            if self._is_over:
                return
            self.ends.append(status)
            self._daemon.start()

    def end(self) -> None:
        self._is_over = True
        self._daemon.process.kill()
        self._thread.join()


def submit_while_it_starts(client: Client) -> Job:
    """A daemon that has just been ended is there again in a moment; a client's first request does not wait for it."""
    for _ in range(100):
        try:
            return client.submit("t2i", **REQUEST)
        except ConnectionFailed:
            time.sleep(0.1)
    raise AssertionError("no lanced for ten seconds")


@pytest.mark.parametrize("saves", [("--save-seconds", "0"), ("--save-steps", "1")], ids=["anew", "saved"])
def test_a_job_that_aborts_the_daemon_in_its_third_step_has_three_starts_and_the_queue_behind_it_is_done(
    state: Path, expected: np.ndarray[Any, Any], saves: tuple[str, str]
) -> None:
    """From within: tests/tools/poisoned-lanced. Jobs that were behind it, of two clients, are nobody's fault."""
    command = ("--state", str(state), *saves, *ALL_MADE)
    with Lanced(*command, program=POISONED_LANCED, is_ready=False) as daemon:
        daemon.wait_until_ready()
        supervisor = Supervisor(daemon)
        try:
            with daemon.client() as client, daemon.client() as other:
                poison = client.submit("t2i", **FILM | {"prompt": "a drop of poison"})
                behind = [submit_while_it_starts(each) for each in (client, other, other)]
                results = [job.result() for job in behind]
                assert all(same(result, expected) for result in results)
                assert [result.receipt["attempt"] for result in results] == [1, 1, 1]
                with pytest.raises(InternalError, match="was being stepped at three ends of the daemon"):
                    poison.result()
                assert supervisor.ends == [-signal.SIGABRT] * 3
                (failed,) = json.loads(daemon.lancectl("history", "--json", "--failed").stdout)["jobs"]
                assert (failed["job"], failed["code"]) == (poison.id, "internal")
        finally:
            supervisor.end()
        daemon.start()
        daemon.wait_until_ready()
        with daemon.client() as client:  # one end more does not have it tried again
            with pytest.raises(InternalError, match="three ends"):
                client.call("result", job=poison.id)
            assert client.stats()["steps"] == 0


def test_lancectl_finds_jobs_of_before_a_restart_and_fetches_what_is_kept(state: Path, tmp_path: Path) -> None:
    with Lanced("--state", str(state), "--lazy") as daemon, daemon.client() as client:
        with pytest.raises(LanceError):  # only the model can tell, and it is not loaded yet
            client.generate("t2v", **REQUEST | {"width": 40})
        kept = client.submit("t2i", **REQUEST)
        pixels_of(kept)
        client.generate("t2i", **REQUEST | {"prompt": "A Fox", "seed": 3})  # is released
        wait_for(lambda: client.stats()["journal"]["waiting"] == 0)
        kill_and_start(daemon)

        def history(*arguments: str) -> list[dict[str, Any]]:
            answer = daemon.lancectl("history", "--json", *arguments)
            assert answer.returncode == 0, answer.stderr
            jobs: list[dict[str, Any]] = json.loads(answer.stdout)["jobs"]
            return jobs

        assert [job["task"] for job in history("--since", "1h")] == ["t2i", "t2i", "t2v"]
        assert [job["code"] for job in history("--failed")] == ["bad_request"]
        (fox,) = history("--prompt", "a fox", "--task", "t2i")
        assert (fox["state"], fox["result"], fox["receipt"]["params"]["seed"]) == ("done", False, 3)
        (started,) = fox["milestones"]
        assert started["what"] == "started" and fox["submitted"] <= started["at"] <= fox["ended"]
        picture = tmp_path / "kept.png"
        assert daemon.lancectl("fetch", kept.id, "-o", str(picture)).returncode == 0
        assert picture.exists()
        assert kept.id in daemon.lancectl("history").stdout


def test_lancectl_tells_the_whole_history_however_long_it_is(state: Path) -> None:
    count = 260  # more than come in one answer with their receipts
    with Lanced("--state", str(state), "--queue", str(count)) as daemon, daemon.client() as client:
        ids = [client.submit("t2i", job_id=f"job-{number}", **FILM).id for number in range(count)]
        told = json.loads(daemon.lancectl("history", "--json").stdout)
        client.shutdown("cancel")
    assert [job["job"] for job in told["jobs"]] == ids[::-1]
    assert all("receipt" in job for job in told["jobs"])


def test_history_says_how_long_a_part_of_a_prompt_may_be(state: Path) -> None:
    with Lanced("--state", str(state), "--lazy") as daemon, daemon.client() as client:
        assert client.call("history", prompt="%" * 16384)[0]["jobs"] == []
        with pytest.raises(BadRequest, match="prompt: may have at most 16384 bytes"):
            client.call("history", prompt="a" * 16385)


def test_every_number_of_the_journal_is_in_the_protocol(state: Path) -> None:
    told = (ROOT / "protocol" / "PROTOCOL.md").read_text(encoding="utf-8")
    with Lanced("--state", str(state), "--lazy") as daemon, daemon.client() as client:
        numbers = client.stats()["journal"]
    listed = re.search(r"journal \(with `--state`: \{(.*?)\}\)", told)
    assert listed is not None
    assert re.sub(r" \([^)]*\)", "", listed[1]).split(", ") == list(numbers)


def test_the_same_request_is_answered_with_the_kept_result_also_after_a_release_and_a_restart(
    state: Path, tmp_path: Path
) -> None:
    arguments = ["t2i", "a red fox", "--size", "64x64", "--steps", "4", "--json", "-o", str(tmp_path / "fox.png")]
    with Lanced("--state", str(state), "--result-cache", "64M") as daemon:

        def receipt(*more: str) -> dict[str, Any]:
            answer = daemon.lancectl(*arguments, *more)
            assert answer.returncode == 0, answer.stderr
            found: dict[str, Any] = json.loads(answer.stdout)["receipt"]
            return found | {"picture": (tmp_path / "fox.png").read_bytes()[-200:]}

        made = receipt("--seed", "1")
        kill_and_start(daemon)
        kept = receipt("--seed", "1")
        assert (made.get("cached"), kept["cached"]) == (None, True)
        assert (kept["digest"], kept["stages"]) == (made["digest"], made["stages"])
        assert kept["job"] != made["job"]
        assert "cached" not in receipt("--seed", "1", "--no-cache")
        assert "cached" not in receipt("--seed", "2")
        with daemon.client() as client:
            question = {"prompt": "What is it?", "source": np.zeros((1, 64, 64, 3), np.uint8), "max_new_tokens": 5}
            first, second = client.submit("x2t_image", **question), client.submit("x2t_image", **question)
            told = ["".join(event.text for event in job.events() if isinstance(event, Text)) for job in (first, second)]
            assert told[0] == told[1] == second.result().text
            assert second.result().receipt["cached"]


def test_a_kept_result_says_nothing_of_a_state_that_the_job_that_made_it_could_not_use(state: Path) -> None:
    request = SMALL | {"seed": 7, "num_inference_steps": 200}
    arguments = ["--state", str(state), "--save-steps", "1", "--result-cache", "64M"]
    with Lanced(*arguments) as daemon, daemon.client() as client:
        job = client.submit("t2i", **request)
        follow_to_step(job, 10)
        daemon.command += ["--isa", "portable"]  # another backend than that of the state
        kill_and_start(daemon)
        assert "of another backend" in job.result().receipt["state_not_used"]
        receipt = client.submit("t2i", **request).result().receipt
        assert receipt["cached"] and "state_not_used" not in receipt


def test_without_a_state_folder_there_is_no_history(lanced: Lanced) -> None:
    answer = lanced.lancectl("history")
    assert (answer.returncode, "--state" in answer.stderr) == (4, True)


def test_a_folder_that_vanishes_is_told_at_submit_and_ends_nothing(state: Path) -> None:
    with Lanced("--state", str(state)) as daemon, daemon.client() as client:
        running = client.submit("t2i", **FILM)
        follow_to_step(running, 3)
        shutil.move(state, f"{state}.away")
        with pytest.raises(LanceError, match="is gone"):
            client.submit("t2i", **REQUEST)
        pixels_of(running)
        shutil.move(f"{state}.away", state)
        pixels_of(client.submit("t2i", **REQUEST))


def test_a_full_disk_is_told_at_submit_with_the_numbers(tmp_path: Path) -> None:
    state = tmp_path / "small"
    state.mkdir()
    mount = ["unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o size=18m none {state} && exec "$@"', "sh"]
    if subprocess.run([*mount, "true"], capture_output=True).returncode != 0:
        pytest.skip("no mount namespace of its own to be had here")
    daemon = Lanced("--state", str(state))
    daemon.command = [*mount, *daemon.command]
    source = np.random.default_rng(3).integers(0, 256, (1, 1024, 1024, 3), np.uint8)
    with daemon, daemon.client() as client:
        pixels_of(client.submit("t2i", **REQUEST))
        with pytest.raises(LanceError, match=r"has [\d.]+ MB free; the job needs [\d.]+ MB"):
            client.submit("x2t_image", prompt="What is it?", source=source)
        pixels_of(client.submit("t2i", **REQUEST))


def test_no_token_is_ever_written_down(state: Path) -> None:
    token = "a-token-that-is-a-secret-0123456789"
    with Lanced("--state", str(state), token=token, environment={"LANCED_TOKEN": token}) as daemon:
        with daemon.client() as client:
            pixels_of(client.submit("t2i", **REQUEST))
    found = [path for path in state.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert found == []


def test_another_daemon_cannot_have_the_same_folder(state: Path, tmp_path: Path) -> None:
    with Lanced("--state", str(state)):
        other = subprocess.run(
            Lanced("--state", str(state), endpoint=f"ipc://{tmp_path}/other.ipc").command,
            capture_output=True, text=True, timeout=60, env=os.environ,
        )
        assert other.returncode == 1
        assert "another lanced has it" in other.stderr
