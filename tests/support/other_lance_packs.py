"""Stands in for the other Lance packs in ComfyUI: takes every node id that they register, and their socket.

Copied into custom_nodes as a pack of its own; whether its folder's name sorts before or after the tested pack's decides
who loads first.
"""

from __future__ import annotations

from typing import Any

IDS = """LanceModelLoader LanceLoadModel LanceT2I LanceT2V LanceImageEdit LanceVideoEdit LanceX2TImage LanceX2TVideo
LanceTextToImage LanceTextToVideo LanceImageToVideo LanceImageGeneration LanceImageEditing LanceVideoEditing
LanceImageUnderstanding LanceVideoUnderstanding LanceFramesToVideo LanceUnloadModel LanceModel LanceAskImage
LanceAskVideo LanceEncode LanceSampler LanceDecode""".split()


class Other:
    CATEGORY = "another pack"
    FUNCTION = "run"
    RETURN_TYPES = ("LANCE_MODEL", "IMAGE")
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        return {"required": {}, "optional": {"lance_model": ("LANCE_MODEL",), "seed": ("INT", {"default": 42})}}

    def run(self, **_: Any) -> dict[str, Any]:
        return {"ui": {"text": ["another pack's node ran"]}, "result": ("their model", None)}


NODE_CLASS_MAPPINGS = dict.fromkeys(IDS, Other)
