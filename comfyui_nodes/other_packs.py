"""Graphs that people saved with another Lance pack, or with this one before its nodes had ids of their own, run here.

What is opened or submitted is looked at before ComfyUI checks it: nodes whose ids nobody has become ours, as
protocol/other_packs.json says. Where the other pack is installed, its nodes are its own and stay.
"""

from __future__ import annotations

import logging
from typing import Any

from ..protocol.python.lanced_client.other_packs import convert, other_ids
from ..protocol.python.lanced_client.other_packs_ui import convert_ui
from .connection import offered_models


def taken_ids() -> set[str]:
    """Those of the table's ids that are registered in this ComfyUI."""
    import nodes  # ComfyUI's: complete only when all packs are loaded

    return other_ids() & set(nodes.NODE_CLASS_MAPPINGS)


def replace_in_prompt(json_data: dict[str, Any]) -> dict[str, Any]:
    """ComfyUI's hook for what POST /prompt was sent."""
    graph = json_data.get("prompt")
    if isinstance(graph, dict) and any(
        isinstance(node, dict) and node.get("class_type") in other_ids() for node in graph.values()
    ):
        for problem in convert(graph, taken_ids(), offered_models()):
            logging.warning("lanced: %s", problem)
    return json_data


async def replace_in_workflow(request: Any) -> Any:
    """What web/js/other_packs.js asks before a workflow of either form is opened."""
    from server import web  # aiohttp's, as ComfyUI has it

    workflow = await request.json()
    converted = convert_ui if "nodes" in workflow else convert  # the API form has nothing but nodes, by number
    for problem in converted(workflow, taken_ids(), offered_models()):
        logging.warning("lanced: %s", problem)
    return web.json_response(workflow)


def replace_other_packs() -> None:
    """Register both. Nothing where no server runs."""
    try:
        from server import PromptServer

        PromptServer.instance.add_on_prompt_handler(replace_in_prompt)
        PromptServer.instance.routes.post("/lanced/other_packs")(replace_in_workflow)
    except (ImportError, AttributeError):
        logging.debug("lanced: no server, so no graphs of other packs")
