"""All seven tasks of a real lanced with the demo model through the Python client: what goes in and what comes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from demo.shapes import Scene, look
from lanced_client import BadRequest, Client, Event, LanceError, Preview, Progress, Result, Text

CIRCLE = Scene("circle", "red", "blue", "large", "left")
MOVING = Scene("square", "red", "white", "large", "left", motion="right")
FPS = 12.0
CLIP: dict[str, Any] = {"num_frames": 9, "seed": 42}


def run(client: Client, task: str, **request: Any) -> tuple[Result, list[Event]]:
    events: list[Event] = []
    return client.generate(task, on_event=events.append, **request), events


def stages(events: list[Event]) -> list[str]:
    """The stages in their order, each once."""
    return list(dict.fromkeys(event.stage for event in events if isinstance(event, Progress)))


def pixels(result: Result) -> np.ndarray[Any, Any]:
    assert result.pixels is not None
    return result.pixels


def test_a_question_about_a_picture_is_answered_in_pieces_that_make_up_the_answer(client: Client) -> None:
    result, events = run(
        client, "x2t_image", prompt="Describe the image.", source=CIRCLE.frames(), resolution="128x128"
    )
    assert result.text == CIRCLE.caption()
    assert "".join(event.text for event in events if isinstance(event, Text)) == result.text
    assert "text" in stages(events)
    assert result.pixels is None
    assert result.token_ids is not None
    assert result.token_ids.ndim == 1


def test_a_question_about_a_clip_is_answered(client: Client) -> None:
    clip = MOVING.frames(9, 96)
    question = "Which way does the shape move?"
    result, _ = run(client, "x2t_video", prompt=question, source=clip, fps=FPS, resolution="112x112")
    assert result.text == "from left to right"
    backwards, _ = run(client, "x2t_video", prompt=question, source=clip[::-1], fps=FPS, resolution="112x112")
    assert backwards.text == "from right to left"


def test_a_picture_may_come_without_the_axis_of_frames(client: Client) -> None:
    request = {"prompt": "What shape is it?", "resolution": "128x128"}
    four, _ = run(client, "x2t_image", source=CIRCLE.frames(), **request)
    three, _ = run(client, "x2t_image", source=CIRCLE.frames()[0], **request)
    assert four.text == three.text == "circle"


def test_an_edit_changes_what_it_is_asked_to_and_keeps_the_rest(client: Client) -> None:
    request = {
        "prompt": "change the background to yellow",
        "source": CIRCLE.frames(),
        "resolution": "128x128",
        "seed": 42,
    }
    result, events = run(client, "image_edit", **request)
    assert pixels(result).shape == (1, 1, 128, 128, 3)
    assert result.latents is not None
    assert result.latents.shape == (1, 48, 1, 8, 8)
    got = look(pixels(result)[0, 0])
    assert (got.background, got.colour, got.place) == ("yellow", "red", "left")
    assert {"prepare", "vit", "encode", "prefix", "denoise", "decode"} >= set(stages(events))
    assert set(stages(events)) >= {"prepare", "denoise", "decode"}


def test_a_clip_from_a_prompt_moves_as_asked_and_its_previews_have_frames(client: Client) -> None:
    prompt = "a small green triangle moves from left to right on a white background"
    result, events = run(client, "t2v", prompt=prompt, width=96, height=96, preview=True, **CLIP)
    assert pixels(result).shape == (1, 9, 96, 96, 3)
    assert (result.frames, result.fps) == (9, FPS)
    first, last = (look(pixels(result)[0, index]) for index in (0, -1))
    assert (first.colour, first.background, first.place, last.place) == ("green", "white", "left", "right")
    previews = [event.pixels for event in events if isinstance(event, Preview) and event.pixels is not None]
    assert previews[-1].shape == (3, 6, 6, 3), "one frame per latent frame, one pixel per latent cell"


def test_a_clip_from_a_picture_begins_with_it(client: Client) -> None:
    source = MOVING.frames(9, 96)[:1]
    result, _ = run(client, "i2v", prompt="the square moves right", source=source, resolution="96x96", **CLIP)
    assert pixels(result).shape == (1, 9, 96, 96, 3)
    difference = np.abs(pixels(result)[0, 0].astype(int) - source[0].astype(int)).mean()
    assert difference < 10, "the first frame is the source, but for the VAE"
    assert look(pixels(result)[0, -1]).place == "right"


def test_an_edited_clip_moves_on(client: Client) -> None:
    source = MOVING.frames(9, 96)
    request = {"prompt": "change the background to yellow", "source": source, "fps": FPS, "resolution": "96x96"}
    result, _ = run(client, "video_edit", seed=42, **request)
    assert pixels(result).shape == (1, 9, 96, 96, 3)
    first, last = (look(pixels(result)[0, index]) for index in (0, -1))
    assert (first.background, first.colour, first.place, last.place) == ("yellow", "red", "left", "right")


def test_the_source_seed_counts_and_the_mean_needs_none(client: Client) -> None:
    request = {"prompt": "make the circle green", "source": CIRCLE.frames(), "resolution": "128x128", "seed": 1}
    first, second = (
        pixels(run(client, "image_edit", source_seed=seed, **request)[0]) for seed in (2025, 18446744073709551615)
    )
    assert (first != second).any()
    means = [
        pixels(run(client, "image_edit", source_seed=seed, source_latent_mean=True, **request)[0]) for seed in (1, 2)
    ]
    np.testing.assert_array_equal(means[0], means[1])


def test_every_parameter_of_an_answer_is_used_and_told_in_the_receipt(client: Client) -> None:
    chosen = {"max_new_tokens": 3, "temperature": 0.7, "top_k": 5, "top_p": 0.9, "repetition_penalty": 1.1}
    request = {"prompt": "Describe the image.", "source": CIRCLE.frames(), "resolution": "128x128", "seed": 5}
    result, _ = run(client, "x2t_image", **request, **chosen)
    assert result.token_ids is not None
    assert len(result.token_ids) <= 3
    assert {name: result.receipt["params"][name] for name in chosen} == pytest.approx(chosen)
    again, _ = run(client, "x2t_image", **request, **chosen)
    assert again.text == result.text, "the same seed gives the same answer"


def test_a_source_of_floats_is_refused_before_it_is_sent(client: Client) -> None:
    with pytest.raises(BadRequest, match="source.*uint8.*float"):
        client.submit("image_edit", prompt="make it red", source=CIRCLE.frames() / 255)


@pytest.mark.parametrize(
    ("task", "request_", "words"),
    [
        ("x2t_image", {}, "source is missing; task x2t_image needs a picture"),
        ("video_edit", {"source": MOVING.frames(9, 96)}, "fps of the source"),
        ("t2i", {"source": CIRCLE.frames()}, "source is given"),
        ("image_edit", {"source": CIRCLE.frames(), "resolution": "huge"}, 'resolution "huge" is not known'),
        ("x2t_image", {"source": np.zeros((1, 8, 8, 4), np.uint8)}, "frames,height,width,3"),
        ("x2t_video", {"source": np.zeros((0, 8, 8, 3), np.uint8), "fps": FPS}, "source"),
    ],
)
def test_a_bad_source_is_named_with_what_is_accepted(
    client: Client, task: str, request_: dict[str, Any], words: str
) -> None:
    with pytest.raises(LanceError, match=".") as refused:
        client.generate(task, prompt="make it red", **request_)
    assert words in str(refused.value)
    assert client.hello().model is not None, "the daemon lives on"
