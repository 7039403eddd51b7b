"""Lance Save File: for graphs of other packs whose nodes give the path of a file that they wrote."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io
from PIL import Image

from .inputs import schema
from .tensors import source_of
from .trouble import told_in_words


class LancedSaveFile(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search=["path"],
            node_id="LancedSaveFile",
            display_name="Lance Save File",
            category="lance/compatibility",
            description="Saves pictures or a video into ComfyUI's output folder and gives the file's path.",
            inputs=[
                io.MultiType.Input(
                    "what", [io.Image, io.Video], tooltip="An IMAGE, whose first picture counts, or a VIDEO."
                ),
                io.String.Input("filename_prefix", default="lance", tooltip="What the file's name begins with."),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="Where the file is, in full.")],
        )

    @classmethod
    @told_in_words
    async def execute(cls, what: Any, filename_prefix: str) -> io.NodeOutput:
        return io.NodeOutput(str(await asyncio.to_thread(save, what, filename_prefix)))


def save(what: Any, filename_prefix: str) -> Path:
    """The first picture of an IMAGE as PNG, a VIDEO as mp4; each gets a number that is free."""
    folder, name, counter, _, _ = folder_paths.get_save_image_path(filename_prefix, folder_paths.get_output_directory())
    if isinstance(what, torch.Tensor):
        path = Path(folder) / f"{name}_{counter:05}_.png"
        Image.fromarray(source_of("what", what[:1])[0]).save(path)
    else:
        path = Path(folder) / f"{name}_{counter:05}_.mp4"
        what.save_to(str(path))
    return path
