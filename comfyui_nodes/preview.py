"""The small pictures and moving pictures on a node while it works."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from PIL import Image

CELL_PIXELS = 16  # the daemon's previews have one pixel per latent cell, which stands for so many
MAX_PIXELS = 512
FRAMES_PER_SECOND = 6  # twice the speed of the video: a latent frame is four frames of 1/12 s

ComfyPreview = tuple[str, Image.Image, int]  # what comfy.utils.ProgressBar takes; ComfyUI enlarges to the number


class MovingPreview:
    """The newest preview of a job. A front end shows one picture at a time, so a video plays as one picture after the
    other; a still picture is shown once."""

    def __init__(self) -> None:
        self._frames: list[ComfyPreview] = []
        self._shown: int | None = None  # index of the frame that was shown last

    def set_frames(self, pixels: np.ndarray[Any, Any]) -> None:
        """u8 [frames, height, width, 3], instead of the frames before."""
        size = min(MAX_PIXELS, CELL_PIXELS * max(pixels.shape[1:3]))
        self._frames = [("JPEG", Image.fromarray(frame), size) for frame in pixels]
        self._shown = None

    @property
    def moves(self) -> bool:
        return len(self._frames) > 1

    def next(self) -> ComfyPreview | None:
        """What is to be shown now; None: nothing new."""
        if not self._frames:
            return None
        index = int(time.monotonic() * FRAMES_PER_SECOND) % len(self._frames)
        if index == self._shown:
            return None
        self._shown = index
        return self._frames[index]
