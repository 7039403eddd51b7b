"""The small pictures and moving pictures on a node while it works, and the finished one after that."""

from __future__ import annotations

import io
import time
from typing import IO, Any

import numpy as np
from comfy.cli_args import LatentPreviewMethod, args
from PIL import Image

from ..protocol.python.lanced_client.latent_shape import CELL_PIXELS  # the daemon's previews have a pixel per cell

MAX_PIXELS = 512
FRAMES_PER_SECOND = 6  # twice the speed of the video: a latent frame is four frames of 1/12 s

# What comfy.utils.ProgressBar takes: ComfyUI resizes the picture to the number, if there is one.
ComfyPreview = tuple[str, Any, int | None]


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


def previews_are_wanted() -> bool:
    """ComfyUI's own setting: --preview-method, or what the front end says for this prompt."""
    return bool(args.preview_method != LatentPreviewMethod.NoPreviews)


class _Encoded:
    """A picture that is encoded already. ComfyUI has a preview write itself, by the `save` that Pillow's pictures have;
    a moving picture would lose all frames but one there."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def save(self, stream: IO[bytes], **_: object) -> None:
        stream.write(self._content)


def finished_preview(pixels: np.ndarray[Any, Any], fps: float) -> ComfyPreview:
    """u8 [frames, height, width, 3], to take the place of the last coarse preview: the picture as it is, or the frames
    moving, small. Front ends look at what they get, not at the kind that they are told."""
    if len(pixels) == 1:
        return "JPEG", Image.fromarray(pixels[0]), None  # its size stands below it
    scale = min(1.0, MAX_PIXELS / max(pixels.shape[1:3]))
    size = [max(1, round(side * scale)) for side in pixels.shape[2:0:-1]]
    first, *others = [Image.fromarray(frame).resize(size) for frame in pixels]
    stream = io.BytesIO()
    duration_ms = round(1000 / fps)
    first.save(stream, "WEBP", save_all=True, append_images=others, duration=duration_ms, loop=0, quality=70, method=0)
    return "JPEG", _Encoded(stream.getvalue()), None
