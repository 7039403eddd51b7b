"""What a node asks of the daemon, by the table protocol/nodes.json: its task, and the parameters its inputs become."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from .inputs import resolution_of

TABLE = Path(__file__).resolve().parents[1] / "protocol/nodes.json"


@cache
def _nodes() -> dict[str, dict[str, Any]]:
    nodes: dict[str, dict[str, Any]] = json.loads(TABLE.read_text(encoding="utf-8"))["nodes"]
    return nodes


def _entry_of(node: type[io.ComfyNode]) -> dict[str, Any]:
    return _nodes()[node.define_schema().node_id]


def task_of(node: type[io.ComfyNode], kind: str = "") -> str:
    """kind: of a node that has several tasks, such as "video with source"."""
    task = _entry_of(node)["task"]
    return str(task[kind] if kind else task)


def parameters_of(node: type[io.ComfyNode], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the request for these values of the node's inputs; one that is not among them has its default.
    ValueError for a size that cannot be."""
    entry = _entry_of(node)
    becoming = {name: given for name, given in entry["inputs"].items() if given["becomes"] == "parameter"}
    pieces: dict[str, dict[Any, Any]] = defaultdict(dict)  # parameter: {place in a list or part of a resolution: value}
    usual: dict[str, bool] = {}  # parameter: whether it is left out where all of its inputs are at their defaults
    for name, given in becoming.items():
        value = inputs.get(name, given.get("default"))
        is_left_out = given.get("unless_default", False) and value == given["default"]
        usual[given["parameter"]] = usual.get(given["parameter"], True) and is_left_out
        pieces[given["parameter"]][given.get("place", given.get("part"))] = given.get("values", {}).get(value, value)
    asked = {name: _joined(of) for name, of in pieces.items() if not usual[name]}
    return dict(entry.get("parameters", {})) | asked


def _joined(pieces: Mapping[Any, Any]) -> Any:
    if None in pieces:
        return pieces[None]
    if "preset" in pieces:
        return resolution_of(pieces["preset"], pieces["width"], pieces["height"])
    return [pieces[place] for place in sorted(pieces)]
