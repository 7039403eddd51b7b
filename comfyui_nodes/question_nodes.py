"""The nodes that answer questions. Inputs are positional in saved workflows: add new ones at the end."""

from __future__ import annotations

import asyncio
from typing import Any

import torch
from comfy_api.latest import io, ui

from .asked import parameters_of, task_of
from .connection import ModelHandle
from .inputs import (
    ModelSocket,
    number,
    own_size_problem,
    resolution_inputs,
    schema,
    seed_input,
    video_inputs,
    whole,
)
from .job import read_clip, run_job
from .tensors import source_of
from .texts import show_text
from .trouble import told_in_words


def _question_inputs(about: str) -> list[io.Input]:
    return [
        io.String.Input(
            "question",
            multiline=True,
            default=f"Describe the {about} in detail.",
            tooltip=f"What you want to know about the {about}.",
        )
    ]


def _answer_inputs() -> list[io.Input]:
    """How the words of the answer are chosen."""
    return [
        io.Int.Input("max_new_tokens", **whole("max_new_tokens"), tooltip="How long the answer may get."),
        io.Float.Input(
            "temperature",
            **number("temperature"),
            step=0.05,
            round=0.001,
            tooltip="0: always the likeliest word, so the same answer each time. Higher values vary it.",
        ),
        io.Int.Input(
            "top_k", **whole("top_k"), tooltip="Choose among so many likeliest words. 0: among all."
        ),
        io.Float.Input(
            "top_p",
            **number("top_p"),
            step=0.01,
            round=0.001,
            tooltip="Choose among the likeliest words that have this probability together. 1: among all.",
        ),
        io.Float.Input(
            "repetition_penalty",
            **number("repetition_penalty"),
            step=0.05,
            round=0.001,
            tooltip="Above 1, words that were said already become less likely.",
        ),
        seed_input("Decides between words when the temperature is above 0.", randomize=False),
    ]


class LancedAskImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search=["vqa", "caption", "describe", "image to text"],
            node_id="LancedAskImage",
            display_name="Lance Ask about Image",
            description="Answers a question about a picture.",
            inputs=[
                ModelSocket.Input("lance_model"),
                io.Image.Input("image", tooltip="The picture. Of several, the question is asked about each."),
                *_question_inputs("image"),
                *resolution_inputs("x2t_image"),
                *_answer_inputs(),
            ],
            outputs=[io.String.Output(display_name="answer", is_output_list=True, tooltip="One answer per picture.")],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, width: int | None = None, height: int | None = None) -> bool | str:
        return own_size_problem(width, height) or True

    @classmethod
    @told_in_words
    async def execute(cls, lance_model: ModelHandle, image: torch.Tensor, **inputs: Any) -> io.NodeOutput:
        pictures = await asyncio.to_thread(source_of, "image", image)
        task, node_id, request = task_of(cls), cls.hidden.unique_id, parameters_of(cls, inputs)
        results = [
            await run_job(lance_model, task, node_id, part=(index, len(pictures)), source=picture, **request)
            for index, picture in enumerate(pictures)
        ]
        answers = [result.text for result in results]
        show_text("\n".join(answers), cls.hidden.unique_id)
        return io.NodeOutput(answers, ui=ui.PreviewText("\n".join(answers)))


class LancedAskVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search=["vqa", "caption", "describe", "video to text"],
            node_id="LancedAskVideo",
            display_name="Lance Ask about Video",
            description="Answers a question about a video.",
            inputs=[
                ModelSocket.Input("lance_model"),
                *video_inputs(),
                *_question_inputs("video"),
                *resolution_inputs("x2t_video"),
                *_answer_inputs(),
            ],
            outputs=[io.String.Output(display_name="answer")],
            is_output_node=True,
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
        return io.NodeOutput(result.text, ui=ui.PreviewText(result.text))
