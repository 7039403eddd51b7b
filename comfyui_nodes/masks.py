"""A MASK on an edit: only where it is painted does the picture change.

Twice: every latent cell with a painted pixel in it is made anew, the others are held to the source while sampling; and
the result is laid over the source by the mask, soft edges included, so that a pixel outside is the source's own. Both
need what the model sees of the source, which is cropped and resized.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..protocol.python.lanced_client.cropping import cropped_box
from ..protocol.python.lanced_client.latent_shape import CELL_PIXELS

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Mask:
    """At the size that the model works at."""

    kept: Array  # u8 [height, width, 3]: the source
    change: Array  # f32 [height, width]: 0 stays the source, 1 becomes the result

    @property
    def is_empty(self) -> bool:
        return not self.change.any()

    def cells(self) -> Array:
        """f32 [1, 1, 1, height / 16, width / 16]: 1 where something is painted."""
        height, width = self.change.shape
        painted = self.change.reshape(height // CELL_PIXELS, CELL_PIXELS, width // CELL_PIXELS, CELL_PIXELS)
        return (painted.max(axis=(1, 3)) > 0).astype(np.float32)[None, None, None]

    def lay_over(self, pixels: Array) -> Array:
        """u8 [..., height, width, 3]: the source with `pixels` where the mask is painted."""
        change = self.change[..., None]
        return np.rint(self.kept * (1 - change) + pixels * change).astype(np.uint8)


def masks_of(mask: torch.Tensor, count: int) -> list[Array]:
    """f32 [height, width] in 0..1 for each of `count` pictures, of a MASK with one for all or one for each."""
    values = mask.to("cpu", torch.float32).numpy()
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or len(values) not in (1, count):
        raise ValueError(
            f"mask must be a MASK [1 or {count}, height, width], one for all pictures or each its own, is"
            f" {list(mask.shape)}"
        )
    if not np.isfinite(values).all():
        raise ValueError("mask has values that are no finite numbers")
    return list(np.broadcast_to(values.clip(0, 1), (count, *values.shape[1:])))


def fitted(mask: Array, picture: Array, height: int, width: int) -> Mask:
    """What the model sees of a picture, u8 [height, width, 3], and of its mask, at its size."""
    box = cropped_box(*picture.shape[:2], height, width)
    rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    if mask.shape != picture.shape[:2]:  # of another size, as a loader gives where nothing is painted
        mask = _resized_mask(mask, *picture.shape[:2])
    source = Image.fromarray(np.ascontiguousarray(picture[rows, columns]))
    if source.size != (width, height):
        source = source.resize((width, height), Image.Resampling.BICUBIC)
    return Mask(np.asarray(source), _resized_mask(mask[rows, columns], height, width))


def _resized_mask(mask: Array, height: int, width: int) -> Array:
    if mask.shape == (height, width):
        return mask
    image = Image.fromarray(np.ascontiguousarray(mask, np.float32), mode="F")
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)).clip(0, 1)
