"""What lanced keeps between jobs, what it refuses for want of memory, and how fast it stops."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lanced_client import Busy, Cancelled, Client, Progress, TooLarge
from lanced_process import LONG_REQUEST, REQUEST, SLOWER, Lanced

LARGEST_VIDEO = REQUEST | {"width": 848, "height": 480, "num_frames": 121}


def stages(client: Client, picture: np.ndarray[Any, Any], question: str) -> list[str]:
    with client.submit("x2t_image", prompt=question, width=128, height=128, max_new_tokens=8, source=picture) as job:
        seen = [event.stage for event in job.events() if isinstance(event, Progress)]
    return list(dict.fromkeys(seen))


def test_a_second_question_about_a_picture_runs_no_vit_and_stats_count_it(client: Client) -> None:
    picture = np.random.default_rng(5).integers(0, 256, (1, 96, 96, 3), dtype=np.uint8)
    first = stages(client, picture, "What colour is it?")
    before = client.stats()["prefix_cache"]
    assert "vit" in first
    second = stages(client, picture, "Where is it?")
    after = client.stats()["prefix_cache"]
    assert "vit" not in second
    assert "prefix" in second
    assert after["hits"] - before["hits"] == 2
    assert after["misses"] - before["misses"] == 1
    assert 0 < after["bytes"] <= after["limit_bytes"]


def test_unloading_the_model_drops_what_was_kept() -> None:
    with Lanced() as daemon, daemon.client() as client:
        client.generate("t2i", **REQUEST)
        assert client.stats()["prefix_cache"]["blocks"] > 0
        client.unload()
        assert client.stats()["prefix_cache"]["blocks"] == 0
        client.generate("t2i", **REQUEST)
        assert client.stats()["prefix_cache"]["hits"] == 0


def test_an_idle_daemon_gives_its_memory_back_and_works_again() -> None:
    with Lanced("--idle-unload", "1") as daemon, daemon.client() as client:
        first = client.generate("t2i", **REQUEST).pixels
        assert first is not None
        memory = client.stats()["memory"]
        assert memory["weight_bytes"] > 0
        assert memory["prefix_bytes"] > 0
        assert memory["held_bytes"] == memory["weight_bytes"] + memory["prefix_bytes"] + memory["job_bytes"]
        resident = memory["resident_bytes"]
        deadline = time.monotonic() + 10
        while client.hello().model is not None and time.monotonic() < deadline:
            time.sleep(0.05)
        memory = client.stats()["memory"]
        assert (memory["held_bytes"], memory["weight_bytes"], memory["prefix_bytes"]) == (0, 0, 0)
        assert memory["resident_bytes"] < resident
        again = client.generate("t2i", **REQUEST).pixels
        assert again is not None
        assert np.array_equal(again, first)


def test_unloading_while_jobs_run_and_wait_frees_the_memory_between_them() -> None:
    with Lanced() as daemon, daemon.client() as client:
        client.load()
        long = REQUEST | {"width": 128, "height": 128, "num_inference_steps": 60}
        with client.submit("t2i", **long) as running, client.submit("t2i", **REQUEST) as waiting:
            while not any(isinstance(event, Progress) and event.stage == "denoise" for event in running.poll(1.0)):
                pass
            assert client.stats()["memory"]["job_bytes"] > 0
            assert client.unload()
            assert client.stats()["unloads"] == 0
            running.result()
            assert waiting.result().receipt["load_seconds"] is not None
        stats = client.stats()
        assert (stats["unloads"], stats["loads"]) == (1, 2)
        assert stats["memory"]["job_bytes"] == 0


def test_without_a_prefix_cache_every_job_begins_anew() -> None:
    with Lanced("--prefix-cache", "0") as daemon, daemon.client() as client:
        for _ in range(2):
            client.generate("t2i", **REQUEST)
        counts = client.stats()["prefix_cache"]
        assert (counts["hits"], counts["blocks"], counts["bytes"]) == (0, 0, 0)


def test_a_video_that_cannot_fit_is_refused_at_once_with_the_numbers() -> None:
    with Lanced("--memory", "100M") as daemon, daemon.client() as client:
        client.load()
        with pytest.raises(TooLarge, match=r"needs \d+\.\d MB of memory beside the weights; the limit is 104\.9 MB"):
            client.submit("t2v", **LARGEST_VIDEO)
        assert client.stats()["memory"]["job_limit_bytes"] == 100 << 20
        client.generate("t2i", **REQUEST)


def test_requests_that_wait_take_only_the_memory_they_are_allowed() -> None:
    """Each has 16 MB of video. What does not fit is refused with the numbers, and taken again when there is room."""
    video = np.zeros((64, 256, 341, 3), np.uint8)
    edit: dict[str, Any] = {"prompt": "turn it into night", "source": video, "fps": 12.0, "resolution": "64x64"}
    with Lanced("--queue-bytes", "60M") as daemon, daemon.client() as client:
        client.generate("t2i", **REQUEST)
        before = client.stats()["memory"]
        assert client.hello().limits["queue_bytes"] == 60 << 20
        with client.submit("t2i", **LONG_REQUEST) as running:
            waiting = []
            for _ in range(12):
                with contextlib.suppress(Busy):
                    waiting.append(client.submit("video_edit", **edit))
            assert len(waiting) == 3
            with pytest.raises(Busy, match=r"takes 16\.8 MB, .* before it 50\.3 MB; together 62\.9 MB are allowed"):
                client.submit("video_edit", **edit)
            memory = client.stats()["memory"]
            assert 3 * video.nbytes < memory["queue_bytes"] <= 60 << 20
            if SLOWER == 1:  # sanitizers keep for a while what is freed
                assert memory["resident_bytes"] - before["resident_bytes"] < 160 << 20
            client.submit("t2i", **REQUEST).release()  # small ones still find room
            waiting.pop().release()
            waiting.append(client.submit("video_edit", **edit))
            for job in (*waiting, running):
                job.release()
        deadline = time.monotonic() + 10
        while client.stats()["memory"]["queue_bytes"] > 0:  # until the running job has ended its step
            assert time.monotonic() < deadline
        client.generate("t2i", **REQUEST)


def test_the_limit_comes_from_the_machine_unless_it_is_given(client: Client) -> None:
    client.load()
    limit = client.stats()["memory"]["job_limit_bytes"]
    total = int(Path("/proc/meminfo").read_text(encoding="ascii").split()[1]) << 10
    assert 64 << 20 <= limit < total


def test_a_cancel_does_not_wait_for_the_step() -> None:
    """One step of the largest video takes minutes."""
    with Lanced() as daemon, daemon.client() as client:
        with client.submit("t2v", **LARGEST_VIDEO) as job:
            for event in job.events():
                if isinstance(event, Progress) and event.stage == "prefix" and event.step == event.steps:
                    break
            time.sleep(1)
            began = time.monotonic()
            client.cancel(job.id)
            with pytest.raises(Cancelled):
                job.result()
            assert time.monotonic() - began < 10
        client.generate("t2i", **REQUEST)
