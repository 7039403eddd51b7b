"""The Lance nodes for ComfyUI: thin clients of a lanced daemon, without any model of their own.

model_node.py      Lance Model: which model of which daemon
picture_nodes.py   Lance Text to Image, Lance Image Edit
video_nodes.py     Lance Text to Video, Lance Image to Video, Lance Video Edit
question_nodes.py  Lance Ask about Image, Lance Ask about Video
parts_nodes.py     Lance Encode, Lance Sampler, Lance Decode
unload_node.py     Lance Unload
save_node.py       Lance Save File, for graphs of other packs
other_packs.py     graphs of other packs become graphs of these nodes
asked.py           what a node asks of the daemon, by protocol/nodes.json
inputs.py          inputs that several nodes have, and their checks before the run
job.py             one job of the daemon as one node: progress, preview, text, interrupt
preview.py         the small pictures and moving pictures on a node while it works
texts.py           the line of text under a node
trouble.py         what went wrong, in words for the node that it went wrong in
clips.py           a VIDEO as what the model sees of it
connection.py      the handle that a Lance Model node hands on, and how it finds its daemon again
memory.py          the daemons that this ComfyUI started free their memory together with it
model_folders.py   where checkpoints lie on this machine
local_daemon.py    starting the lanced of this machine when none answers
tensors.py         the daemon's arrays as ComfyUI's IMAGE, VIDEO and LATENT, and back
masks.py           a MASK as what of a picture is made anew, and what stays
latents.py         a LATENT as what sampling starts from, and back
"""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .memory import unload_together
from .model_node import LancedModel
from .other_packs import replace_other_packs
from .parts_nodes import LancedDecode, LancedEncode, LancedSampler
from .picture_nodes import LancedImageEdit, LancedTextToImage
from .question_nodes import LancedAskImage, LancedAskVideo
from .save_node import LancedSaveFile
from .unload_node import LancedUnload
from .video_nodes import LancedImageToVideo, LancedTextToVideo, LancedVideoEdit


class LancedExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            LancedModel,
            LancedTextToImage,
            LancedTextToVideo,
            LancedImageToVideo,
            LancedImageEdit,
            LancedVideoEdit,
            LancedAskImage,
            LancedAskVideo,
            LancedEncode,
            LancedSampler,
            LancedDecode,
            LancedUnload,
            LancedSaveFile,
        ]


async def comfy_entrypoint() -> LancedExtension:
    unload_together()
    replace_other_packs()
    return LancedExtension()
