"""lanced --result-cache: what was made before is answered at once, and never with anything else."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lanced_client import Client, Result
from lanced_process import DEMO_MODEL, LONG_REQUEST, REQUEST, Lanced

QUESTION: dict[str, Any] = {
    "prompt": "What is it?",
    "source": np.zeros((1, 64, 64, 3), np.uint8),
    "max_new_tokens": 5,
}


@pytest.fixture(params=["in memory", "in a journal"])
def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lanced]:
    where = ["--result-cache", "64M"] if request.param == "in memory" else ["--state", str(tmp_path / "state")]
    with Lanced(*where) as daemon:
        yield daemon


@pytest.fixture
def client(daemon: Lanced) -> Iterator[Client]:
    with daemon.client() as client:
        client.load()
        yield client


def is_kept(result: Result) -> bool:
    return bool(result.receipt.get("cached"))


def assert_same(one: Result, other: Result) -> None:
    assert one.pixels is not None
    assert other.pixels is not None
    np.testing.assert_array_equal(one.pixels, other.pixels)


def test_the_same_request_is_answered_ahead_of_the_queue_also_after_a_release(client: Client) -> None:
    made = client.generate("t2i", **REQUEST)  # and released
    film = client.submit("t2i", **LONG_REQUEST)
    next(event for event in film.events() if event.event == "progress")
    waiting = client.submit("t2i", **REQUEST, cache=False)
    answer, _ = client.call("submit", job="again", task="t2i", params=REQUEST)
    assert answer["state"] == "done"
    job = client.submit("t2i", **REQUEST)
    assert [event.event for event in job.events()] == ["queued", "done"]
    kept = job.result()
    assert is_kept(kept)
    assert not is_kept(made)
    assert_same(kept, made)
    differing = {name for name in made.receipt if made.receipt[name] != kept.receipt.get(name)}
    assert differing <= {"job", "queue_seconds", "total_seconds", "attempt", "resumed"}
    assert (kept.receipt["job"], kept.receipt["digest"]) == (job.id, made.receipt["digest"])
    states = {entry["job"]: entry["state"] for entry in client.jobs()}
    assert (states[film.id], states[waiting.id], states["again"]) == ("running", "queued", "done")
    assert client.stats()["result_cache"]["answered"] == 2
    film.cancel()
    assert not is_kept(waiting.result())


def test_another_request_is_made(client: Client) -> None:
    client.generate("t2i", **REQUEST)
    for other in ({"seed": 12}, {"num_inference_steps": 5}, {"prompt": "a green square"}, {"width": 80}):
        assert not is_kept(client.generate("t2i", **REQUEST | other))
    source = np.full((1, 64, 64, 3), 200, np.uint8)
    client.generate("x2t_image", **QUESTION)
    assert not is_kept(client.generate("x2t_image", **QUESTION | {"source": source}))


def test_a_kept_answer_is_told_as_one_piece(client: Client) -> None:
    made = client.generate("x2t_image", **QUESTION)
    job = client.submit("x2t_image", **QUESTION)
    told = [getattr(event, "text", "") for event in job.events()]
    assert made.text in told
    assert (job.result().text, is_kept(job.result())) == (made.text, True)


def test_a_kept_result_is_known_to_history_and_outlives_the_daemon_like_any_other(tmp_path: Path) -> None:
    with Lanced("--state", str(tmp_path / "state")) as daemon, daemon.client() as client:
        made = client.generate("t2i", **REQUEST)
        job = client.submit("t2i", **REQUEST)
        assert is_kept(job.result())
        daemon.process.kill()
        daemon.process.wait()
        daemon.start()
        assert_same(job.result(), made)
        assert is_kept(client.generate("t2i", **REQUEST))
        jobs = client.call("history")[0]["jobs"]
        assert [entry["state"] for entry in jobs] == ["done", "done", "done"]


@pytest.mark.parametrize("where", [["--result-cache", "64M"], ["--state"]])
def test_other_weights_under_the_same_name_are_asked_anew(where: list[str], tmp_path: Path) -> None:
    model = Path(shutil.copytree(DEMO_MODEL, tmp_path / "model"))
    weights = model / "model.safetensors"
    where = [*where, str(tmp_path / "state")] if where == ["--state"] else where
    with Lanced(*where, models=(model,)) as daemon, daemon.client() as client:
        made = client.generate("t2i", **REQUEST)
        assert is_kept(client.generate("t2i", **REQUEST))
        data = bytearray(weights.read_bytes())
        np.frombuffer(data, np.uint8)[len(data) // 2 + 1 & ~1 | 1 :: 2] ^= 0x80
        weights.with_suffix(".new").write_bytes(data)
        before = weights.rename(tmp_path / "before")
        weights.with_suffix(".new").rename(weights)
        other = client.generate("t2i", **REQUEST)
        assert not is_kept(other)
        assert made.pixels is not None and other.pixels is not None
        assert not np.array_equal(made.pixels, other.pixels)
        before.rename(weights)  # the first ones again: what was made of them is right
        again = client.generate("t2i", **REQUEST)
        assert is_kept(again)
        assert_same(again, made)


def test_another_backend_makes_its_own(tmp_path: Path) -> None:
    state = ["--state", str(tmp_path / "state")]
    with Lanced(*state) as daemon, daemon.client() as client:
        client.generate("t2i", **REQUEST)
    time.sleep(0.1)
    with Lanced(*state, "--isa", "portable") as daemon, daemon.client() as client:
        assert not is_kept(client.generate("t2i", **REQUEST))


@pytest.mark.parametrize("where", ["in memory", "in a journal"])
def test_what_was_used_longest_ago_goes_first(where: str, tmp_path: Path) -> None:
    # Room for two pictures of 64x64, with what they come with.
    limit = ["--result-cache", "40K"]
    if where == "in a journal":
        limit += ["--state", str(tmp_path / "state")]
    with Lanced(*limit) as daemon, daemon.client() as client:

        def ask(seed: int) -> bool:
            return is_kept(client.generate("t2i", **REQUEST | {"seed": seed}))

        assert not ask(1)
        assert not ask(2)
        assert ask(1)
        assert not ask(3)
        deadline = time.monotonic() + 60  # the journal trims now and then
        while client.stats()["result_cache"]["bytes"] > 40 << 10:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert ask(1)
        assert ask(3)
        assert not ask(2)


def test_without_the_option_and_without_a_state_folder_nothing_is_kept() -> None:
    with Lanced() as daemon, daemon.client() as client:
        for _ in range(2):
            assert not is_kept(client.generate("t2i", **REQUEST))
        assert "result_cache" not in client.stats()
