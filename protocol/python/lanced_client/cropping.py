"""Which part of a picture the model sees: a source is cropped around its middle to the shape of the size that it works
at, and resized. For clients that put something beside the daemon's result in place: a mask, or the source itself.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Box(NamedTuple):
    """A part of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int


def cropped_box(height: int, width: int, to_height: int, to_width: int) -> Box:
    """The part of a height x width picture that is resized to to_height x to_width (multiples of 16, as results have).

    A box of the picture's area and the other shape, where that fits (the shapes are all but equal then); otherwise the
    largest part of that shape.
    """
    ratio, source_ratio = to_width / to_height, width / height
    rounded_ratio = float(np.exp(np.log(np.float32(ratio))))
    tall, wide = round(math.sqrt(height * width / rounded_ratio)), round(math.sqrt(height * width * rounded_ratio))
    if not (0 < tall <= height and 0 < wide <= width):
        tall, wide = height, width
        if source_ratio < ratio:
            tall = max(1, round(width / ratio))
        elif source_ratio > ratio:
            wide = max(1, round(height * ratio))
    return Box((height - tall) // 2, (width - wide) // 2, tall, wide)
