"""The same as other_packs.py for the form that ComfyUI saves: nodes with widgets by position, and links of their own.

Each node of another pack is read into names and values, converted as in the API form, and written as ours; links go
where the same thing is now. A subgraph's nodes are replaced as those of the graph itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from .other_packs import convert, other_ids, table

# Inputs that are sockets, not widgets, in the table's packs and here.
SOCKETS = {
    "lance_model", "pipeline", "image", "video", "images", "frames", "video_frames", "video_audio", "pixels", "latent",
    "latent_image", "source", "noise", "mask", "what",
}  # fmt: skip
_AFTER_SEED = ("fixed", "increment", "decrement", "randomize")
_GRAPH_INPUT, _GRAPH_OUTPUT = -10, -20  # what a subgraph's links begin and end at besides nodes
_KINDS = {"LancedTextToVideo": ["IMAGE", "VIDEO"], "LancedVideoEdit": ["IMAGE", "VIDEO"]}  # of outputs; else an IMAGE

Node = dict[str, Any]


def convert_ui(workflow: dict[str, Any], taken: Collection[str] = (), models: Collection[str] = ()) -> list[str]:
    """Replace, in place, the nodes of other packs in a saved workflow. Arguments and result as convert's."""
    problems = []
    subgraphs = workflow.get("definitions", {}).get("subgraphs", [])
    for graph in (_SavedGraph(content) for content in (workflow, *subgraphs)):
        for node in list(graph.nodes.values()):
            if node.get("type") in other_ids() and node["type"] not in taken:
                problems += _convert_node(graph, node, models)
    return problems


