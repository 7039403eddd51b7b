"""Lance Unload: gives the memory of a model back at a place in a graph, before another model needs it."""

from __future__ import annotations

import asyncio
from typing import Any

from comfy_api.latest import io

from .connection import ModelHandle
from .inputs import ModelSocket, schema
from .texts import show_text
from .trouble import told_in_words


class LancedUnload(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search=["free memory", "vram"],
            node_id="LancedUnload",
            display_name="Lance Unload",
            description="Frees the memory of a Lance model once what is passed through has been made.",
            inputs=[
                ModelSocket.Input("lance_model"),
                io.AnyType.Input(
                    "passed_through",
                    optional=True,
                    tooltip="What has to be made before: the model is freed after that, and it comes out as it is.",
                ),
            ],
            outputs=[io.AnyType.Output(display_name="passed_through", tooltip="What came in.")],
            is_output_node=True,
        )

    @classmethod
    @told_in_words
    async def execute(cls, lance_model: ModelHandle, passed_through: Any = None) -> io.NodeOutput:
        client = await asyncio.to_thread(lance_model.connect)
        was_there = await asyncio.to_thread(client.unload)
        show_text("the model's memory is freed" if was_there else "no model was loaded", cls.hidden.unique_id)
        return io.NodeOutput(passed_through)
