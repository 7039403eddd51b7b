"""Saved graphs of other Lance packs as graphs of this one's nodes, by the table protocol/other_packs.json.

Works on ComfyUI's API form: {"3": {"class_type": ..., "inputs": {...}}, ...}, a link being ["node", output].
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

Graph = dict[str, Any]

TABLE = Path(__file__).resolve().parents[2] / "other_packs.json"
_PRECISIONS = {"bf16": "", "awq_int4": "-AWQ-INT4", "nvfp4": "-NVFP4"}


@cache
def table() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return content


def other_ids() -> set[str]:
    """Node ids of other packs, and of this one before, that the table knows."""
    return {entry["id"] for entry in table()["nodes"]}


def entry_for(node_id: str, names: Collection[str]) -> dict[str, Any] | None:
    """What the table says of a saved node: told by the names of its inputs. None: nothing that has them all."""
    fitting = [entry for entry in table()["nodes"] if entry["id"] == node_id and set(names) <= set(entry["inputs"])]
    return min(fitting, key=lambda entry: len(entry["inputs"]), default=None)


def convert(graph: Graph, taken: Collection[str] = (), models: Collection[str] = ()) -> list[str]:
    """Replace, in place, the nodes of other packs. taken: ids that somebody else has registered, whose nodes stay as
    they are. models: names that the daemon offers. Returns what could not be replaced, and why, a line each."""
    problems = []
    moved: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}  # by node: its entry, and the inputs that it had
    for key, node in graph.items():
        if not isinstance(node, dict) or node.get("class_type") not in other_ids() or node["class_type"] in taken:
            continue
        inputs = node.get("inputs", {})
        entry = entry_for(node["class_type"], inputs)
        if entry is None:
            problems.append(f"node {key}: no {node['class_type']} is known with the inputs {', '.join(inputs)}")
            continue
        only = entry.get("only", {})
        asked = {name: inputs[name] for name, value in only.items() if inputs.get(name, value) != value}
        if asked:
            words = ", ".join(f"{name} = {value}" for name, value in asked.items())
            problems.append(f"node {key}: {node['class_type']} with {words} has no counterpart here")
            continue
        moved[key] = entry, inputs
        node["inputs"] = _inputs_of(entry, inputs, models)
        node["class_type"] = entry["becomes"]
    _move_links(graph, moved)
    return problems


def _inputs_of(entry: Mapping[str, Any], inputs: Mapping[str, Any], models: Collection[str]) -> dict[str, Any]:
    made: dict[str, Any] = dict(table()["defaults"][entry["becomes"]])
    made |= {ours: inputs[theirs] for ours, theirs in entry["take"].items() if theirs in inputs}
    if made.get("resolution") == "auto":
        made["resolution"] = table()["defaults"][entry["becomes"]]["resolution"]
    if isinstance(size := inputs.get(entry.get("size", "")), str):
        made["height"], made["width"] = (int(side) for side in size.split("x"))
    if "model_of" in entry:
        flavour, precision = (inputs.get(name) for name in entry["model_of"])
        made["model"] = _model_named(f"{flavour}{_PRECISIONS.get(str(precision), '')}", models)
    return made


def _model_named(name: str, models: Collection[str]) -> str:
    """The offered model of that name in either spelling (Lance_3B-AWQ-INT4, Lance-3B-AWQ-INT4), else "automatic"."""
    return next((model for model in models if model.replace("_", "-") == name.replace("_", "-")), "automatic")


def _move_links(graph: Graph, moved: Mapping[str, tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """Have links that come from replaced nodes come from where the same thing is now."""
    for node in list(graph.values()):
        inputs = node.get("inputs", {}) if isinstance(node, dict) else {}
        for name, value in list(inputs.items()):
            if not (isinstance(value, list) and len(value) == 2 and str(value[0]) in moved):
                continue
            key = str(value[0])
            entry, had = moved[key]
            target = entry["outputs"].get(str(value[1]))
            if isinstance(target, int):
                inputs[name] = [key, target]
            elif target is None or ("input" in target and target["input"] not in had):
                del inputs[name]  # such as a line of status: nothing here gives it
            elif "input" in target:
                inputs[name] = had[target["input"]]
            else:
                inputs[name] = [_file_node(graph, key, target["file_of"]), 0]


def _file_node(graph: Graph, key: str, output: int) -> str:
    """The node that saves an output of node `key` and gives the file's path; added if it is not there yet."""
    name = f"{key}:file{output}"
    graph.setdefault(
        name,
        {
            "class_type": "LancedSaveFile",
            "inputs": table()["defaults"]["LancedSaveFile"] | {"what": [key, output]},
            "_meta": {"title": "Lance Save File"},
        },
    )
    return name
