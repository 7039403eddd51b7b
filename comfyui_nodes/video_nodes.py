"""The nodes that make videos. Inputs are positional in saved workflows: add new ones at the end."""

from __future__ import annotations

import asyncio
from typing import Any

import torch
from comfy_api.latest import io

from ..protocol.python.lanced_client import Result
from .asked import parameters_of, task_of
from .clips import audio_of
from .connection import ModelHandle
from .inputs import (
    ModelSocket,
    frames_input,
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
    video_inputs,
)
from .job import read_clip, run_job, watched
from .tensors import image_of, info_of, latent_of, source_of, video_of
from .trouble import told_in_words

_OUTPUTS = [
    io.Image.Output(display_name="frames", tooltip="The frames of the video as an IMAGE batch."),
    io.Video.Output(display_name="video"),
    io.Latent.Output(display_name="latent", tooltip="In the scale of the core Wan 2.2 VAE nodes."),
    info_output(),
]
_SEED = "The noise the video starts from."


def _outputs_of(result: Result, fps: float | None = None, audio: Any = None, *others: Any) -> io.NodeOutput:
    """fps: of the VIDEO, the daemon's if it is not given. others: what a node gives besides."""
    frames = image_of(result.pixels)
    video = video_of(frames, fps or result.fps, audio)
    return io.NodeOutput(frames, video, latent_of(result.latents), info_of([result]), *others)


class LancedTextToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search=["t2v", "txt2vid"],
            node_id="LancedTextToVideo",
            display_name="Lance Text to Video",
            description="A video from a prompt.",
            inputs=[
                ModelSocket.Input("lance_model"),
                prompt_input("What the video shows, and what happens in it."),
                *size_inputs(848, 480),
                frames_input(),
                *sampling_inputs("the video follows the prompt"),
                seed_input(_SEED),
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
        return _outputs_of(await run_job(lance_model, task_of(cls), cls.hidden.unique_id, **parameters_of(cls, inputs)))


class LancedImageToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search=["i2v", "img2vid", "animate"],
            node_id="LancedImageToVideo",
            display_name="Lance Image to Video",
            description="A video that begins with a picture.",
            inputs=[
                ModelSocket.Input("lance_model"),
                io.Image.Input("image", tooltip="The first frame. Of several pictures, the first is taken."),
                prompt_input("What happens; may be empty."),
                *resolution_inputs("i2v"),
                frames_input(),
                *sampling_inputs("the video follows the prompt"),
                seed_input(_SEED),
                *guidance_inputs(),
            ],
            outputs=_OUTPUTS,
        )

    @classmethod
    def validate_inputs(cls, width: int | None = None, height: int | None = None) -> bool | str:
        return own_size_problem(width, height) or True

    @classmethod
    @told_in_words
    async def execute(cls, lance_model: ModelHandle, image: torch.Tensor, **inputs: Any) -> io.NodeOutput:
        source = await asyncio.to_thread(source_of, "image", image[:1])
        request = parameters_of(cls, inputs)
        return _outputs_of(await run_job(lance_model, task_of(cls), cls.hidden.unique_id, source=source, **request))


class LancedVideoEdit(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search=["vid2vid", "v2v", "restyle"],
            node_id="LancedVideoEdit",
            display_name="Lance Video Edit",
            description="Changes a video as the prompt says.",
            inputs=[
                ModelSocket.Input("lance_model"),
                *video_inputs(),
                prompt_input("What to change, such as: turn the day into night."),
                *resolution_inputs("video_edit"),
                *sampling_inputs("the video follows the prompt"),
                seed_input(_SEED),
                *guidance_inputs(),
            ],
            outputs=[
                *_OUTPUTS,
                io.Audio.Output(display_name="audio", tooltip="The source's sound, for Create Video; may be none."),
                io.Float.Output(
                    display_name="fps",
                    tooltip="Frames per second of the result: 12, or fewer where the source is longer than six seconds,"
                    " so that it lasts as long.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, width: int | None = None, height: int | None = None) -> bool | str:
        return own_size_problem(width, height) or True

    @classmethod
    @told_in_words
    async def execute(cls, lance_model: ModelHandle, video: Any, fps: float, **inputs: Any) -> io.NodeOutput:
        task, node_id = task_of(cls), cls.hidden.unique_id
        clip = await read_clip(lance_model, task, video, fps)
        request = parameters_of(cls, inputs)
        result = await run_job(lance_model, task, node_id, source=clip.pixels, fps=clip.fps, **request)
        seconds = clip.source_seconds
        result_fps = result.fps if seconds <= clip.max_seconds else result.pixels.shape[1] / seconds
        audio = await watched(lambda: audio_of(video))
        return _outputs_of(result, result_fps, audio, audio, result_fps)
