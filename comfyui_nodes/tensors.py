"""The daemon's arrays as ComfyUI's tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def image_of(pixels: np.ndarray[Any, Any]) -> torch.Tensor:
    """IMAGE float32 [batch * frames, height, width, 3] in 0..1 from u8 [batch, frames, height, width, 3].

    Dividing by 255 is exact enough that SaveImage, which multiplies by 255 and cuts off the fraction, gives all
    256 values back as they were.
    """
    flat = pixels.reshape(-1, *pixels.shape[-3:])
    return torch.from_numpy(flat.astype(np.float32) / np.float32(255))


def latent_of(latents: np.ndarray[Any, Any]) -> dict[str, torch.Tensor]:
    """LATENT from f32 [batch, 48, t, h, w]: both sides use the raw scale of the Wan 2.2 VAE."""
    return {"samples": torch.from_numpy(latents.copy())}
