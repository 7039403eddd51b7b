"""The parts of the tasks, for graphs of one's own: pictures to latents, the sampler, latents to pictures. Latents are
those of ComfyUI's core nodes. Inputs are positional in saved workflows: add new ones at the end."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from ..protocol.python.lanced_client.latent_shape import CELL_PIXELS
from .asked import parameters_of, task_of
from .connection import ModelHandle
from .inputs import (
    MAX_FRAMES,
    PARAMETERS,
    ModelSocket,
    fps_input,
    guidance_inputs,
    prompt_input,
    sampling_inputs,
    schema,
    seed_input,
)
from .job import read_clip, run_job
from .latents import Latent, latent_like, mask_of, noise_rows_of, samples_of, state_of
from .tensors import image_of, latent_of, source_of, video_of
from .trouble import told_in_words

MAX_STEPS: int = PARAMETERS["end_step"].maximum  # as KSamplerAdvanced's: past every schedule


class LancedEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search=["vae encode"],
            node_id="LancedEncode",
            display_name="Lance Encode",
            description="Pictures or a video as latents, by the model's own VAE.",
            inputs=[
                ModelSocket.Input("lance_model"),
                io.MultiType.Input(
                    "pixels",
                    [io.Image, io.Video],
                    tooltip="An IMAGE or a VIDEO. Cropped around its middle to multiples of 16. Of a VIDEO those frames"
                    " that the model sees: 12 a second of up to six seconds, of a longer one as many, evenly. Of an"
                    " IMAGE the first 4n + 1 frames, at most 121.",
                ),
                io.Combo.Input(
                    "batch",
                    options=["video", "pictures"],
                    default="video",
                    tooltip="What several pictures of an IMAGE are: the frames of one video, or pictures of their own.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="In the scale of the core Wan 2.2 VAE nodes.")],
        )

    @classmethod
    @told_in_words
    async def execute(cls, lance_model: ModelHandle, pixels: Any, batch: str) -> io.NodeOutput:
        if isinstance(pixels, torch.Tensor):
            frames = await asyncio.to_thread(source_of, "pixels", pixels)
            sources = [frame[np.newaxis] for frame in frames] if batch == "pictures" else [frames[:MAX_FRAMES]]
        else:
            sources = [(await read_clip(lance_model, task_of(cls), pixels, 0.0)).pixels]
        results = [
            await run_job(lance_model, task_of(cls), cls.hidden.unique_id, part=(index, len(sources)), source=source)
            for index, source in enumerate(sources)
        ]
        return io.NodeOutput(latent_of(np.concatenate([result.latents for result in results])))


def part_of_schedule_inputs() -> list[io.Input]:
    """Which steps a sampler does, and what noise it starts from and leaves: as KSampler and KSampler (Advanced)."""
    return [
        io.Float.Input(
            "denoise",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="How much of the latent is made anew; lower values keep more of it.",
        ),
        io.Combo.Input(
            "add_noise",
            options=["enable", "disable"],
            default="enable",
            tooltip="disable: the latent comes from another sampler that returned it with leftover noise.",
        ),
        io.Int.Input("start_at_step", default=0, min=0, max=MAX_STEPS, tooltip="The first step that is done."),
        io.Int.Input(
            "end_at_step",
            default=MAX_STEPS,
            min=0,
            max=MAX_STEPS,
            tooltip="The first step that is not done any more; past the last step: all are.",
        ),
        io.Combo.Input(
            "return_with_leftover_noise",
            options=["disable", "enable"],
            default="disable",
            tooltip="enable: an early end leaves the noise of that moment, for another sampler to go on.",
        ),
    ]


class LancedSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search=["ksampler", "denoise"],
            node_id="LancedSampler",
            display_name="Lance Sampler",
            description="Denoises a latent as the prompt says; behaves as KSampler and KSampler (Advanced).",
            inputs=[
                ModelSocket.Input("lance_model"),
                io.Latent.Input(
                    "latent_image",
                    tooltip="Where sampling starts, and how large the result is: latents of Lance and of the core"
                    " Wan 2.2 nodes, or empty ones of EmptyLatentImage, EmptySD3LatentImage and"
                    " EmptyHunyuanLatentVideo. One frame gives a picture, more a video. A noise mask is kept to.",
                ),
                prompt_input("What the picture or video shows; with a source: what to change in it."),
                *sampling_inputs("the result follows the prompt"),
                seed_input("The noise, drawn as KSampler draws it."),
                *part_of_schedule_inputs(),
                fps_input("Frames per second of a source that is an IMAGE batch; a VIDEO knows its own."),
                io.MultiType.Input(
                    "source",
                    [io.Image, io.Video],
                    optional=True,
                    tooltip="The picture or video that the prompt changes, as in Lance Image Edit and Video Edit.",
                ),
                io.MultiType.Input(
                    "noise",
                    [io.Noise, io.Latent],
                    optional=True,
                    tooltip="Noise of your own instead of the seed's: a NOISE such as RandomNoise gives, or a LATENT.",
                ),
                *guidance_inputs(),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="In the scale of the core Wan 2.2 VAE nodes.")],
        )

    @classmethod
    @told_in_words
    async def execute(
        cls,
        lance_model: ModelHandle,
        latent_image: Latent,
        fps: float,
        source: Any = None,
        noise: Any = None,
        **inputs: Any,
    ) -> io.NodeOutput:
        samples = samples_of(latent_image)
        mask = mask_of(latent_image, samples)
        request = parameters_of(cls, inputs)
        last_step = min(request["num_inference_steps"], request["end_step"])
        if request["denoise"] <= 0 or request["start_step"] >= last_step or (mask is not None and not mask.any()):
            return io.NodeOutput(latent_image)  # nothing to do: as it is, as KSampler does
        is_video = samples.shape[2] > 1
        if source is not None:
            if not is_video and isinstance(source, torch.Tensor):
                source = source[:1]
            clip = await read_clip(lance_model, "video_edit", source, fps)
            height, width = CELL_PIXELS * samples.shape[3], CELL_PIXELS * samples.shape[4]
            request |= {"source": clip.pixels if is_video else clip.pixels[:1], "resolution": f"{height}x{width}"}
            request |= {"fps": clip.fps} if is_video else {}
        if request["add_noise"] or mask is not None:
            request["noise"] = noise_rows_of(noise, samples, request["seed"], latent_image.get("batch_index"))
        result = await run_job(
            lance_model,
            task_of(cls, f"{'video' if is_video else 'picture'}{' with source' if source is not None else ''}"),
            cls.hidden.unique_id,
            latents=samples.numpy(),
            latent_state=state_of(latent_image, samples),
            latent_mask=mask,
            **request,
        )
        return io.NodeOutput(latent_like(latent_image, result))


class LancedDecode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search=["vae decode"],
            node_id="LancedDecode",
            display_name="Lance Decode",
            description="Latents as pictures or a video, by the model's own VAE.",
            inputs=[
                ModelSocket.Input("lance_model"),
                io.Latent.Input("latent", tooltip="Of a Lance node, or of the core Wan 2.2 nodes."),
                fps_input("Frames per second of the VIDEO; what Lance makes has 12."),
            ],
            outputs=[
                io.Image.Output(display_name="frames", tooltip="The pictures, or the frames of the video."),
                io.Video.Output(display_name="video"),
            ],
        )

    @classmethod
    @told_in_words
    async def execute(cls, lance_model: ModelHandle, latent: Latent, fps: float) -> io.NodeOutput:
        latents = samples_of(latent).numpy()
        result = await run_job(lance_model, task_of(cls), cls.hidden.unique_id, latents=latents)
        frames = image_of(result.pixels)
        return io.NodeOutput(frames, video_of(frames, fps))
