"""The same as other_packs.py for the form that ComfyUI saves: nodes with widgets by position, and links of their own.

Each node of another pack is read into names and values, converted as in the API form, and written as ours. A node whose
path goes on to another node, or whose output is an input of its own, stays: it is replaced once the graph is submitted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .other_packs import convert, other_ids, table

# Inputs that are sockets, not widgets, in the table's packs and here.
SOCKETS = {
    "lance_model", "pipeline", "image", "video", "images", "frames", "video_frames", "video_audio", "pixels", "latent",
    "latent_image", "source", "noise",
}  # fmt: skip
_AFTER_SEED = ("fixed", "increment", "decrement", "randomize")


def convert_ui(workflow: dict[str, Any], taken: Collection[str] = (), models: Collection[str] = ()) -> list[str]:
    """Replace, in place, the nodes of other packs in a saved workflow. Arguments and result as convert's."""
    problems = []
    links = {link[0]: link for link in workflow.get("links", []) if isinstance(link, list)}
    for node in workflow.get("nodes", []):
        if node.get("type") in other_ids() and node["type"] not in taken:
            problems += _convert_node(node, links, models)
    return problems


def _convert_node(node: dict[str, Any], links: Mapping[Any, list[Any]], models: Collection[str]) -> list[str]:
    theirs = _entry_of(node)
    if theirs is None:
        return [f"node {node['id']}: no {node['type']} is known with such inputs"]
    used = {str(index) for index, output in enumerate(node.get("outputs", [])) if output.get("links")}
    if any(isinstance(target, dict) and index in used for index, target in theirs["outputs"].items()):
        return [f"node {node['id']}: what {node['type']} gives can only be replaced once it is submitted"]
    sockets = {entry["name"]: entry.get("link") for entry in node.get("inputs", []) if entry.get("link") is not None}
    values = _widgets_of(theirs, node.get("widgets_values") or [])
    linked = {name: [str(link), 0] for name, link in sockets.items()}
    graph = {"1": {"class_type": node["type"], "inputs": values | linked}}
    problems = convert(graph, models=models)
    if problems:
        return [problem.replace("node 1:", f"node {node['id']}:") for problem in problems]
    _write(node, graph["1"]["inputs"], theirs, links)
    return []


def _entry_of(node: Mapping[str, Any]) -> dict[str, Any] | None:
    """By the names of sockets and saved widgets; of several, the one with as many widgets as there are values."""
    names = {entry["name"] for entry in node.get("inputs", [])}
    fitting = [
        entry for entry in table()["nodes"] if entry["id"] == node["type"] and names <= set(entry["inputs"])
    ]
    count = sum(value not in _AFTER_SEED for value in node.get("widgets_values") or [])
    return min(fitting, key=lambda entry: abs(len(_widget_names(entry)) - count), default=None)


def _widget_names(entry: Mapping[str, Any]) -> list[str]:
    return [name for name in entry["inputs"] if name not in SOCKETS]


def _widgets_of(entry: Mapping[str, Any], values: list[Any]) -> dict[str, Any]:
    rest = [value for value in values if value not in _AFTER_SEED]
    return dict(zip(_widget_names(entry), rest, strict=False))


def _write(
    node: dict[str, Any], inputs: Mapping[str, Any], theirs: Mapping[str, Any], links: Mapping[Any, list[Any]]
) -> None:
    """Make the saved node one of ours: its sockets, widgets in our order, and its links to where they belong now."""
    becomes = theirs["becomes"]
    names = _names_of_ours(becomes, inputs)
    kinds = {entry["name"]: entry.get("type", "*") for entry in node.get("inputs", [])}
    saved: list[dict[str, Any]] = []
    for name in names:
        value = inputs.get(name)
        is_link = isinstance(value, list)
        if name not in SOCKETS and not is_link:
            continue
        their_name = theirs["take"].get(name, name)
        kind = "LANCED_MODEL" if name == "lance_model" else kinds.get(their_name, "*")
        link = next((key for key in links if isinstance(value, list) and str(key) == value[0]), None)
        if link is not None:
            links[link][4], links[link][5] = len(saved), kind
        widget = {} if name in SOCKETS else {"widget": {"name": name}}
        saved.append({"name": name, "type": kind, "link": link} | widget)
    widgets: list[Any] = []
    for name in names:
        if name in SOCKETS:
            continue
        value = inputs.get(name)
        widgets.append(table()["defaults"][becomes].get(name) if isinstance(value, list) else value)
        if name == "seed" and not becomes.startswith("LancedAsk"):
            widgets.append("fixed")
    outputs = _outputs_of(node, theirs, links)
    node |= {"type": becomes, "inputs": saved, "outputs": outputs, "widgets_values": widgets}
    node["properties"] = {"Node name for S&R": becomes}


def _outputs_of(
    node: Mapping[str, Any], theirs: Mapping[str, Any], links: Mapping[Any, list[Any]]
) -> list[dict[str, Any]]:
    """Their outputs in the places that ours have, with their links; those without a counterpart and a link are gone."""
    placed: dict[int, dict[str, Any]] = {}
    for index, output in enumerate(node.get("outputs", [])):
        place = theirs["outputs"].get(str(index))
        if not isinstance(place, int):
            continue
        kind = "LANCED_MODEL" if theirs["becomes"] == "LancedModel" else output.get("type", "*")
        placed[place] = output | {"type": kind}
        for link in output.get("links") or []:
            if link in links:
                links[link][2], links[link][5] = place, kind
    empty = {"name": "", "type": "*", "links": None}
    return [placed.get(place, dict(empty)) for place in range(max(placed, default=-1) + 1)]


def _names_of_ours(becomes: str, inputs: Mapping[str, Any]) -> list[str]:
    """The inputs of one of our nodes in their order, as its graphs of before have them. Nodes that are new since, and
    ComfyUI's, have few: as they come."""
    same = [
        entry["take"]
        for entry in table()["nodes"]
        if entry["becomes"] == becomes and all(ours == theirs for ours, theirs in entry["take"].items())
    ]
    return list(max(same, key=len, default=inputs))
