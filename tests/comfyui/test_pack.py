"""What comes with the nodes: help pages, texts, templates, blueprints."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from comfyui_server import ROOT, ComfyUI
from workflow_files import NAMES, api_form

if TYPE_CHECKING:
    from front_end import FrontEnd

NODES = sorted(path.parent.name for path in (ROOT / "comfyui_nodes/web/docs").glob("*/en.md"))
BLUEPRINTS = sorted(path.stem for path in (ROOT / "subgraphs").glob("*.json"))
# What does not need its own explanation.
PLAIN = {"lance_model"}
# What protocol/nodes.json says of an input, and what a schema calls it.
SPECIFIED = {"default": "default", "minimum": "min", "maximum": "max", "choices": "options"}
NEED_NO_EXAMPLE = {"LancedUnload", "LancedSaveFile"}


def lance_nodes(comfyui: ComfyUI) -> dict[str, Any]:
    return {name: info for name, info in comfyui.get("/object_info").items() if name.startswith("Lanced")}


def specifications(info: dict[str, Any]) -> dict[str, tuple[Any, dict[str, Any]]]:
    """(kind, options) of every input by name."""
    found = info["input"].get("required", {}) | info["input"].get("optional", {})
    return {name: (*entry, {})[:2] for name, entry in found.items()}


def test_every_node_is_found_by_its_name_and_has_a_help_page_and_an_example(comfyui: ComfyUI) -> None:
    nodes = lance_nodes(comfyui)
    assert sorted(nodes) == NODES
    used = {node["class_type"] for name in NAMES for node in api_form(name).values()}
    assert set(nodes) - NEED_NO_EXAMPLE <= used
    for info in nodes.values():
        assert info["display_name"].startswith("Lance ")
        assert info["category"] in ("lance", "lance/compatibility")


@pytest.mark.parametrize("name", NODES)
def test_a_node_has_a_help_page_and_tooltips_and_is_in_the_documents(comfyui: ComfyUI, name: str) -> None:
    info = comfyui.get(f"/object_info/{name}")[name]
    folder = info["python_module"].rsplit(".", 1)[-1]
    served = comfyui.request(f"/extensions/{folder}/docs/{name}/en.md").decode()
    document = (ROOT / "docs/nodes.md").read_text()
    section = document.partition(f"(`{name}`)\n")[2].partition("\n## ")[0]
    inputs = specifications(info)
    for page in (served, section):
        rows = {
            entry.strip()
            for line in page.splitlines()
            if line.startswith("| ")
            for entry in line.split("|")[1].split(",")
        }
        assert rows >= {*inputs, *info["output_name"]} - ({"lance_model"} if name == "LancedModel" else set())
    assert info["description"]
    assert {key for key, (_, options) in inputs.items() if "tooltip" not in options} <= PLAIN


def test_the_english_texts_are_those_of_the_nodes(comfyui: ComfyUI) -> None:
    expected = {}
    for name, info in lance_nodes(comfyui).items():
        texts: dict[str, Any] = {"display_name": info["display_name"], "description": info["description"]}
        texts["inputs"] = {
            key: {"name": options.get("display_name", key)}
            | ({"tooltip": options["tooltip"]} if "tooltip" in options else {})
            for key, (_, options) in specifications(info).items()
        }
        tooltips = info.get("output_tooltips") or [None] * len(info["output_name"])
        texts["outputs"] = {
            str(index): {"name": key} | ({"tooltip": tooltip} if tooltip else {})
            for index, (key, tooltip) in enumerate(zip(info["output_name"], tooltips, strict=True))
        }
        expected[name] = texts
    out = ROOT / "build/comfyui/nodeDefs.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(expected, indent=2, ensure_ascii=False) + "\n")
    assert comfyui.get("/i18n")["en"]["nodeDefs"] == expected, f"copy {out} to locales/en/"


@pytest.mark.parametrize("name", NODES)
def test_the_table_of_nodes_has_the_inputs_and_outputs_of_the_node(comfyui: ComfyUI, name: str) -> None:
    """protocol/nodes.json, by which lancectl graph runs them."""
    info = comfyui.get(f"/object_info/{name}")[name]
    entry = json.loads((ROOT / "protocol/nodes.json").read_text())["nodes"][name]
    inputs = specifications(info)
    assert set(entry["inputs"]) == set(inputs)
    assert {key for key, given in entry["inputs"].items() if given.get("optional")} == set(
        info["input"].get("optional", {})
    )
    for key, (kind, options) in inputs.items():
        given = entry["inputs"][key]
        kind = "COMBO" if isinstance(kind, list) else kind
        assert set(given["type"].split(",")) == set(kind.split(",")), key
        if name == "LancedModel" and key == "model":
            continue  # its choices are the daemon's
        expected = {ours: options[theirs] for ours, theirs in SPECIFIED.items() if theirs in options}
        assert {ours: given[ours] for ours in SPECIFIED if ours in given} == expected, key
    made = [(output["type"], output["name"], output.get("list", False)) for output in entry["outputs"]]
    assert made == list(zip(info["output"], info["output_name"], info["output_is_list"], strict=True))
    assert entry.get("output_node", False) == info["output_node"]


def test_every_workflow_is_a_template_with_a_picture(comfyui: ComfyUI) -> None:
    (pack,) = (key for key in comfyui.get("/workflow_templates") if key == "lanced")
    assert sorted(comfyui.get("/workflow_templates")[pack]) == sorted([*NAMES, "t2i.api"])
    for name in NAMES:
        assert comfyui.request(f"/api/workflow_templates/{pack}/{name}.jpg")[:2] == b"\xff\xd8"


def test_every_blueprint_is_offered(comfyui: ComfyUI) -> None:
    offered = {entry["name"] for entry in comfyui.get("/global_subgraphs").values()}
    assert offered >= set(BLUEPRINTS)
    assert len(BLUEPRINTS) >= 4


# Puts what the blueprint needs before it and an output node behind it, at the demo model's sizes and with few steps.
COMPLETE = """
const sub = app.graph.nodes[0];
const loaders = {LANCED_MODEL: ['LancedModel', {}], IMAGE: ['LoadImage', {image: 'lance-circle.png'}],
                 'VIDEO,IMAGE': ['LoadVideo', {file: 'lance-square-moves.mp4'}]};
