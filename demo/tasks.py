"""Asks a daemon for examples of any task, at the sizes and with the sampler settings the demo model was trained for."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from demo.examples import QUESTION_TASKS, Example, is_clip, shoot
from demo.progress_bar import ProgressBar
from demo.score import Marks, judge_answer, judge_frames
from demo.shapes import Pixels
from demo.torch_noise import evaluation_noise
from lanced_client import Client, Progress, Result

Sizes = dict[str, Any]  # demo.json of the model


@dataclass
class Outcome:
    example: Example
    job: str
    before: Pixels | None  # the source [frames, height, width, 3]
    frames: Pixels | None  # what came out; None of a question
    text: str  # the answer
    marks: Marks
    mistakes: list[str]
    seconds: float

    @property
    def right(self) -> bool:
        return all(self.marks.values())


@dataclass(frozen=True)
class Order:
    """One example and where its noise comes from: a seed of its own, or its place in the training's evaluation."""

    example: Example
    seed: int
    place: int | None = field(default=None)


def orders(examples: Sequence[Example], seed: int) -> list[Order]:
    """The examples of a task with the noise that the evaluation gives them."""
    return [Order(example, seed, place) for place, example in enumerate(examples)]


def parameters(order: Order, sizes: Sizes) -> dict[str, Any]:
    """What `Client.submit` is given beside the task."""
    example, sampler = order.example, sizes["sampler"]
    task = example.task
    size = sizes["video" if is_clip(task) else "image"]
    height, width = size["height"], size["width"]
    params: dict[str, Any] = {"prompt": example.prompt}
    if example.source is not None:
        source = shoot(task, example.source)
        params["source"] = source[:1] if task == "i2v" else source
        if is_clip(task) and task != "i2v":
            params["fps"] = size["fps"]
        params["resolution"] = f"{height}x{width}/{size['vit']}x{size['vit']}"
    if task in QUESTION_TASKS:
        return params
    params |= {
        "num_inference_steps": sampler["steps"],
        "timestep_shift": sampler["shift"],
        "guidance_scale": sampler["cfg"],
        "guidance_interval": sampler["cfg_interval"],
        "guidance_renorm": sampler["cfg_renorm"],
    }
    frames = size.get("frames", 1)
    if example.source is None:
        params |= {"width": width, "height": height}
    if task in ("t2v", "i2v"):
        params["num_frames"] = frames
    if order.place is None:
        params["seed"] = order.seed
    else:
        tokens = (1 + (frames - 1) // 4) * (height // 16) * (width // 16)
        params["noise"] = evaluation_noise(order.seed, order.place, tokens)
    return params


def ask(client: Client, order: Order, sizes: Sizes, on_progress: Callable[[float], object], keep: bool) -> Outcome:
    """One example. With `keep` the daemon is not told to forget the job, so that lancectl can fetch it as a file."""
    example = order.example
    started = time.monotonic()
    job = client.submit(example.task, job_id=uuid.uuid4().hex, **parameters(order, sizes))
    try:
        for event in job.events():
            if isinstance(event, Progress) and event.total_steps:
                on_progress(event.total_step / event.total_steps)
        result = job.result()
    except BaseException:
        keep = False
        raise
    finally:
        if not keep:
            job.release()
    return outcome_of(example, job.id, result, time.monotonic() - started)


def outcome_of(example: Example, job: str, result: Result, seconds: float) -> Outcome:
    before = None if example.source is None else shoot(example.task, example.source)
    if example.task in QUESTION_TASKS:
        marks, mistakes = judge_answer(example, result.text)
        return Outcome(example, job, before, None, result.text, marks, mistakes, seconds)
    assert result.pixels is not None
    frames: Pixels = np.asarray(result.pixels[0])
    marks, mistakes = judge_frames(example, frames)
    return Outcome(example, job, before, frames, "", marks, mistakes, seconds)


def ask_all(client: Client, asked: Sequence[Order], sizes: Sizes, keep_clips: bool = False) -> dict[str, list[Outcome]]:
    """One after the other, with a progress bar; the outcomes by task, in the order of asking."""
    bar = ProgressBar(len(asked))
    outcomes: dict[str, list[Outcome]] = {}
    for number, order in enumerate(asked):
        example = order.example
        title = f"{example.task}: {example.prompt}"

        def show(part: float, number: int = number, title: str = title) -> None:
            bar.show(number, part, title)

        keep = keep_clips and is_clip(example.task) and example.task not in QUESTION_TASKS
        outcome = ask(client, order, sizes, show, keep)
        outcomes.setdefault(example.task, []).append(outcome)
        bar.finished(number + 1, outcome.seconds, f"{title} {outcome.text}".rstrip())
    return outcomes
