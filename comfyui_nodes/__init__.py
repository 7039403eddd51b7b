"""The Lance nodes for ComfyUI: thin clients of a lanced daemon, without any model of their own.

model_node.py      Lance Model: which model of which daemon
picture_nodes.py   Lance Text to Image, Lance Image Edit
video_nodes.py     Lance Text to Video, Lance Image to Video, Lance Video Edit
question_nodes.py  Lance Ask about Image, Lance Ask about Video
parts_nodes.py     Lance Encode, Lance Sampler, Lance Decode
inputs.py          inputs that several nodes have, and their checks before the run
job.py             one job of the daemon as one node: progress, preview, text, interrupt
preview.py         the small pictures and moving pictures on a node while it works
connection.py      the handle that a Lance Model node hands on, and how it finds its daemon again
memory.py          the daemons free their memory together with ComfyUI
local_daemon.py    starting the lanced of this machine when none answers
tensors.py         the daemon's arrays as ComfyUI's IMAGE, VIDEO and LATENT, and back
latents.py         a LATENT as what sampling starts from, and back
"""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .memory import unload_together
from .model_node import LanceModel
from .parts_nodes import LanceDecode, LanceEncode, LanceSampler
from .picture_nodes import LanceImageEdit, LanceTextToImage
from .question_nodes import LanceAskImage, LanceAskVideo
from .video_nodes import LanceImageToVideo, LanceTextToVideo, LanceVideoEdit


class LanceExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            LanceModel,
            LanceTextToImage,
            LanceTextToVideo,
            LanceImageToVideo,
            LanceImageEdit,
            LanceVideoEdit,
            LanceAskImage,
            LanceAskVideo,
            LanceEncode,
            LanceSampler,
            LanceDecode,
        ]


async def comfy_entrypoint() -> LanceExtension:
    unload_together()
    return LanceExtension()
