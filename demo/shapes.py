"""The world the demo model knows: one coloured shape on a plain background; in clips it moves across.

Draws scenes, puts them into words, and reads a picture back into words with pixel statistics, so that it can be
counted how many pictures show what was asked for. numpy only: the demo and the tests use it as well as the training.
"""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

SHAPES = ("circle", "square", "triangle")
COLOURS = {"red": (220, 40, 40), "green": (40, 170, 60), "blue": (40, 80, 220), "yellow": (240, 210, 40),
           "purple": (140, 50, 180), "white": (245, 245, 245), "black": (15, 15, 15)}
COLOUR_NAMES = tuple(COLOURS)
RGB = np.array(list(COLOURS.values()), np.float32)
# Lengths are in pixels of a canvas of 128; other sizes scale.
CANVAS = 128
RADIUS = {"small": 19.0, "large": 33.0}
SIZES = tuple(RADIUS)
PLACES = {"left": (-28, 0), "right": (28, 0), "top": (0, -28), "bottom": (0, 28), "centre": (0, 0)}
MOTIONS = {"right": ("left", "right"), "left": ("right", "left"), "down": ("top", "bottom"), "up": ("bottom", "top")}


@dataclass(frozen=True)
class Scene:
    """One shape on a plain background. With `motion` it moves to that side, from wherever `place` is."""

    shape: str
    colour: str
    background: str
    size: str
    place: str
    motion: str | None = None
    jitter: tuple[float, float, float] = (0.0, 0.0, 0.0)  # x, y and radius, pixels of the canvas

    @staticmethod
    def draw(rng: random.Random) -> Scene:
        shape = rng.choice(SHAPES)
        colour = rng.choice(COLOUR_NAMES)
        background = rng.choice([name for name in COLOUR_NAMES if name != colour])
        size = rng.choice(SIZES)
        place = rng.choice(list(PLACES))
        jitter = rng.uniform(-2, 2), rng.uniform(-2, 2), rng.uniform(-1.5, 1.5)
        return Scene(shape, colour, background, size, place, jitter=jitter)

    @staticmethod
    def draw_crossing(rng: random.Random) -> Scene:
        """A clip in which the shape moves from one side to the opposite one."""
        motion = rng.choice(list(MOTIONS))
        return Scene.draw(rng).but(place=MOTIONS[motion][0], motion=motion)

    @staticmethod
    def draw_departure(rng: random.Random) -> Scene:
        """A clip in which the shape moves from anywhere to a side where it is not yet."""
        scene = Scene.draw(rng)
        return scene.but(motion=rng.choice([m for m in MOTIONS if MOTIONS[m][1] != scene.place]))

    def but(self, **changes: str) -> Scene:
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def offsets(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Where the centre of the shape is in the first and in the last frame, from the centre of the canvas."""
        x, y = PLACES[self.place]
        jitter_x, jitter_y, _ = self.jitter
        first = x + jitter_x, y + jitter_y
        if self.motion is None:
            return first, first
        to_x, to_y = PLACES[MOTIONS[self.motion][1]]
        return first, ((to_x + jitter_x, first[1]) if to_x else (first[0], to_y + jitter_y))

    def frames(self, count: int = 1, side: int = CANVAS) -> Pixels:
        """The scene drawn with soft edges: [count, side, side, 3]."""
        scale = side / CANVAS
        (x0, y0), (x1, y1) = self.offsets()
        time = (np.linspace(0, 1, count, dtype=np.float32) if count > 1 else np.zeros(1, np.float32))[:, None, None]
        grid = np.arange(side, dtype=np.float32) + 0.5
        dx = grid[None, None, :] - (CANVAS / 2 + x0 + (x1 - x0) * time) * scale
        dy = grid[None, :, None] - (CANVAS / 2 + y0 + (y1 - y0) * time) * scale
        radius = (RADIUS[self.size] + self.jitter[2]) * scale
        if self.shape == "circle":
            outside = np.sqrt(dx * dx + dy * dy) - radius
        elif self.shape == "square":
            outside = np.maximum(np.abs(dx), np.abs(dy)) - 0.88 * radius
        else:  # an upright triangle
            outside = np.maximum(dy - 0.72 * radius, 0.894 * np.abs(dx) - 0.447 * dy - 0.447 * 0.98 * radius)
        cover = np.clip(0.5 - outside, 0, 1)[..., None]
        picture = RGB[COLOUR_NAMES.index(self.background)] * (1 - cover) + RGB[COLOUR_NAMES.index(self.colour)] * cover
        pixels: Pixels = np.round(picture).astype(np.uint8)
        return pixels

    # ---- words ----
    def where(self) -> str:
        if self.place == "centre":
            return "in the centre"
        return f"{'on' if self.place in ('left', 'right') else 'at'} the {self.place}"

    def thing(self, size: bool = True) -> str:
        return f"a {self.size + ' ' if size else ''}{self.colour} {self.shape}"

    def caption(self, size: bool = True, place: bool = True) -> str:
        return f"{self.thing(size)}{' ' + self.where() if place else ''} on a {self.background} background"

    def path(self) -> str:
        assert self.motion is not None
        start, end = MOTIONS[self.motion]
        return f"from {start} to {end}"

    def clip_caption(self, size: bool = True) -> str:
        return f"{self.thing(size)} moves {self.path()} on a {self.background} background"


@dataclass(frozen=True)
class Look:
    """What a picture shows. Words are None where no shape was found; x and y are canvas pixels from the centre."""

    background: str
    shape: str | None = None
    colour: str | None = None
    size: str | None = None
    place: str | None = None
    x: float = 0.0
    y: float = 0.0

    def matches(self, scene: Scene, *attributes: str) -> bool:
        return all(getattr(self, name) == getattr(scene, name) for name in attributes)


def look(picture: Pixels) -> Look:
    """Read a picture [height, width, 3] back into words. Right on every scene that `Scene.frames` draws; the limits
    between the shapes were set on pictures that went through the demo model's VAE, which rounds corners."""
    side = picture.shape[0]
    values = picture.astype(np.float32)
    distance = np.linalg.norm(values[:, :, None, :] - RGB[None, None], axis=-1)
    nearest = distance.argmin(-1)
    edges = nearest[:3], nearest[-3:], nearest[:, :3], nearest[:, -3:]
    border = np.concatenate([edge.ravel() for edge in edges])
    background = int(np.bincount(border, minlength=len(RGB)).argmax())
    from_background = distance[:, :, background]

    def differs(colour: int) -> NDArray[np.bool_]:
        return np.asarray(from_background > 0.5 * np.linalg.norm(RGB[colour] - RGB[background]))

    def area_of(colour: int) -> int:
        return int(((nearest == colour) & differs(colour)).sum())

    main = max((colour for colour in range(len(RGB)) if colour != background), key=area_of)
    if area_of(main) < 0.01 * side * side:
        return Look(COLOUR_NAMES[background])
    mask = differs(main)
    rows, columns = np.nonzero(mask)
    fill = mask.sum() / ((np.ptp(rows) + 1) * (np.ptp(columns) + 1))
    shape = "square" if fill > 0.885 else "circle" if fill > 0.72 else "triangle"
    scale = CANVAS / side
    x = ((columns.min() + columns.max() + 1) / 2 - side / 2) * scale
    y = ((rows.min() + rows.max() + 1) / 2 - side / 2) * scale
    size = "small" if np.sqrt(mask.sum()) * scale < (36 if shape == "triangle" else 45) else "large"
    place = min(PLACES, key=lambda name: (PLACES[name][0] - x) ** 2 + (PLACES[name][1] - y) ** 2)
    colour = COLOUR_NAMES[int(np.bincount(nearest[mask], minlength=len(RGB)).argmax())]
    return Look(COLOUR_NAMES[background], shape, colour, size, place, float(x), float(y))


def motion_between(first: Look, last: Look) -> str | None:
    """The way the shape went between two frames, or None when it hardly moved."""
    dx, dy = last.x - first.x, last.y - first.y
    if max(abs(dx), abs(dy)) < 14:
        return None
    if abs(dx) > abs(dy):
        return "right" if dx > 0 else "left"
    return "down" if dy > 0 else "up"


def scene_of_caption(caption: str) -> Scene:
    """The still scene a caption of the form of `Scene.caption` describes."""
    words = caption.split()
    try:
        _, size, colour, shape, *where, _on, _a, background, _ = words
        scene = Scene(shape, colour, background, size, where[-1])
        if scene.caption() == caption and size in SIZES and colour in COLOURS and background in COLOURS:
            return scene
    except (ValueError, IndexError, KeyError):
        pass
    raise ValueError(f"not a caption of this world: {caption!r}")
