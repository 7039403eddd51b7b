"""The demo's pixel reader: it has to be right about pictures whose content is known, or its counts mean nothing."""

from __future__ import annotations

import random

import numpy as np
import pytest

from demo.shapes import PLACES, Scene, look, motion_between, scene_of_caption

ATTRIBUTES = ("shape", "colour", "background", "size", "place")


def test_every_drawn_scene_is_read_back_right() -> None:
    rng = random.Random(1)
    for _ in range(300):
        scene = Scene.draw(rng)
        seen = look(scene.frames()[0])
        assert seen.matches(scene, *ATTRIBUTES), f"{scene} was read as {seen}"


def test_a_wrong_picture_is_not_taken_for_the_right_one() -> None:
    wanted = Scene("circle", "red", "blue", "large", "left")
    for name, value in {"colour": "green", "background": "white", "place": "right", "size": "small"}.items():
        seen = look(wanted.but(**{name: value}).frames()[0])
        assert [attribute for attribute in ATTRIBUTES if not seen.matches(wanted, attribute)] == [name]


def test_an_empty_picture_shows_no_shape() -> None:
    seen = look(np.full((128, 128, 3), 245, np.uint8))
    assert (seen.background, seen.shape, seen.colour, seen.place) == ("white", None, None, None)


def test_the_direction_of_a_clip_is_seen() -> None:
    rng = random.Random(2)
    for _ in range(20):
        scene = Scene.draw_crossing(rng)
        frames = scene.frames(9, 96)
        assert motion_between(look(frames[0]), look(frames[-1])) == scene.motion
        assert motion_between(look(frames[0]), look(frames[0])) is None


def test_a_caption_names_its_scene() -> None:
    rng = random.Random(3)
    for _ in range(50):
        caption = Scene.draw(rng).caption()
        assert scene_of_caption(caption).caption() == caption
    assert set(PLACES) >= {scene_of_caption("a small red square in the centre on a white background").place}


@pytest.mark.parametrize("text", ["", "a red fox in snow", "a huge red circle on the left on a blue background"])
def test_other_words_are_no_caption(text: str) -> None:
    with pytest.raises(ValueError, match="not a caption"):
        scene_of_caption(text)