class _Link:
    """A link of either form: a list in a graph, an object in a subgraph."""

    _PLACES = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")

    def __init__(self, content: Any) -> None:
        self.content = content

    def __getitem__(self, name: str) -> Any:
        return self.content[self._PLACES.index(name) if isinstance(self.content, list) else name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.content[self._PLACES.index(name) if isinstance(self.content, list) else name] = value


class _SavedGraph:
    """A saved graph, or a subgraph's definition, with what keeps its nodes and links in step."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._content = content
        self.nodes: dict[Any, Node] = {node["id"]: node for node in content.get("nodes", [])}
        self.links = {link["id"]: link for link in map(_Link, content.get("links", []))}

    def used_by(self, output: Mapping[str, Any]) -> Iterator[_Link]:
        return (self.links[link] for link in list(output.get("links") or []) if link in self.links)

    def remove(self, link: _Link) -> None:
        """It begins and ends nowhere any more."""
        if link["origin_id"] == _GRAPH_INPUT:
            known = self._content["inputs"][link["origin_slot"]].get("linkIds", [])
        else:
            outputs = self.nodes.get(link["origin_id"], {}).get("outputs", [])
            known = [] if link["origin_slot"] >= len(outputs) else outputs[link["origin_slot"]].get("links") or []
        if link["id"] in known:
            known.remove(link["id"])
        target = self.nodes.get(link["target_id"])
        if target is not None:
            for entry in target.get("inputs", []):
                if entry.get("link") == link["id"]:
                    entry["link"] = None
        elif link["target_id"] == _GRAPH_OUTPUT:
            self._content["outputs"][link["target_slot"]]["linkIds"].remove(link["id"])
        self._content["links"].remove(link.content)
        del self.links[link["id"]]

    def lead_from(self, link: _Link, origin: Any, slot: int, kind: str) -> None:
        """Have a link begin elsewhere, and be known there."""
        link["origin_id"], link["origin_slot"], link["type"] = origin, slot, kind
        if origin == _GRAPH_INPUT:
            known = self._content["inputs"][slot].setdefault("linkIds", [])
        else:
            output = self.nodes[origin]["outputs"][slot]
            known = output["links"] = output.get("links") or []
        if link["id"] not in known:
            known.append(link["id"])

    def add_node(self, node: Node) -> None:
        node["id"] = self._next("node", self.nodes)
        self.nodes[node["id"]] = node
        self._content["nodes"].append(node)

    def add_link(self, origin: Any, slot: int, target: Any, target_slot: int, kind: str) -> int:
        content: Any = [self._next("link", self.links), origin, slot, target, target_slot, kind]
        if any(isinstance(link.content, dict) for link in self.links.values()):
            content = dict(zip(_Link._PLACES, content, strict=True))
        self._content["links"].append(content)
        link = self.links[_Link(content)["id"]] = _Link(content)
        self.lead_from(link, origin, slot, kind)
        number: int = link["id"]
        return number

    def _next(self, what: str, there: Collection[Any]) -> int:
        """A number that no node or link has, noted where ComfyUI notes the last one."""
        number = 1 + max((key for key in there if isinstance(key, int)), default=0)
        counters = self._content.get("state", self._content)
        for name in (f"last_{what}_id", f"last{what.capitalize()}Id"):
            if name in counters:
                number = max(number, counters[name] + 1)
                counters[name] = number
        return number


def _convert_node(graph: _SavedGraph, node: Node, models: Collection[str]) -> list[str]:
    theirs = _entry_of(node)
    if theirs is None:
        return [f"node {node['id']}: no {node['type']} is known with such inputs"]
    sockets = {entry["name"]: entry.get("link") for entry in node.get("inputs", []) if entry.get("link") is not None}
    values = _widgets_of(theirs, node.get("widgets_values") or [])
    linked = {name: [str(link), 0] for name, link in sockets.items()}
    alone = {"1": {"class_type": node["type"], "inputs": values | linked}}
    problems = convert(alone, models=models)
    if problems:
        return [problem.replace("node 1:", f"node {node['id']}:") for problem in problems]
    outputs = node.get("outputs", [])
    node |= {"type": theirs["becomes"], "outputs": [], "properties": {"Node name for S&R": theirs["becomes"]}}
    _move_outputs(graph, node, outputs, sockets, theirs)
    _write_inputs(graph, node, alone["1"]["inputs"], theirs)
    return []


def _entry_of(node: Mapping[str, Any]) -> dict[str, Any] | None:
    """By the names of sockets and saved widgets; of several, the one with as many widgets as there are values."""
    names = {entry["name"] for entry in node.get("inputs", [])}
    fitting = [entry for entry in table()["nodes"] if entry["id"] == node["type"] and names <= set(entry["inputs"])]
    count = sum(value not in _AFTER_SEED for value in node.get("widgets_values") or [])
    return min(fitting, key=lambda entry: abs(len(_widget_names(entry)) - count), default=None)


def _widget_names(entry: Mapping[str, Any]) -> list[str]:
    return [name for name in entry["inputs"] if name not in SOCKETS]


def _widgets_of(entry: Mapping[str, Any], values: list[Any]) -> dict[str, Any]:
    rest = [value for value in values if value not in _AFTER_SEED]
    return dict(zip(_widget_names(entry), rest, strict=False))


def _write_inputs(graph: _SavedGraph, node: Node, inputs: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Our sockets, and our widgets in their order."""
    becomes = theirs["becomes"]
    names = _names_of_ours(becomes, inputs)
    kinds = {entry["name"]: entry.get("type", "*") for entry in node.get("inputs", [])}
    saved: list[dict[str, Any]] = []
    kept = set()
    for name in names:
        value = inputs.get(name)
        is_link = isinstance(value, list)
        if name not in SOCKETS and not is_link:
            continue
        kind = "LANCED_MODEL" if name == "lance_model" else kinds.get(theirs["take"].get(name, name), "*")
        link = next((key for key in graph.links if isinstance(value, list) and str(key) == value[0]), None)
        if link is not None:
            kept.add(link)
            graph.links[link]["target_slot"], graph.links[link]["type"] = len(saved), kind
        widget = {} if name in SOCKETS else {"widget": {"name": name}}
        saved.append({"name": name, "type": kind, "link": link} | widget)
    for entry in node.get("inputs", []):
        if entry.get("link") in graph.links and entry["link"] not in kept:
            graph.remove(graph.links[entry["link"]])
    after_seed = next((value for value in node.get("widgets_values") or [] if value in _AFTER_SEED), "fixed")
    widgets: list[Any] = []
    for name in names:
        if name in SOCKETS:
            continue
        value = inputs.get(name)
        widgets.append(table()["defaults"][becomes].get(name) if isinstance(value, list) else value)
        if name == "seed" and not becomes.startswith("LancedAsk"):
            widgets.append(after_seed)
    node |= {"inputs": saved, "widgets_values": widgets}


def _move_outputs(
    graph: _SavedGraph,
    node: Node,
    outputs: list[dict[str, Any]],
    sockets: Mapping[str, Any],
    theirs: Mapping[str, Any],
) -> None:
    """Their outputs in the places that ours have, and their links from where the same thing is now."""
    for index, output in enumerate(outputs):
        target = theirs["outputs"].get(str(index))
        links = list(graph.used_by(output))
        if isinstance(target, int):
            kind = "LANCED_MODEL" if theirs["becomes"] == "LancedModel" else output.get("type", "*")
            place = _output(node, target)
            place |= {name: value for name, value in output.items() if name not in ("links", "type")} | {"type": kind}
            for link in links:
                graph.lead_from(link, node["id"], target, kind)
        elif target is not None and "file_of" in target and links:
            _save_file(graph, node, target["file_of"], links)
        elif target is not None and "input" in target and target["input"] in sockets:
            source = sockets[target["input"]]
            origin = next((link for link in graph.links.values() if link["id"] == source), None)
            for link in links:
                if origin is not None:
                    graph.lead_from(link, origin["origin_id"], origin["origin_slot"], origin["type"])
        else:  # such as a line of status: nothing here gives it
            for link in links:
                graph.remove(link)


def _output(node: Node, place: int) -> dict[str, Any]:
    kinds = _KINDS.get(node["type"], ["IMAGE"])
    while len(node["outputs"]) <= place:
        count = len(node["outputs"])
        node["outputs"].append({"name": "", "type": kinds[count] if count < len(kinds) else "*", "links": None})
    output: dict[str, Any] = node["outputs"][place]
    return output


def _save_file(graph: _SavedGraph, node: Node, place: int, links: list[_Link]) -> None:
    """The node that saves an output of `node` and gives the file's path, which `links` want."""
    kind = _KINDS.get(node["type"], ["IMAGE"])[place]
    _output(node, place)
    left, top = (node.get("pos") or [0, 0])[:2]
    width = (node.get("size") or [400, 0])[0]
    saver: Node = {
        "type": "LancedSaveFile",
        "pos": [left + width + 40, top],
        "size": [300, 100],
        "flags": {},
        "order": node.get("order", 0),
        "mode": node.get("mode", 0),
        "inputs": [{"name": "what", "type": "IMAGE,VIDEO", "link": None}],
        "outputs": [{"name": "path", "type": "STRING", "links": None}],
        "properties": {"Node name for S&R": "LancedSaveFile"},
        "widgets_values": [table()["defaults"]["LancedSaveFile"]["filename_prefix"]],
    }
    graph.add_node(saver)
    saver["inputs"][0]["link"] = graph.add_link(node["id"], place, saver["id"], 0, kind)
    for link in links:
        graph.lead_from(link, saver["id"], 0, "STRING")


def _names_of_ours(becomes: str, inputs: Mapping[str, Any]) -> list[str]:
    """The inputs of one of our nodes in their order: as its graphs of before have them, then what is new since. Nodes
    that are new themselves, and ComfyUI's, have few: as they come."""
    same = [
        entry["take"]
        for entry in table()["nodes"]
        if entry["becomes"] == becomes and all(ours == theirs for ours, theirs in entry["take"].items())
    ]
    return list(dict.fromkeys([*max(same, key=len, default=inputs), *table()["defaults"][becomes]]))
