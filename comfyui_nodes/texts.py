"""The line of text under a node."""

from __future__ import annotations


def show_text(text: str, node_id: str) -> None:
    """Put a text under the node, instead of the one before."""
    from server import PromptServer  # only there while ComfyUI's server runs

    PromptServer.instance.send_progress_text(text, node_id)
