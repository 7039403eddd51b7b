"""ComfyUI and lanced share a card: when ComfyUI is told to unload its models, or runs out of memory, the daemons that
the nodes have talked to free theirs as well. The next Lance node loads the model again."""

from __future__ import annotations

import contextlib
import functools

import comfy.model_management

from ..protocol.python.lanced_client import LanceError
from .connection import known_clients


def unload_together() -> None:
    """Make ComfyUI's unload_all_models reach the daemons; nodes have no other way to hear of it."""
    unload_comfyuis = comfy.model_management.unload_all_models

    @functools.wraps(unload_comfyuis)
    def unload_all_models() -> None:
        unload_comfyuis()
        for client in known_clients():
            with contextlib.suppress(LanceError):  # busy: another ComfyUI works with it; or it is gone
                client.unload()

    comfy.model_management.unload_all_models = unload_all_models
