"""Small jobs of every task and kind of source, and what two runs of one are compared by."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from lanced_client import Result
from lanced_process import REQUEST

QUICK: dict[str, Any] = {"prompt": REQUEST["prompt"], "num_inference_steps": 2, "seed": 3}
SIZE: dict[str, Any] = {"width": 32, "height": 32}
EDIT: dict[str, Any] = {"resolution": "32x32/56x56"}


def small_jobs() -> dict[str, tuple[str, dict[str, Any]]]:
    """By name: a task, and its parameters and tensors."""
    picture = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), np.uint8)
    clip = np.random.default_rng(2).integers(0, 256, (5, 56, 56, 3), np.uint8)
    latents = np.random.default_rng(3).standard_normal((1, 48, 1, 2, 2), np.float32)
    question: dict[str, Any] = {"prompt": "What is it?", "resolution": "56x56", "max_new_tokens": 4}
    return {
        "t2i": ("t2i", QUICK | SIZE | {"preview": True}),
        "t2i batch": ("t2i", QUICK | SIZE | {"batch_size": 2}),
        "t2i from latents": ("t2i", QUICK | {"latents": latents, "denoise": 0.5}),
        "t2v": ("t2v", QUICK | SIZE | {"num_frames": 5, "preview": True}),
        "i2v": ("i2v", QUICK | EDIT | {"source": picture, "num_frames": 5}),
        "image_edit": ("image_edit", QUICK | EDIT | {"source": picture}),
        "video_edit": ("video_edit", QUICK | EDIT | {"source": clip, "fps": 4.0}),
        "x2t_image": ("x2t_image", question | {"source": picture}),
        "x2t_video": ("x2t_video", question | {"source": clip, "fps": 4.0, "temperature": 0.7, "seed": 5}),
        "encode": ("encode", {"source": picture}),
        "decode": ("decode", {"latents": latents}),
    }


def digest(result: Result) -> str:
    whole = hashlib.sha256(f"{result.text} {result.seed}".encode())
    for array in (result.pixels, result.latents, result.token_ids):
        whole.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()
