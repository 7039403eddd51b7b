"""ComfyUI and lanced share a card: when ComfyUI is told to unload its models, or runs out of memory, the daemons that
its nodes have started free theirs as well. The next Lance node loads the model again. A daemon that somebody else runs,
on this machine or another, works for others too: it is left alone."""

from __future__ import annotations

import contextlib
import functools

import comfy.model_management

from ..protocol.python.lanced_client import LanceError
from . import local_daemon
from .connection import known_clients


def unload_together() -> None:
    """Make ComfyUI's unload_all_models reach its own daemons; nodes have no other way to hear of it."""
    unload_comfyuis = comfy.model_management.unload_all_models

    @functools.wraps(unload_comfyuis)
    def unload_all_models() -> None:
        unload_comfyuis()
        for client in known_clients():
            if not local_daemon.is_ours(client.endpoint):
                continue
            with contextlib.suppress(LanceError):  # busy: another ComfyUI works with it; or it is gone
                client.unload()

    comfy.model_management.unload_all_models = unload_all_models
