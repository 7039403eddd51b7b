"""The Lance nodes for ComfyUI: thin clients of a lanced daemon, without any model of their own.

nodes.py         the nodes: inputs, outputs, checks before the run
job.py           one job of the daemon as one node: progress, preview, interrupt
connection.py    the handle that a Lance Model node hands on, and how it finds its daemon again
local_daemon.py  starting the lanced of this machine when none answers
tensors.py       the daemon's arrays as ComfyUI's IMAGE and LATENT
"""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .nodes import LanceModel, LanceTextToImage


class LanceExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [LanceModel, LanceTextToImage]


async def comfy_entrypoint() -> LanceExtension:
    return LanceExtension()
