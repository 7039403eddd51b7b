"""Pictures that ComfyUI's output nodes saved."""

from __future__ import annotations

import io
from collections.abc import Iterator
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


def saved_pictures(comfyui: ComfyUI, outputs: dict[str, Any]) -> Iterator[np.ndarray[Any, Any]]:
    """The pictures that output nodes saved; of videos every frame, as ComfyUI itself reads them."""
    for output in outputs.values():
        for entry in output.get("images", []):
            if entry["filename"].endswith(".mp4"):
                yield from saved_pictures(comfyui, comfyui.run(as_pictures(entry)).outputs)
            else:
                yield pixels_of(comfyui.fetch_file(entry))


def as_pictures(entry: dict[str, str]) -> dict[str, Any]:
    """A workflow that saves the frames of a saved video."""
    name = f"{entry['subfolder']}/{entry['filename']} [{entry['type']}]"
    return {
        "1": {"class_type": "LoadVideo", "inputs": {"file": name}},
        "2": {"class_type": "GetVideoComponents", "inputs": {"video": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "frames"}},
    }
