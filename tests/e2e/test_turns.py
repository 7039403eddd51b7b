"""Jobs that take turns on one device: whoever waits is served in time, and no byte changes."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from demo.shapes import Scene
from lanced_client import Client, Paused, Progress, Result
from lanced_process import REQUEST, Lanced, memory_of

CIRCLE = Scene("circle", "red", "blue", "large", "left")
CLIP = Scene("square", "red", "white", "large", "left", motion="right").frames(9, 96)
PICTURE: dict[str, Any] = REQUEST | {"num_inference_steps": 20}
FILM: dict[str, Any] = PICTURE | {"width": 96, "height": 96, "num_frames": 9}
TASKS: dict[str, dict[str, Any]] = {
    "t2i": PICTURE | {"batch_size": 2},
    "t2v": FILM,
    "i2v": {"prompt": "it moves", "source": CLIP[:1], "resolution": "96x96", "num_frames": 9,
            "num_inference_steps": 10},
    "image_edit": {"prompt": "make it green", "source": CIRCLE.frames(), "resolution": "128x128"},
    "video_edit": {"prompt": "make it green", "source": CLIP, "fps": 12.0, "resolution": "96x96",
                   "num_inference_steps": 10},
    "x2t_image": {"prompt": "Describe the image.", "source": CIRCLE.frames(), "resolution": "128x128"},
    "x2t_video": {"prompt": "Describe the video.", "source": CLIP, "fps": 12.0, "resolution": "112x112"},
    "encode": {"source": CLIP},
    "decode": {"latents": np.linspace(-1, 1, 48 * 3 * 6 * 6, dtype=np.float32).reshape(1, 48, 3, 6, 6)},
}
# One that comes between, again and again.
URGENT: dict[str, Any] = REQUEST | {"num_inference_steps": 1, "priority": "interactive"}
LARGER: dict[str, Any] = URGENT | {"width": 192, "height": 192}


def values_of(result: Result) -> list[Any]:
    return [None if value is None else np.asarray(value).tobytes()
            for value in (result.pixels, result.latents, result.text, result.token_ids)]


@contextmanager
def interruptions(daemon: Lanced, request: dict[str, Any] = URGENT) -> Iterator[None]:
    """Interactive jobs, one after the other."""
    is_over = threading.Event()

    def interrupt() -> None:
        with daemon.client() as client:
            while not is_over.is_set():
                client.generate("t2i", **request)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@pytest.fixture(scope="module")
def quiet() -> Iterator[dict[str, list[Any]]]:
    with Lanced() as daemon, daemon.client() as client:
        yield {task: values_of(client.generate(task, **request)) for task, request in TASKS.items()}


def interrupted(client: Client, task: str) -> tuple[list[Any], bool]:
    """What the task makes, and whether others had the device meanwhile."""
    events: list[Any] = []
    result = client.generate(task, on_event=events.append, priority="batch", **TASKS[task])
    return values_of(result), any(isinstance(event, Paused) for event in events)


def test_others_between_the_steps_of_a_job_change_none_of_its_bytes(quiet: dict[str, list[Any]]) -> None:
    paused = set()
    with Lanced() as daemon, daemon.client() as client, interruptions(daemon):
        for task in TASKS:
            for _ in range(20):  # a short one may be over before anybody else has asked
                values, was_paused = interrupted(client, task)
                assert values == quiet[task], task
                paused |= {task} if was_paused else set()
                if was_paused:
                    break
    assert paused >= {"t2i", "t2v", "i2v", "image_edit", "video_edit"}  # an answer may fit between two others each time


@pytest.mark.parametrize("task", ["t2v", "video_edit", "x2t_video"])
def test_nor_does_a_job_whose_memory_has_to_give_way(quiet: dict[str, list[Any]], task: str) -> None:
    enough = 1.02 * max(memory_of(task, TASKS[task]), memory_of("t2i", LARGER))
    memory = ("--memory", f"{round(enough * 1e6)}")
    with Lanced(*memory) as daemon, daemon.client() as client, interruptions(daemon, LARGER):
        values, was_paused = interrupted(client, task)
        assert values == quiet[task]
        assert was_paused
        assert "suspended" in daemon.log.read_text()


def started(daemon: Lanced) -> list[str]:
    """The jobs that have begun, in their order."""
    return re.findall(r"job (\S+): started", daemon.log.read_text())


def test_a_question_does_not_wait_for_a_film_and_one_job_does_not_wait_for_sixty() -> None:
    with Lanced("--queue", "100") as daemon, daemon.client() as one, Client(daemon.endpoint, name="another") as another:
        with one.submit("t2v", **FILM | {"num_inference_steps": 200}) as film:
            while not any(isinstance(event, Progress) for event in film.poll(1)):
                pass
            assert another.generate("x2t_image", **TASKS["x2t_image"]).text == CIRCLE.caption()
            assert {job["job"]: job["state"] for job in one.jobs()}[film.id] == "running"
        many = [one.submit("t2i", **PICTURE | {"seed": seed}) for seed in range(60)]
        with another.submit("t2i", **PICTURE) as single:
            started_before = len(started(daemon))  # read after it was accepted: a slow reader only weakens the bound
            single.result()
        assert started(daemon).index(single.id) <= started_before + 2
        states = {job["job"]: job["state"] for job in one.jobs()}
        assert states[many[-1].id] == "queued"
        for job in many:
            one.cancel(job.id)


def test_the_list_of_jobs_says_who_is_paused_and_of_which_class() -> None:
    with Lanced() as daemon, daemon.client() as client:
        batch = client.submit("t2i", priority="batch", **REQUEST | {"width": 256, "height": 256,
                                                                    "num_inference_steps": 1000})
        while not any(isinstance(event, Progress) for event in batch.poll(1)):
            pass
        with client.submit("t2v", priority="interactive", **FILM | {"num_inference_steps": 1000}) as film:
            while not any(isinstance(event, Paused) for event in batch.poll(1)):
                pass
            shown = {job["job"]: (job["priority"], job["state"], job["paused"]) for job in client.jobs()}
            assert shown == {batch.id: ("batch", "running", True), film.id: ("interactive", "running", False)}
        client.cancel(batch.id)
