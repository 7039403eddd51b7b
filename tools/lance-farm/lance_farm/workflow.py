"""A workflow of ComfyUI in API form: its nodes, what can be set in them, the files that they name."""

from __future__ import annotations

import contextlib
import copy
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import FarmError

Graph = dict[str, dict[str, Any]]

# Inputs that name files in the folder of inputs (protocol/core_nodes.json has those of lancectl graph).
FILE_INPUTS = {"LoadImage": "image", "LoadImageMask": "image", "LoadVideo": "file", "LoadLatent": "latent"}
MODEL_NODE = "LancedModel"  # whose model and endpoint are the farm's to choose
_SHOWN = 12


def read_workflow(path: Path) -> Graph:
    """FarmError for what is none, or is in the form that ComfyUI draws."""
    try:
        graph = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise FarmError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise FarmError(f"{path} is no JSON: {error}") from None
    except RecursionError:
        raise FarmError(f"{path} is nested deeper than any workflow is") from None
    try:
        json.dumps(graph, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise FarmError(f"{path} has half a character (\\u{ord(error.object[error.start]):x} alone)") from None
    if isinstance(graph, dict) and isinstance(graph.get("prompt"), dict):
        graph = graph["prompt"]  # what POST /prompt takes
    if isinstance(graph, dict) and isinstance(graph.get("nodes"), list):
        raise FarmError(f"{path} is in the form that ComfyUI draws; in ComfyUI: Workflow > Export (API)")
    if not isinstance(graph, dict) or not graph:
        raise FarmError(f"{path} is no workflow in ComfyUI's API form")
    for key, node in graph.items():
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
            raise FarmError(f"{path}: node {key} has no class_type; export the workflow with Workflow > Export (API)")
        if not isinstance(node.setdefault("inputs", {}), dict):
            raise FarmError(f'{path}: "inputs" of node {key} is no object; export it with Workflow > Export (API)')
    return graph


def title_of(node: Mapping[str, Any]) -> str:
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    return title if isinstance(title, str) else str(node["class_type"])


def is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def settable(graph: Graph) -> list[str]:
    """NODE.INPUT of every input that has a value."""
    return [
        f"{key}.{name}" for key, node in graph.items() for name, value in node["inputs"].items() if not is_link(value)
    ]


def find_input(graph: Graph, name: str) -> tuple[str, str]:
    """The node's id and the input of NODE.INPUT, or of INPUT alone where only one node has it. FarmError with the
    choices."""
    found = [(key, rest) for key, rest in _readings(graph, name) if rest in graph[key]["inputs"]]
    if not found and "." not in name:
        found = [(key, name) for key, node in graph.items() if name in node["inputs"]]
        found = [(key, name) for key, name in found if not is_link(graph[key]["inputs"][name])]
    if len(found) == 1:
        key, rest = found[0]
        if is_link(graph[key]["inputs"][rest]):
            raise FarmError(f"{name} comes from another node of the workflow and cannot be set")
        return found[0]
    if found:
        choices = ", ".join(f"{key}.{rest} ({title_of(graph[key])})" for key, rest in found)
        raise FarmError(f'"{name}" is an input of {len(found)} nodes: {choices}; name one as NODE.INPUT')
    listed = settable(graph)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    raise FarmError(f'"{name}" is no input of the workflow; it has {", ".join(listed[:_SHOWN])}{more}')


def _readings(graph: Graph, name: str) -> Iterator[tuple[str, str]]:
    """Both NODE (an id, or a title) and INPUT may have dots in them."""
    for place, character in enumerate(name):
        if character == ".":
            node, rest = name[:place], name[place + 1 :]
            if node in graph:
                yield node, rest
            else:
                yield from ((key, rest) for key, entry in graph.items() if title_of(entry) == node)


def typed(text: str, before: Any) -> Any:
    """What a text of a table stands for, in place of a value of the workflow."""
    if isinstance(before, bool) and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if isinstance(before, int | float) and not isinstance(before, bool):
        try:
            return int(text)
        except ValueError:
            pass
        with contextlib.suppress(ValueError):
            if math.isfinite(number := float(text)):
                return number  # JSON has no others
        return text  # lancectl's check says what is wrong with it
    return text


def with_values(graph: Graph, values: Mapping[str, Any]) -> Graph:
    """The graph with other values; names are NODE.INPUT with the node's id. What does not change is shared with the
    graph, so that a hundred thousand tasks fit in memory: nothing is to be written into either."""
    changed = dict(graph)
    for name, value in values.items():
        key, rest = next((key, rest) for key, rest in _readings(graph, name) if rest in graph[key]["inputs"])
        changed[key] = changed[key] | {"inputs": changed[key]["inputs"] | {rest: value}}
    return changed


def farms_own(graph: Graph) -> Graph:
    """The graph without a choice of model and daemon: these are the farm's."""
    changed = copy.deepcopy(graph)
    for node in changed.values():
        if node["class_type"] == MODEL_NODE:
            node["inputs"] |= {"model": "automatic", "endpoint": ""}
    return changed


def files_of(graph: Graph) -> Iterator[tuple[str, str, str]]:
    """Node, input and name of every file that the graph names."""
    for key, node in graph.items():
        name = FILE_INPUTS.get(node["class_type"])
        value = node["inputs"].get(name) if name else None
        if name and isinstance(value, str):
            yield key, name, value


def canonical(graph: Graph) -> str:
    """A text that two graphs share when they do the same: without titles, and with keys in order."""
    bare = {key: {"class_type": node["class_type"], "inputs": node["inputs"]} for key, node in graph.items()}
    return json.dumps(bare, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
