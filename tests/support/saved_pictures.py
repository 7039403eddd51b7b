"""Pictures that ComfyUI's output nodes saved."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from comfyui_server import ComfyUI


def pixels_of(png: bytes) -> np.ndarray[Any, Any]:
    """u8 [height, width, 3]"""
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


def saved_pixels(comfyui: ComfyUI, output: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
    """The pictures of one output node, such as run.outputs["3"]."""
    return [pixels_of(comfyui.fetch_file(entry)) for entry in output["images"]]
