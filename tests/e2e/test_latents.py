"""Latents in and out of a real lanced with the demo model: encode, decode, and sampling from latents and in parts."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from demo.shapes import Scene, look
from lanced_client import BadRequest, Client, Event, Preview, Progress, Result

CIRCLE = Scene("circle", "red", "blue", "large", "left")
PROMPT = CIRCLE.caption()
SIZE: dict[str, Any] = {"width": 128, "height": 128}


def latents_of(result: Result) -> np.ndarray[Any, Any]:
    assert result.latents is not None
    return result.latents


def pixels_of(result: Result) -> np.ndarray[Any, Any]:
    assert result.pixels is not None
    return result.pixels


def test_a_picture_comes_back_from_its_latents(client: Client) -> None:
    picture = CIRCLE.frames(1, 128)
    latents = client.encode(picture)
    assert latents.shape == (1, 48, 1, 8, 8)
    assert latents.dtype == np.float32
    back = client.decode(latents)
    assert back.shape == (1, 1, 128, 128, 3)
    error = back[0].astype(float) - picture
    assert np.sqrt((error**2).mean()) < 20


def test_a_clip_comes_back_from_its_latents(client: Client) -> None:
    clip = Scene("square", "red", "white", "large", "left", motion="right").frames(9, 96)
    latents = client.encode(clip)
    assert latents.shape == (1, 48, 3, 6, 6)
    back = client.decode(latents)
    assert back.shape == (1, 9, 96, 96, 3)
    error = back[0].astype(float) - clip
    assert np.sqrt((error**2).mean()) < 30


def test_decode_gives_the_bytes_of_the_job_that_made_the_latents(client: Client) -> None:
    made = client.generate("t2i", prompt=PROMPT, seed=3, batch_size=2, num_inference_steps=4, **SIZE)
    assert np.array_equal(client.decode(latents_of(made)), pixels_of(made))


def test_full_strength_from_latents_is_the_plain_job(client: Client) -> None:
    plain = client.generate("t2i", prompt=PROMPT, seed=5, num_inference_steps=4, **SIZE)
    latents = client.encode(CIRCLE.frames(1, 128))
    started = client.generate("t2i", prompt=PROMPT, seed=5, num_inference_steps=4, latents=latents, denoise=1.0)
    assert np.array_equal(latents_of(started), latents_of(plain))
    assert np.array_equal(pixels_of(started), pixels_of(plain))


def test_steps_in_two_jobs_give_the_bytes_of_one(client: Client) -> None:
    request: dict[str, Any] = {"prompt": PROMPT, "seed": 5, "num_inference_steps": 6}
    whole = client.generate("t2i", **request, **SIZE)
    first = client.generate("t2i", **request, **SIZE, end_step=2, leftover_noise=True, decode=False)
    assert first.pixels is None
    assert first.latent_state is not None
    events: list[Event] = []
    second = client.generate(
        "t2i",
        on_event=events.append,
        **request,
        latents=first.latents,
        latent_state=first.latent_state,
        start_step=2,
        add_noise=False,
        preview=True,
    )
    assert second.latent_state is None
    assert np.array_equal(latents_of(second), latents_of(whole))
    assert np.array_equal(pixels_of(second), pixels_of(whole))
    steps = [event.step for event in events if isinstance(event, Progress) and event.stage == "denoise"]
    assert steps == [1, 2, 3, 4]
    assert sum(isinstance(event, Preview) for event in events) == 4


def test_a_low_strength_keeps_the_picture(client: Client) -> None:
    picture = CIRCLE.frames(1, 128)
    result = client.generate(
        "t2i",
        prompt="a large green square on a white ground",
        seed=1,
        num_inference_steps=4,
        denoise=0.1,
        latents=client.encode(picture),
    )
    assert look(pixels_of(result)[0, 0]).shape == "circle"
    assert result.receipt["params"]["denoise"] == 0.1


def test_a_mask_keeps_half_of_the_picture(client: Client) -> None:
    latents = client.encode(CIRCLE.frames(1, 128))
    mask = np.ones((1, 1, 1, 8, 8), np.float32)
    mask[..., :4, :] = 0
    made = latents_of(
        client.generate("t2i", prompt=PROMPT, latents=latents, latent_mask=mask, num_inference_steps=3, decode=False)
    )
    assert np.allclose(made[..., :4, :], latents[..., :4, :], rtol=1e-4, atol=1e-4)
    assert not np.allclose(made[..., 4:, :], latents[..., 4:, :], atol=0.1)


@pytest.mark.parametrize(
    ("task", "request_", "message"),
    [
        ("decode", {}, "latents are missing; task decode needs them"),
        ("decode", {"latents": np.zeros((1, 16, 1, 8, 8))}, "F32 [batch,48,latent frames,height/16,width/16]"),
        ("decode", {"latents": np.zeros((1, 48, 8, 8))}, 'tensor "latents": must be F32 [batch,48,'),
        ("decode", {"latents": np.full((1, 48, 1, 2, 2), np.nan)}, 'tensor "latents": value 0 of 192 is not finite'),
        ("decode", {"latents": np.full((1, 48, 1, 2, 2), np.inf)}, "is not finite"),
        ("encode", {}, "source is missing; task encode needs a picture or a video"),
        ("encode", {"source": np.zeros((8, 8, 3), np.uint8)}, "source height is 8; accepted are"),
        (
            "t2i",
            {"latents": np.zeros((1, 48, 2, 8, 8))},
            "latents are [1, 48, 2, 8, 8]; this job takes [1, 48, 1, 8, 8]",
        ),
        ("t2i", {"latents": np.zeros((1, 48, 1, 8, 8)), "width": 64, "height": 64}, "this job takes [1, 48, 1, 4, 4]"),
        ("t2i", {"latents": np.zeros((1, 48, 1, 8, 8)), "latent_mask": np.ones((1, 1, 1, 8, 4))}, "latent_mask are"),
        ("t2i", {"latents": np.zeros((1, 48, 1, 8, 8)), "latent_mask": np.ones((1, 1, 8, 8))}, "F32 [batch,1,latent"),
        ("t2i", {"start_step": 4, "end_step": 4}, "start_step is 4 and end_step is 4"),
        ("t2i", {"denoise": 0}, "denoise is 0; accepted are numbers from 0.0001 to 1"),
        ("t2i", {"add_noise": False}, "latents are missing; add_noise false needs them"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(
    client: Client, task: str, request_: dict[str, Any], message: str
) -> None:
    request: dict[str, Any] = {"prompt": PROMPT if task == "t2i" else None, **request_}
    with pytest.raises(BadRequest, match=re.escape(message)):
        client.submit(task, **request)
