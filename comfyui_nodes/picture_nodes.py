"""The nodes that make pictures. Inputs are positional in saved workflows: add new ones at the end."""

from __future__ import annotations

import asyncio

import numpy as np
import torch
from comfy_api.latest import io

from .connection import ModelHandle
from .inputs import (
    CATEGORY,
    ModelSocket,
    batch_input,
    info_output,
    own_size_problem,
    prompt_input,
    resolution_inputs,
    resolution_of,
    sampling_inputs,
    schema,
    seed_input,
    size_inputs,
    size_problem,
)
from .job import run_job
from .tensors import image_of, info_of, latent_of, source_of

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
            category=CATEGORY,
            description="Pictures from a prompt.",
            inputs=[
                ModelSocket.Input("lance_model"),
                prompt_input("What the picture shows."),
                *size_inputs(768, 768),
                *sampling_inputs("the picture follows the prompt"),
                seed_input("The noise the picture starts from; the pictures of a batch use seed, seed + 1, ..."),
                batch_input("How many pictures."),
            ],
            outputs=_OUTPUTS,
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, width: int | None = None, height: int | None = None) -> bool | str:
        return size_problem("width", width) or size_problem("height", height) or True

    @classmethod
    async def execute(
        cls,
        lance_model: ModelHandle,
        prompt: str,
        width: int,
        height: int,
        steps: int,
        guidance: float,
        shift: float,
        seed: int,
        batch_size: int,
    ) -> io.NodeOutput:
        result = await run_job(
            lance_model,
            "t2i",
            cls.hidden.unique_id,
            prompt=prompt,
            width=width,
            height=height,
            num_inference_steps=steps,
            guidance_scale=guidance,
            timestep_shift=shift,
            seed=seed,
            batch_size=batch_size,
        )
        return io.NodeOutput(image_of(result.pixels), latent_of(result.latents), info_of([result]))


class LancedImageEdit(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search=["img2img", "inpaint", "instruct edit"],
            node_id="LancedImageEdit",
            display_name="Lance Image Edit",
            category=CATEGORY,
            description="Changes a picture as the prompt says.",
            inputs=[
                ModelSocket.Input("lance_model"),
                io.Image.Input("image", tooltip="The picture to change; of several, each with the same seed."),
                prompt_input("What to change, such as: make the car red."),
                *resolution_inputs("image_768res"),
                *sampling_inputs("the picture follows the prompt"),
                seed_input("The noise the picture starts from; the results of a batch use seed, seed + 1, ..."),
                batch_input("How many results of each picture."),
            ],
            outputs=_OUTPUTS,
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, width: int | None = None, height: int | None = None) -> bool | str:
        return own_size_problem(width, height) or True

    @classmethod
    async def execute(
        cls,
        lance_model: ModelHandle,
        image: torch.Tensor,
        prompt: str,
        resolution: str,
        width: int,
        height: int,
        steps: int,
        guidance: float,
        shift: float,
        seed: int,
        batch_size: int,
    ) -> io.NodeOutput:
        pictures = await asyncio.to_thread(source_of, "image", image)
        results = [
            await run_job(
                lance_model,
                "image_edit",
                cls.hidden.unique_id,
                part=(index, len(pictures)),
                prompt=prompt,
                source=picture,
                resolution=resolution_of(resolution, width, height),
                num_inference_steps=steps,
                guidance_scale=guidance,
                timestep_shift=shift,
                seed=seed,
                batch_size=batch_size,
            )
            for index, picture in enumerate(pictures)
        ]
        pixels = np.concatenate([result.pixels for result in results])
        latents = np.concatenate([result.latents for result in results])
        return io.NodeOutput(image_of(pixels), latent_of(latents), info_of(results))
