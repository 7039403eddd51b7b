"""Lance Model: which model of which daemon the other nodes use."""

from __future__ import annotations

from comfy_api.latest import io

from .connection import AUTOMATIC, ModelHandle, offered_models
from .inputs import ModelSocket, schema
from .job import watched
from .texts import show_text
from .trouble import told_in_words


class LancedModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search=["lance loader", "checkpoint", "lanced"],
            node_id="LancedModel",
            display_name="Lance Model",
            description="A Lance model held by a lanced daemon. ComfyUI itself loads no weights.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=offered_models(),
                    default=AUTOMATIC,
                    tooltip="A model that the daemon offers. automatic: for each task a 4-bit one that fits into"
                    " memory, for videos of the release made for them; the line under the node says which and why.",
                ),
                io.String.Input(
                    "endpoint",
                    default="",
                    placeholder="the local daemon",
                    tooltip="Where lanced listens: ipc:///path, tcp://127.0.0.1:port, or tls+tcp://host:port of another"
                    " machine. Empty: the usual place; there a daemon is started if none answers.",
                ),
            ],
            outputs=[ModelSocket.Output(display_name="lance_model")],
        )

    @classmethod
    def validate_inputs(cls, model: str) -> bool:
        return True  # the daemon at the endpoint knows its models; the menu only knows the usual daemon's

    @classmethod
    def fingerprint_inputs(cls, model: str, endpoint: str) -> str:
        handle = ModelHandle(endpoint, model)
        line = handle.line()
        if line and cls.hidden is not None and cls.hidden.unique_id:
            show_text(line, cls.hidden.unique_id)  # also where ComfyUI's cache answers for the node
        return handle.fingerprint()

    @classmethod
    @told_in_words
    async def execute(cls, model: str, endpoint: str) -> io.NodeOutput:
        handle = ModelHandle(endpoint, model)
        show_text(await watched(handle.load), cls.hidden.unique_id)
        return io.NodeOutput(handle)
