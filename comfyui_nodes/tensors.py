"""The daemon's arrays as ComfyUI's IMAGE, VIDEO and LATENT, and back."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from comfy_api.latest import InputImpl, Types

from ..protocol.python.lanced_client import Result


def image_of(pixels: np.ndarray[Any, Any]) -> torch.Tensor:
    """IMAGE float32 [batch * frames, height, width, 3] in 0..1 from u8 [batch, frames, height, width, 3].

    Dividing by 255 is exact enough that SaveImage, which multiplies by 255 and cuts off the fraction, gives all
    256 values back as they were.
    """
    flat = pixels.reshape(-1, *pixels.shape[-3:])
    return torch.from_numpy(flat.astype(np.float32) / np.float32(255))


def video_of(frames: torch.Tensor, fps: float, audio: Any = None) -> Any:
    """VIDEO from an IMAGE whose batch is its frames, with an AUDIO if there is one."""
    rate = Fraction(fps).limit_denominator(1001)
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=frames, frame_rate=rate, audio=audio))


def info_of(results: list[Result]) -> str:
    """How results were made, as JSON: a receipt of protocol/PROTOCOL.md, or a list of several."""
    receipts = [result.receipt for result in results]
    return json.dumps(receipts[0] if len(receipts) == 1 else receipts, indent=2, ensure_ascii=False)


def latent_of(latents: np.ndarray[Any, Any]) -> dict[str, torch.Tensor]:
    """LATENT from f32 [batch, 48, t, h, w]: both sides use the raw scale of the Wan 2.2 VAE."""
    return {"samples": torch.from_numpy(latents.copy())}


def source_of(name: str, image: torch.Tensor) -> np.ndarray[Any, Any]:
    """u8 [frames, height, width, 3] from an IMAGE [frames, height, width, 1 to 4]; alpha is left out, as core nodes do.
    ValueError names the input `name`."""
    shape = tuple(image.shape)
    if image.ndim != 4 or shape[3] not in (1, 3, 4) or 0 in shape:
        raise ValueError(f"{name} must be an IMAGE [pictures, height, width, 1, 3 or 4], is {list(shape)}")
    pixels = np.empty((*shape[:3], 3), np.uint8)
    for frame, out in zip(image, pixels, strict=True):  # one at a time: a video's floats are large
        values = frame[..., :3].to("cpu", torch.float32)
        if not bool(torch.isfinite(values).all()):
            raise ValueError(f"{name} has values that are no finite numbers")
        out[...] = (values.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return pixels
