"""The nodes that make pictures. Inputs are positional in saved workflows: add new ones at the end."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from ..protocol.python.lanced_client import Result
from ..protocol.python.lanced_client.latent_shape import CELL_PIXELS
from .asked import parameters_of, task_of
from .connection import ModelHandle
from .inputs import (
    DEFAULT_SIZE,
    ModelSocket,
    batch_input,
    guidance_inputs,
    info_output,
    own_size_problem,
    prompt_input,
    resolution_inputs,
    sampling_inputs,
    schema,
    seed_input,
    size_inputs,
    size_problem,
)
from .job import run_job
from .masks import fitted, masks_of
from .tensors import image_of, info_of, latent_of, source_of
from .texts import show_text
from .trouble import told_in_words

_OUTPUTS = [
    io.Image.Output(display_name="image"),
    io.Latent.Output(display_name="latent", tooltip="In the scale of the core Wan 2.2 VAE nodes."),
    info_output(),
]


class LancedTextToImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search=["t2i", "txt2img", "generate image"],
            node_id="LancedTextToImage",
            display_name="Lance Text to Image",
            description="Pictures from a prompt.",
            inputs=[
                ModelSocket.Input("lance_model"),
                prompt_input("What the picture shows."),
                *size_inputs(DEFAULT_SIZE, DEFAULT_SIZE),
                *sampling_inputs("the picture follows the prompt"),
                seed_input("The noise the picture starts from; the pictures of a batch use seed, seed + 1, ..."),
                batch_input("How many pictures."),
                *guidance_inputs(),
            ],
            outputs=_OUTPUTS,
        )

    @classmethod
    def validate_inputs(cls, width: int | None = None, height: int | None = None) -> bool | str:
        return size_problem("width", width) or size_problem("height", height) or True

    @classmethod
    @told_in_words
    async def execute(cls, lance_model: ModelHandle, **inputs: Any) -> io.NodeOutput:
        result = await run_job(lance_model, task_of(cls), cls.hidden.unique_id, **parameters_of(cls, inputs))
        return io.NodeOutput(image_of(result.pixels), latent_of(result.latents), info_of([result]))


class LancedImageEdit(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search=["img2img", "inpaint", "instruct edit"],
            node_id="LancedImageEdit",
            display_name="Lance Image Edit",
            description="Changes a picture as the prompt says.",
            inputs=[
                ModelSocket.Input("lance_model"),
                io.Image.Input("image", tooltip="The picture to change; of several, each with the same seed."),
                prompt_input("What to change, such as: make the car red."),
                *resolution_inputs("image_edit"),
                *sampling_inputs("the picture follows the prompt"),
                seed_input("The noise the picture starts from; the results of a batch use seed, seed + 1, ..."),
                batch_input("How many results of each picture."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Only where it is painted does the picture change; outside it stays as it was. One for all"
                    " pictures, or one for each.",
                ),
                *guidance_inputs(),
            ],
            outputs=_OUTPUTS,
        )

    @classmethod
    def validate_inputs(cls, width: int | None = None, height: int | None = None) -> bool | str:
        return own_size_problem(width, height) or True

    @classmethod
    @told_in_words
    async def execute(
        cls, lance_model: ModelHandle, image: torch.Tensor, mask: torch.Tensor | None = None, **inputs: Any
    ) -> io.NodeOutput:
        node_id = cls.hidden.unique_id
        pictures = await asyncio.to_thread(source_of, "image", image)
        masks = [None] * len(pictures) if mask is None else await asyncio.to_thread(masks_of, mask, len(pictures))
        request = parameters_of(cls, inputs)
        edits = []
        for index, (picture, painted) in enumerate(zip(pictures, masks, strict=True)):
            place = (index, len(pictures))
            if painted is None:
                result = await run_job(lance_model, task_of(cls), node_id, part=place, source=picture, **request)
                edits.append((result, result.pixels, result.latents))
            else:
                edits.append(await _masked_edit(lance_model, node_id, place, picture, painted, request))
        results, pixels, latents = zip(*edits, strict=True)
        image, latent = image_of(np.concatenate(pixels)), latent_of(np.concatenate(latents))
        return io.NodeOutput(image, latent, info_of(list(results)))


async def _masked_edit(
    handle: ModelHandle,
    node_id: str,
    place: tuple[int, int],
    picture: np.ndarray[Any, Any],
    painted: np.ndarray[Any, Any],
    request: dict[str, Any],
) -> tuple[Result, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """One picture, changed where it is painted on: how, pixels and latents. place: (index, count) among the pictures.

    Two jobs: the picture's own latents, which are held to outside, and the edit."""
    first = (2 * place[0], 2 * place[1])
    resolution, batch = request["resolution"], request["batch_size"]
    encoded = await run_job(handle, "encode", node_id, part=first, source=picture, resolution=resolution)
    height, width = (CELL_PIXELS * side for side in encoded.latents.shape[-2:])
    mask = await asyncio.to_thread(fitted, painted, picture, height, width)
    latents = np.repeat(encoded.latents, batch, axis=0)
    if mask.is_empty:
        show_text("nothing is painted in the mask: the picture stays as it was", node_id)
        return encoded, np.repeat(mask.kept[None, None], batch, axis=0), latents
    second = (first[0] + 1, first[1])
    kept = {"latents": latents, "latent_mask": mask.cells()}
    result = await run_job(handle, "image_edit", node_id, part=second, source=picture, **kept, **request)
    return result, mask.lay_over(result.pixels), result.latents