const savers = {IMAGE: ['SaveImage', 'images'], VIDEO: ['SaveVideo', 'video'], STRING: ['PreviewAny', 'source']};
const small = {width: 128, height: 128, num_frames: 5, steps: 4, cell_width: 128, cell_height: 128};
const widgets = [...sub.widgets, ...sub.subgraph.nodes.flatMap(node => node.widgets || [])];
for (const w of widgets) if (w.name in small) w.value = small[w.name];
for (const [i, input] of sub.inputs.entries()) {
  const entry = input.widget ? null : loaders[input.type] || loaders[input.type.split(',').reverse().join(',')];
  if (!entry) continue;
  const node = LiteGraph.createNode(entry[0]);
  app.graph.add(node);
  for (const w of node.widgets) if (w.name in entry[1]) w.value = entry[1][w.name];
  node.connect(0, sub, i);
}
for (const [i, output] of sub.outputs.entries()) {
  const [type, name] = savers[output.type];
  const node = LiteGraph.createNode(type);
  app.graph.add(node);
  sub.connect(i, node, node.findInputSlot(name));
}
return sub.inputs.filter(input => !input.widget && !input.link).length;
"""

# What stands beside the widgets of the blueprint that is open.
LABELS = """
const sub = app.graph.nodes[0];
return sub.widgets.map(w => w.label || (sub.inputs.find(input => input.widget?.name === w.name) || {}).label || w.name);
"""


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_a_blueprint_runs_once_it_has_a_model_and_something_to_work_on(
    comfyui: ComfyUI, front_end: FrontEnd, name: str
) -> None:
    assert front_end.open(json.loads((ROOT / f"subgraphs/{name}.json").read_text())) == []
    assert front_end.execute(COMPLETE) == 0, "unconnected"
    assert front_end.run() == "success"
    assert comfyui.last_outputs()


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_a_blueprint_shows_its_prompts_sizes_and_seeds_each_by_a_name_of_its_own(
    front_end: FrontEnd, name: str
) -> None:
    blueprint = json.loads((ROOT / f"subgraphs/{name}.json").read_text())
    assert front_end.open(blueprint) == []
    (definition,) = blueprint["definitions"]["subgraphs"]
    assert definition["category"] == "Lance"
    assert definition["description"].endswith(".")
    shown = front_end.execute(LABELS)
    given = [entry["label"] for entry in definition["inputs"] if "label" in entry]
    assert [label for label in shown if label != "seed" and not label.startswith("control")] == given
    assert "seed" in shown
    assert len(set(shown)) == len(shown)
    assert not [label for label in shown if re.search(r"_\d+$", label)]


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_what_a_blueprint_shows_is_what_it_does(front_end: FrontEnd, name: str) -> None:
    """The values on the outside are those that the nodes inside are given."""
    blueprint = json.loads((ROOT / f"subgraphs/{name}.json").read_text())
    assert front_end.open(blueprint) == []
    (definition,) = blueprint["definitions"]["subgraphs"]
    links = {link["id"]: link for link in definition["links"]}
    nodes = {node["id"]: node for node in definition["nodes"]}
    saved = front_end.api_form()
    for entry in definition["inputs"]:
        if "label" not in entry:
            continue
        index = [one["name"] for one in definition["inputs"] if "label" in one].index(entry["name"])
        for link in (links[number] for number in entry["linkIds"]):
            target = nodes[link["target_id"]]
            name_inside = target["inputs"][link["target_slot"]]["name"]
            (node,) = (node for key, node in saved.items() if key.endswith(f":{target['id']}"))
            assert node["inputs"][name_inside] == blueprint["nodes"][0]["widgets_values"][index], name_inside
