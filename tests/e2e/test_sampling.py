"""`sampling`: the choice of frames and sizes of a clip, against the official rule as numpy computes it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from lanced_client import BadRequest, Client, TooLarge
from lanced_process import LANCECTL, ROOT, Lanced

LIBRARIES = [ROOT / "build/libengine.a", ROOT / "build/libkernels.a"]


@pytest.fixture
def client(lanced: Lanced) -> Iterator[Client]:
    with lanced.client() as client:
        yield client


def official(count: int, fps: float) -> list[int]:
    """What the official sampler does: a whole rate, at most six seconds, twelve frames of each, then 4n + 1."""
    seconds = min(count / round(fps), 6.0)
    frames = round(seconds * 12.0)
    frames = frames - 3 if frames % 4 == 0 else frames // 4 * 4 + 1
    return [int(index) for index in np.linspace(0, count - 1, frames, dtype=int)]


@pytest.mark.parametrize("fps", [1, 8, 12, 15, 23.976, 24, 25, 29.97, 30, 59.94, 60, 120])
def test_the_frames_are_the_official_samplers(client: Client, fps: float) -> None:
    for count in (10, 13, 48, 49, 69, 73, 121, 300, 301, 1799, 5000):
        frames = client.sampling("video_edit", count, fps).indices
        if len(frames) > 1:
            assert list(frames) == official(count, fps)
        assert len(frames) % 4 == 1
        assert len(frames) <= 69
        for task in ("x2t_video", "encode"):
            assert client.sampling(task, count, fps).indices == frames


def test_what_was_sampled_is_taken_whole_when_it_is_called_12_a_second(client: Client) -> None:
    for count in range(1, 70, 4):
        sampling = client.sampling("x2t_video", count, 12.0)
        assert (sampling.indices, sampling.fps) == (tuple(range(count)), 12)


def test_a_clip_shorter_than_a_sampling_step_gives_its_first_frame(client: Client) -> None:
    assert client.sampling("x2t_video", 1, 60.0).indices == (0,)
    assert client.sampling("x2t_video", 3, 0.5).indices[0] == 0


def test_a_task_that_takes_a_picture_takes_the_first_and_encode_takes_frames_as_they_are(client: Client) -> None:
    for task in ("i2v", "image_edit", "x2t_image"):
        assert client.sampling(task, 24, 24.0).indices == client.sampling(task, 24).indices == (0,)
    assert client.sampling("encode", 7).indices == tuple(range(5))
    assert client.sampling("encode", 1000).indices == tuple(range(121))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"frames": 0, "fps": 12.0}, "frames: must be"),
        ({"frames": 2**31, "fps": 12.0}, "frames: must be"),
        ({"fps": 12.0}, "frames: is missing"),
        ({"frames": 10}, "fps: is missing"),
        ({"frames": 10, "fps": 0.0}, r"fps: must be a number from 0\.01 to 1000"),
        ({"frames": 10, "fps": 1000.1}, "fps: must be"),
        ({"frames": 10, "fps": "12"}, "fps: must be"),
        ({"frames": 10, "fps": 12.0, "height": 480}, "width: is missing"),
        ({"frames": 10, "fps": 12.0, "height": -1, "width": 5}, "height: must be"),
        ({"frames": 10, "fps": 12.0, "task": "t2v"}, "task: t2v takes no source"),
        ({"frames": 10, "fps": 12.0, "task": "paint"}, "task: must be"),
        ({"frames": 10, "fps": 12.0, "task": 7}, "task: must be"),
    ],
)
def test_a_wrong_field_is_refused_by_name(client: Client, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        client.call("sampling", **({"task": "x2t_video"} | fields))


def test_frames_that_would_not_fit_into_a_request_are_made_smaller(client: Client) -> None:
    limit = client.hello().limits["blob_bytes"]
    small = client.sampling("video_edit", 69, 12.0, 360, 640)
    assert (small.height, small.width) == (360, 640)
    large = client.sampling("video_edit", 69, 12.0, 2160, 3840)
    assert 3 * 69 * large.height * large.width <= limit - limit // 16 < 3 * 69 * (large.height + 2) * (large.width + 2)
    assert large.width / large.height == pytest.approx(16 / 9, rel=0.01)
    with pytest.raises(TooLarge, match="cannot be made to fit"):
        client.sampling("video_edit", 69, 12.0, 1, 2**31 - 1)


def symbols(*arguments: str) -> set[str]:
    listed = subprocess.run(["nm", *arguments], check=True, capture_output=True, text=True).stdout
    return {line.split()[-1] for line in listed.splitlines() if len(line.split()) == 3}


def test_lancectl_chooses_frames_without_the_engine() -> None:
    engine = symbols("--defined-only", "--extern-only", *map(str, LIBRARIES))
    assert {"lance_model_open", "backend_open"} <= engine
    lancectl = symbols("--defined-only", str(LANCECTL))
    assert "client_open" in lancectl, "a program without symbols tells nothing"
    assert lancectl & engine == set()
