"""What every task is asked when the model is scored: prompts, sources, and the scenes that should come out.

The draws come from Python's own generator, so a seed gives the same examples wherever they are asked: here, and in the
training's evaluation with PyTorch. numpy only.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from demo.shapes import CANVAS, Pixels, Scene
from demo.train.world import (
    CLIP_FRAMES,
    CLIP_SIDE,
    IMAGE_EDITS,
    IMAGE_QUESTIONS,
    VIDEO_EDITS,
    VIDEO_QUESTIONS,
    draw_edit,
)

GENERATION_TASKS = ("t2i", "image_edit", "t2v", "i2v", "video_edit")
QUESTION_TASKS = ("x2t_image", "x2t_video")
TASKS = GENERATION_TASKS + QUESTION_TASKS


def is_clip(task: str) -> bool:
    return task in ("t2v", "i2v", "video_edit", "x2t_video")


def shoot(task: str, scene: Scene) -> Pixels:
    """A scene as a task's picture or clip: [frames, height, width, 3]"""
    return scene.frames(CLIP_FRAMES, CLIP_SIDE) if is_clip(task) else scene.frames(1, CANVAS)


@dataclass(frozen=True)
class Example:
    task: str
    prompt: str  # or the question
    wanted: Scene  # what should come out; of a question, what is shown
    source: Scene | None = None
    kind: str = ""  # of edit, or what is asked about


def generation_example(task: str, index: int, rng: random.Random) -> Example:
    if task == "t2i":
        scene = Scene.draw(rng)
        return Example(task, scene.caption(), scene)
    if task == "t2v":
        scene = Scene.draw_crossing(rng)
        return Example(task, scene.clip_caption(), scene)
    if task == "i2v":
        scene = Scene.draw_departure(rng)
        return Example(task, f"the {scene.shape} moves {scene.motion}", scene, scene)
    source = Scene.draw_crossing(rng) if is_clip(task) else Scene.draw(rng)
    kinds = VIDEO_EDITS if is_clip(task) else IMAGE_EDITS
    kind = kinds[index % len(kinds)]
    edit = draw_edit(source, rng, kind)
    return Example(task, edit.instruction, edit.target, source, kind)


def question_example(task: str, index: int, rng: random.Random) -> Example:
    table = VIDEO_QUESTIONS if is_clip(task) else IMAGE_QUESTIONS
    topic = list(table)[index % len(table)]
    scene = Scene.draw_crossing(rng) if is_clip(task) else Scene.draw(rng)
    return Example(task, rng.choice(table[topic]), scene, scene, topic)


def examples(task: str, count: int, rng: random.Random) -> list[Example]:
    """Kinds of edits and topics of questions take turns. Fewer examples are the first ones of more."""
    draw = question_example if task in QUESTION_TASKS else generation_example
    return [draw(task, index, rng) for index in range(count)]
