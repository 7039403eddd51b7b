"""ComfyUI's LATENT as what the daemon samples from, and back.

Both sides use the raw scale of the Wan 2.2 VAE, and zeros everywhere as 'empty'. A LATENT with leftover noise also
carries the daemon's exact state, so that going on gives the same bytes as never having stopped; the daemon itself finds
out where other nodes changed the samples since.
"""

from __future__ import annotations

from typing import Any

import comfy.sample
import comfy.utils
import numpy as np
import torch

from ..protocol.python.lanced_client import Result
from ..protocol.python.lanced_client.latent_shape import CELL_PIXELS, LATENT_CHANNELS

Latent = dict[str, Any]  # ComfyUI's LATENT: "samples" [batch, channels, (t,) h, w] and what goes with them

_CELLS_OF_8_PIXELS = (4, 16)  # channels of empty latents that have a cell for every 8 pixels, not 16
_STATE = "lance_state"
_SCALE = "downscale_ratio_spacial"  # ComfyUI's spelling: pixels per cell of an empty latent, where it says so


def samples_of(latent: Latent) -> torch.Tensor:
    """f32 [batch, 48, t, h, w] on the CPU. An empty latent of another model gets this one's shape, for the same size in
    pixels."""
    samples = latent["samples"].to("cpu", torch.float32)
    if samples.ndim == 4:
        samples = samples.unsqueeze(2)
    if samples.ndim == 5 and samples.shape[1] == LATENT_CHANNELS:
        return samples.contiguous()
    shape = list(samples.shape)
    is_known = samples.ndim == 5 and shape[1] in _CELLS_OF_8_PIXELS
    says_its_size = _SCALE in latent and samples.ndim == 5 and shape[2] == 1  # others count frames otherwise
    if not (is_known or says_its_size) or bool(samples.any()):
        raise ValueError(
            f"the latent has the shape {shape}; Lance takes those of the Wan 2.2 VAE, [batch, {LATENT_CHANNELS},"
            " frames, height/16, width/16], and empty ones of EmptyLatentImage, EmptySD3LatentImage and"
            " EmptyHunyuanLatentVideo"
        )
    batch, _, frames, height, width = shape
    pixels_per_cell = int(latent.get(_SCALE, 8))
    height, width = height * pixels_per_cell, width * pixels_per_cell
    if height % CELL_PIXELS or width % CELL_PIXELS:
        raise ValueError(
            f"width and height must be multiples of {CELL_PIXELS}, the empty latent is {width} x {height} pixels"
        )
    return torch.zeros(batch, LATENT_CHANNELS, frames, height // CELL_PIXELS, width // CELL_PIXELS)


def noise_rows_of(noise: Any, samples: torch.Tensor, seed: int, batch_index: list[int] | None) -> np.ndarray[Any, Any]:
    """f32 [batch, t * h * w, 48]: the noise that KSampler draws for the seed, or that of a NOISE or LATENT."""
    if noise is None:
        drawn = comfy.sample.prepare_noise(samples, seed, batch_index)
    elif isinstance(noise, dict):
        drawn = samples_of(noise)
    else:
        like = {"samples": samples} | ({} if batch_index is None else {"batch_index": batch_index})
        drawn = noise.generate_noise(like)
    if drawn.shape != samples.shape:
        raise ValueError(f"the noise has the shape {list(drawn.shape)}, the latent {list(samples.shape)}")
    rows = drawn.to("cpu", torch.float32).flatten(2).transpose(1, 2)
    return np.ascontiguousarray(rows.numpy())


def mask_of(latent: Latent, samples: torch.Tensor) -> np.ndarray[Any, Any] | None:
    """f32 [batch, 1, t, h, w] from a noise_mask, brought to the latent's size as KSampler does. None: no mask."""
    mask = latent.get("noise_mask")
    if mask is None:
        return None
    batch, _, *cells = samples.shape
    fitted = comfy.utils.reshape_mask(mask.to("cpu", torch.float32), [batch, 1, *cells])
    return np.ascontiguousarray(fitted.clamp(0, 1).numpy())


def state_of(latent: Latent, samples: torch.Tensor) -> np.ndarray[Any, Any] | None:
    """The daemon's exact state of a latent that it made with leftover noise, if it still goes with the samples."""
    state = latent.get(_STATE)
    return state.numpy() if state is not None and state.shape == samples.shape else None


def latent_like(latent: Latent, result: Result) -> Latent:
    """A LATENT of what was made of `latent`, with everything else that `latent` has."""
    made = {name: value for name, value in latent.items() if name not in (_STATE, _SCALE)}
    made["samples"] = torch.from_numpy(result.latents.copy())
    if result.latent_state is not None:
        made[_STATE] = torch.from_numpy(result.latent_state.copy())
    return made
