"""The choice of frames and sizes of a clip, against the official rule as numpy computes it."""

from __future__ import annotations

import numpy as np
import pytest

from lanced_client.sampling import fitting_size, largest_source_bytes, sampled_frames


def official(count: int, fps: float) -> list[int]:
    """What the official sampler does: a whole rate, at most six seconds, twelve frames of each, then 4n + 1."""
    seconds = min(count / round(fps), 6.0)
    frames = round(seconds * 12.0)
    frames = frames - 3 if frames % 4 == 0 else frames // 4 * 4 + 1
    return [int(index) for index in np.linspace(0, count - 1, frames, dtype=int)]


@pytest.mark.parametrize("fps", [1, 8, 12, 15, 23.976, 24, 25, 29.97, 30, 59.94, 60, 120])
@pytest.mark.parametrize("count", [10, 13, 48, 49, 69, 73, 121, 300, 301, 1799, 5000])
def test_the_frames_are_the_official_samplers(count: int, fps: float) -> None:
    frames = sampled_frames(count, fps)
    if len(frames) > 1:
        assert frames == official(count, fps)
    assert len(frames) % 4 == 1
    assert len(frames) <= 69


@pytest.mark.parametrize("count", range(1, 70, 4))
def test_what_was_sampled_is_taken_whole_when_it_is_called_12_a_second(count: int) -> None:
    assert sampled_frames(count, 12.0) == list(range(count))


def test_a_clip_shorter_than_a_sampling_step_gives_its_first_frame() -> None:
    assert sampled_frames(1, 60.0) == [0]
    assert sampled_frames(3, 0.5)[0] == 0


@pytest.mark.parametrize(("count", "fps"), [(0, 12.0), (10, 0.0), (10, 1000.1), (10, float("nan"))])
def test_no_frames_or_a_rate_that_the_daemon_refuses_is_refused(count: int, fps: float) -> None:
    with pytest.raises(ValueError, match="the clip has"):
        sampled_frames(count, fps)


def test_frames_that_would_not_fit_into_a_request_are_made_smaller() -> None:
    most_bytes = largest_source_bytes(256 << 20)
    assert fitting_size(69, 360, 640, most_bytes) == (360, 640)
    height, width = fitting_size(69, 1080, 1920, most_bytes)
    assert 3 * 69 * height * width <= most_bytes
    assert (height, width) == (826, 1470)
    with pytest.raises(ValueError, match="cannot be made to fit"):
        fitting_size(69, 1, 8192, 100)
