"""Good requests to a real lanced: what a client gets, and that it gets the same however it asks."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pynng
import pytest
from PIL import Image

from lanced_client import (
    BadRequest,
    Cancelled,
    CancelledEvent,
    Client,
    Done,
    NotFound,
    Preview,
    Progress,
    Queued,
    Started,
)
from lanced_client.digest import request_hash, result_digest
from lanced_client.latent_shape import LEAST_SOURCE_SIDE
from lanced_client.parameters import parameters
from lanced_client.wire import decode
from lanced_process import DEMO_AWQ, DEMO_MODEL, LONG_REQUEST, REQUEST, ROOT, Lanced


def test_hello_and_models_say_who_answers(client: Client) -> None:
    hello = client.hello()
    assert hello.version
    assert hello.limits["message_bytes"] > 1 << 20
    assert [model.name for model in client.models()] == ["lance-demo"]
    loaded = client.load("lance-demo")
    assert "t2i" in loaded.tasks
    assert len(loaded.hash) == 64
    assert client.hello().model == loaded


def test_the_message_in_the_protocols_description_is_understood(lanced: Lanced) -> None:
    description = (ROOT / "protocol/PROTOCOL.md").read_text()
    header = next(line.strip() for line in description.splitlines() if line.startswith('    {"__metadata__"'))
    assert f"the length, {len(header)}, and these {len(header)} bytes" in description
    with pynng.Req0(dial=lanced.endpoint, send_timeout=5000, recv_timeout=5000) as peer:
        peer.send(len(header).to_bytes(8, "little") + header.encode())
        assert decode(peer.recv())[0]["ok"] is True


def test_a_known_job_id_with_another_request_is_refused_and_the_same_request_is_a_repetition(client: Client) -> None:
    edit: dict[str, Any] = {
        "prompt": "make it red",
        "source": np.zeros((1, 64, 64, 3), np.uint8),
        "resolution": "64x64",
        "num_inference_steps": 2,
    }
    first = client.job("image_edit", **edit)
    first.submit()
    assert first.result().pixels is not None
    client.job("image_edit", job_id=first.id, preview=True, **edit).submit()
    others: list[tuple[str, dict[str, Any]]] = [
        ("image_edit", edit | {"prompt": "make it blue"}),
        ("image_edit", edit | {"seed": 7}),
        ("image_edit", edit | {"source": np.ones((1, 64, 64, 3), np.uint8)}),
        ("x2t_image", {"prompt": "make it red", "source": edit["source"], "resolution": "64x64"}),
    ]
    for task, request in others:
        with pytest.raises(BadRequest, match="is known with another request"):
            client.job(task, job_id=first.id, **request).submit()


def test_a_question_with_another_size_is_another_request(client: Client) -> None:
    source = np.zeros((1, 64, 64, 3), np.uint8)
    question: dict[str, Any] = {"prompt": "what is it?", "source": source, "max_new_tokens": 2}
    with client.submit("x2t_image", width=64, height=64, **question) as first:
        client.job("x2t_image", job_id=first.id, width=64, height=64, **question).submit()
        with pytest.raises(BadRequest, match="is known with another request"):
            client.job("x2t_image", job_id=first.id, width=128, height=64, **question).submit()


def test_a_receipt_has_the_digest_that_a_client_can_make_beforehand(client: Client) -> None:
    client.load()
    hello = client.hello()
    assert hello.model
    digests = set()
    source = np.arange(3 * 64 * 64, dtype=np.uint8).reshape(1, 64, 64, 3)
    edit: dict[str, Any] = {"prompt": "make it red", "num_inference_steps": 1, "resolution": "64x64"}
    for task, params, tensors in (
        ("t2i", REQUEST | {"num_inference_steps": 1}, {}),
        ("t2i", REQUEST | {"num_inference_steps": 1, "seed": 12}, {}),
        ("image_edit", edit, {"source": source}),
        ("image_edit", edit, {"source": source[:, ::-1]}),
    ):
        request = request_hash(task, params, tensors)
        digest = result_digest(request, hello.model.hash, hello.backend, hello.build)
        results = [client.generate(task, preview=preview, **params, **tensors) for preview in (False, True)]
        assert [result.receipt["digest"] for result in results] == [digest, digest]
        np.testing.assert_array_equal(results[0].pixels, results[1].pixels)
        digests.add(digest)
    assert len(digests) == 4


def test_sizes_batches_and_frames_go_as_far_as_the_table_says_and_no_further(client: Client) -> None:
    largest = {name: parameters()[name].maximum for name in ("width", "height", "batch_size", "num_frames")}
    step, source = parameters()["width"].multiple_of, np.zeros((1, 64, 64, 3), np.uint8)

    def is_taken(task: str, **params: Any) -> bool:
        try:
            client.submit(task, prompt="a red circle", **params).release()
        except BadRequest as refused:
            assert "accepted are" in str(refused)
            return False
        return True

    for name in ("width", "height"):
        size = {"width": step, "height": step, "num_inference_steps": 1}
        assert is_taken("t2i", **size | {name: largest[name]})
        assert not is_taken("t2i", **size | {name: largest[name] + step})
    assert is_taken("t2i", **size, batch_size=largest["batch_size"])
    assert not is_taken("t2i", **size, batch_size=largest["batch_size"] + 1)
    assert is_taken("t2v", **size, num_frames=largest["num_frames"])
    assert not is_taken("t2v", **size, num_frames=largest["num_frames"] + 1)
    lowest = -(-LEAST_SOURCE_SIDE // step) * step
    assert is_taken("image_edit", source=source, resolution=f"{lowest}x{largest['width']}")
    assert not is_taken("image_edit", source=source, resolution=f"{lowest}x{lowest - step}")


def test_a_job_tells_its_steps_in_order_and_leaves_pixels_latents_and_a_receipt(
    client: Client, expected: np.ndarray[Any, Any]
) -> None:
    with client.submit("t2i", preview=True, **REQUEST) as job:
        events = list(job.events())
        result = job.result()
    assert isinstance(events[0], Queued)
    assert any(isinstance(event, Started) for event in events)
    assert isinstance(events[-1], Done)
    denoise = [event for event in events if isinstance(event, Progress) and event.stage == "denoise"]
    assert [event.step for event in denoise] == [1, 2, 3, 4]
    assert {event.steps for event in denoise} == {4}
    totals = [event.total_step for event in events if isinstance(event, Progress)]
    assert totals == sorted(set(totals))
    previews = [event.pixels for event in events if isinstance(event, Preview)]
    assert len(previews) >= 1
    assert previews[-1] is not None
    assert previews[-1].shape == (1, 4, 4, 3)

    assert result.pixels is not None
    np.testing.assert_array_equal(result.pixels, expected)
    assert result.pixels.shape == (1, 1, 64, 64, 3)
    assert result.latents is not None
    assert result.latents.shape == (1, 48, 1, 4, 4)
    assert result.seed == 11
    assert result.receipt["prompt"] == REQUEST["prompt"]
    assert result.receipt["model"]["name"] == "lance-demo"
    assert {stage["stage"] for stage in result.receipt["stages"]} >= {"denoise", "decode"}
    with pytest.raises(NotFound):
        client.call("result", job=job.id)


def test_both_transports_give_the_same_bytes(lanced: Lanced, peer_factory: Any, expected: np.ndarray[Any, Any]) -> None:
    with lanced.client(peer_factory) as client:
        np.testing.assert_array_equal(client.generate("t2i", **REQUEST).pixels, expected)


def test_lancectl_gives_the_same_bytes(lanced: Lanced, expected: np.ndarray[Any, Any], tmp_path: Path) -> None:
    png = tmp_path / "a.png"
    done = lanced.lancectl("t2i", REQUEST["prompt"], "-o", str(png), "--seed", "11", "--steps", "4", "--size", "64x64")
    assert done.returncode == 0, done.stderr
    with Image.open(png) as image:
        np.testing.assert_array_equal(np.asarray(image), expected[0, 0])


def test_a_batch_is_the_pictures_of_the_following_seeds(client: Client, expected: np.ndarray[Any, Any]) -> None:
    batch = client.generate("t2i", batch_size=3, **(REQUEST | {"seed": 9})).pixels
    assert batch is not None
    assert batch.shape[0] == 3
    np.testing.assert_array_equal(batch[2], expected[0])
    assert (batch[0] != batch[1]).any()


def test_the_largest_seed_is_one_of_its_own(client: Client) -> None:
    largest = client.generate("t2i", **(REQUEST | {"seed": 2**64 - 1}))
    assert largest.seed == 2**64 - 1
    neighbour = client.generate("t2i", **(REQUEST | {"seed": 2**64 - 2}))
    assert largest.pixels is not None
    assert (largest.pixels != neighbour.pixels).any()


def test_noise_of_the_client_is_used(client: Client) -> None:
    noise = np.random.default_rng(1).standard_normal((1, 16, 48), dtype=np.float32)
    first = client.generate("t2i", noise=noise, **REQUEST)
    again = client.generate("t2i", noise=noise, **(REQUEST | {"seed": 999}))
    np.testing.assert_array_equal(first.pixels, again.pixels)
    other = client.generate("t2i", noise=noise + 1, **REQUEST)
    assert first.pixels is not None
    assert (first.pixels != other.pixels).any()


def test_without_decoding_there_are_latents_only(client: Client) -> None:
    result = client.generate("t2i", decode=False, **REQUEST)
    assert result.pixels is None
    assert result.latents is not None


def test_two_clients_at_once_get_their_own_pictures(lanced: Lanced, expected: np.ndarray[Any, Any]) -> None:
    pictures: dict[int, Any] = {}

    def work(seed: int) -> None:
        with lanced.client() as client:
            pictures[seed] = [client.generate("t2i", **(REQUEST | {"seed": seed})).pixels for _ in range(3)]

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (11, 12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for pixels in pictures[11]:
        np.testing.assert_array_equal(pixels, expected)
    for pixels in pictures[12]:
        assert (pixels != expected).any()
        np.testing.assert_array_equal(pixels, pictures[12][0])


def test_requests_are_answered_at_once_while_a_job_runs(lanced: Lanced, client: Client) -> None:
    with client.submit("t2i", **LONG_REQUEST) as job:
        while not any(isinstance(event, Progress) for event in job.poll(1)):
            pass
        with lanced.client() as other:
            other.hello()
            times = []
            for _ in range(20):
                started = time.monotonic()
                other.stats()
                times.append(time.monotonic() - started)
    assert sorted(times)[10] < 0.02  # the median: the machine may be busy with other things


def test_a_submission_that_is_repeated_starts_one_job(client: Client, expected: np.ndarray[Any, Any]) -> None:
    before = client.stats()["jobs"]["submitted"]
    first = client.submit("t2i", job_id="the-same", **REQUEST)
    second = client.submit("t2i", job_id="the-same", **REQUEST)
    np.testing.assert_array_equal(first.result().pixels, expected)
    np.testing.assert_array_equal(second.result().pixels, expected)
    assert client.stats()["jobs"]["submitted"] == before + 1
    first.release()


def test_a_client_that_comes_late_gets_every_event_and_the_result(
    lanced: Lanced, client: Client, expected: np.ndarray[Any, Any]
) -> None:
    job = client.submit("t2i", **REQUEST)
    seen = list(job.events())
    with lanced.client() as late:
        same = late.submit("t2i", job_id=job.id, **REQUEST)
        assert list(same.events()) == seen
        np.testing.assert_array_equal(same.result().pixels, expected)
    job.release()


def test_a_cancel_ends_a_running_job_within_a_step(client: Client, expected: np.ndarray[Any, Any]) -> None:
    job = client.submit("t2i", **LONG_REQUEST)
    step_seconds = 0.0
    while not step_seconds:
        steps = [e for e in job.poll(1) if isinstance(e, Progress) and e.stage == "denoise"]
        step_seconds = max((e.step_seconds or 0.0 for e in steps), default=0.0)
    started = time.monotonic()
    job.cancel()
    events = list(job.events())
    assert isinstance(events[-1], CancelledEvent)
    assert time.monotonic() - started < 5 * step_seconds + 0.5
    with pytest.raises(Cancelled):
        job.result()
    assert job.cancel() == "cancelled"  # harmless
    job.release()
    np.testing.assert_array_equal(client.generate("t2i", **REQUEST).pixels, expected)


def test_a_job_that_waits_is_cancelled_at_once(client: Client) -> None:
    with client.submit("t2i", **LONG_REQUEST), client.submit("t2i", **REQUEST) as waiting:
        waiting.cancel()
        assert isinstance(list(waiting.events())[-1], CancelledEvent)


def test_a_client_that_leaves_its_block_early_leaves_nothing_running(client: Client) -> None:
    with client.submit("t2i", **LONG_REQUEST) as job:
        job.poll(1)
    deadline = time.monotonic() + 10
    while client.stats()["jobs"]["running"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert client.stats()["jobs"]["running"] == 0


def test_another_prompt_loads_no_weights(client: Client) -> None:
    client.generate("t2i", **REQUEST)
    before = client.stats()["loads"]
    client.generate("t2i", **(REQUEST | {"prompt": "a small green square at the top on a white background"}))
    assert client.stats()["loads"] == before


def test_models_are_loaded_by_name_one_at_a_time() -> None:
    with Lanced(models=(DEMO_MODEL, DEMO_AWQ)) as daemon, daemon.client() as client:
        exact = client.generate("t2i", model="lance-demo", **REQUEST)
        assert client.stats()["model"]["name"] == "lance-demo"
        coarse = client.generate("t2i", model="lance-demo-awq", **REQUEST)
        loaded = client.stats()["model"]
        assert loaded["name"] == "lance-demo-awq"
        assert exact.pixels is not None
        assert coarse.pixels is not None
        assert (exact.pixels != coarse.pixels).any()
        again = client.generate("t2i", model="lance-demo", **REQUEST)
        np.testing.assert_array_equal(exact.pixels, again.pixels)
        assert client.unload()
        assert client.hello().model is None
        np.testing.assert_array_equal(client.generate("t2i", **REQUEST).pixels, exact.pixels)


def test_tcp_on_the_loopback_works_as_ipc_does(expected: np.ndarray[Any, Any], peer_factory: Any) -> None:
    port = 20000 + time.time_ns() // 1000 % 20000
    with Lanced(endpoint=f"tcp://127.0.0.1:{port}") as daemon, daemon.client(peer_factory) as client:
        np.testing.assert_array_equal(client.generate("t2i", **REQUEST).pixels, expected)
