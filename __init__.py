"""ComfyUI loads this folder as a node pack when the repository is cloned into custom_nodes."""

from .comfyui_nodes import comfy_entrypoint

WEB_DIRECTORY = "./comfyui_nodes/web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
