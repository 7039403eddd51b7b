"""Judging what came out of a task, and counting it up: which of the asked colours, places, answers are right."""

from __future__ import annotations

import math
from collections.abc import Sequence

from demo.examples import Example, is_clip
from demo.shapes import Pixels, look, motion_between
from demo.train.world import answer

Marks = dict[str, bool]  # of one item: attribute or topic, and whether it is right

PICTURE_ATTRIBUTES = ("colour", "background", "size", "place", "shape")
CLIP_ATTRIBUTES = ("colour", "background", "size", "shape")
# The columns of the tables. Only clips have a motion, only pictures a place.
ATTRIBUTES = ("colour", "background", "size", "place", "motion", "shape")


def judge_frames(example: Example, frames: Pixels) -> tuple[Marks, list[str]]:
    """frames [frames, height, width, 3] against the scene that should be there, and in words what is wrong. A clip is
    read in its middle frame, and its motion between the first and the last."""
    clip = is_clip(example.task)
    seen = look(frames[len(frames) // 2])
    marks, mistakes = {}, []
    for name in CLIP_ATTRIBUTES if clip else PICTURE_ATTRIBUTES:
        marks[name] = seen.matches(example.wanted, name)
        if not marks[name]:
            mistakes.append(f"{name} looks like {getattr(seen, name) or 'none'}")
    if clip:
        motion = motion_between(look(frames[0]), look(frames[-1]))
        marks["motion"] = motion == example.wanted.motion
        if not marks["motion"]:
            mistakes.append(f"moves {motion or 'hardly'}")
    return marks, mistakes


def judge_answer(example: Example, text: str) -> tuple[Marks, list[str]]:
    expected = answer(example.wanted, example.kind)
    right = text == expected
    return {example.kind: right}, [] if right else [f"it is: {expected}"]


def share(values: Sequence[bool]) -> float:
    """In percent."""
    return 100 * sum(values) / len(values)


def standard_error(percent: float, count: int) -> float:
    """Of a share of independent items, in points; with Laplace's estimate, so that 100 % of a few is not certainty."""
    p = (percent / 100 * count + 1) / (count + 2)
    return 100 * math.sqrt(p * (1 - p) / count)


class Tally:
    """The marks of the items of one task."""

    def __init__(self, rows: Sequence[Marks]) -> None:
        self.rows = list(rows)

    @property
    def count(self) -> int:
        return len(self.rows)

    def names(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def right(self, name: str) -> tuple[int, int]:
        """How many items have this right, of how many that were asked for it."""
        marks = [row[name] for row in self.rows if name in row]
        return sum(marks), len(marks)

    def all_right(self) -> int:
        return sum(all(row.values()) for row in self.rows)

    def percent(self) -> dict[str, float]:
        """Per attribute or topic; "asked": of everything asked for; "all": of the items with everything right."""
        result = {name: share([row[name] for row in self.rows if name in row]) for name in self.names()}
        result["asked"] = share([mark for row in self.rows for mark in row.values()])
        result["all"] = share([all(row.values()) for row in self.rows])
        return result
