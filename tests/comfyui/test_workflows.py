"""Every workflow that comes along, in both its forms: it opens, it runs as saved, and it gives what it promises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from comfyui_server import ROOT, ComfyUI
from demo.shapes import CANVAS, look
from saved_pictures import saved_pictures
from workflow_files import NAMES, api_form, ui_form

if TYPE_CHECKING:
    from front_end import FrontEnd

SCREENSHOTS = ROOT / "build/comfyui"
CIRCLE = {"shape": "circle", "colour": "red", "background": "blue", "size": "large", "place": "left"}

# What the last picture, the last frame or the answer of a workflow shows. Attributes that the demo model often gets
# wrong (demo/train/README.md) are left out: the form of what moves.
SHOWS: dict[str, dict[str, str] | str] = {
    "t2i": CIRCLE,
    "image_edit": CIRCLE | {"shape": "square"},
    "t2v": {"colour": "green", "background": "white", "place": "right"},
    "i2v": {"colour": "yellow", "background": "black", "place": "right"},
    "video_edit": {"colour": "red", "background": "yellow", "place": "right"},
    "ask_image": "a large red circle on the left on a blue background",
    "ask_video": "from left to right",
    "parts_two_samplers": CIRCLE,
    "parts_refine": CIRCLE | {"colour": "yellow"},
    "chain_t2i_edit_i2v": {"colour": "red", "background": "black", "place": "right"},
    "chain_question_edit": CIRCLE | {"colour": "yellow"},
    "chain_seeds_grid": {"shape": "triangle", "colour": "green", "background": "white", "size": "small"},
    "chain_video_restyle": {"colour": "green", "background": "yellow", "place": "right"},
}

DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"  # a menu whose entries have inputs of their own
DISPLAYS = ("preview", "previewMode", "video-preview")


def what_is_asked_for(form: dict[str, Any]) -> dict[str, Any]:
    """The nodes and inputs of an API form, without what the front end adds for its own displays. An input of a choice
    that has inputs of its own ("format.codec") counts by its own name, as it stood before there were such choices."""
    return {
        key: (
            node["class_type"],
            {name.rpartition(".")[2]: value for name, value in node["inputs"].items() if name not in DISPLAYS},
        )
        for key, node in form.items()
    }


def check_what_it_shows(comfyui: ComfyUI, name: str, outputs: dict[str, Any]) -> None:
    expected = SHOWS[name]
    if isinstance(expected, str):
        assert expected in [text for output in outputs.values() for text in output.get("text", [])]
        return
    *_, picture = saved_pictures(comfyui, outputs)
    got = look(picture[-CANVAS:, -CANVAS:])  # of a grid, the last cell
    assert {attribute: getattr(got, attribute) for attribute in expected} == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_runs_as_it_is_saved_and_shows_what_it_asks_for(comfyui: ComfyUI, name: str) -> None:
    run = comfyui.run(api_form(name))
    assert run.status == "success", run.error
    check_what_it_shows(comfyui, name, run.outputs)


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_opens_in_the_front_end_without_a_warning_and_runs_there(
    comfyui: ComfyUI, front_end: FrontEnd, name: str
) -> None:
    from front_end import save_small_jpeg

    assert front_end.open(ui_form(name)) == []
    assert what_is_asked_for(front_end.api_form()) == what_is_asked_for(api_form(name))
    comfyui.request("/free", {"free_memory": True})  # what another form has just made is made again
    assert front_end.run() == "success"
    check_what_it_shows(comfyui, name, comfyui.last_outputs())
    save_small_jpeg(front_end.picture(), SCREENSHOTS / f"{name}.jpg")


def widget_values(node: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """The widgets of a node of a UI workflow by name, as the front end reads them: by position."""
    values = iter(node["widgets_values"])
    named = {}
    entries = list((info["input"]["required"] | info["input"].get("optional", {})).items())
    while entries:
        name, entry = entries.pop(0)
        kind, options = (*entry, {})[:2]
        if not (isinstance(kind, list) or kind in ("COMBO", "STRING", "INT", "FLOAT", "BOOLEAN", DYNAMIC_COMBO)):
            continue
        if name in named:
            continue  # it came with a choice before it
        named[name] = next(values)
        if kind == DYNAMIC_COMBO:
            (chosen,) = (option for option in options["options"] if option["key"] == named[name])
            entries = [*chosen["inputs"].get("required", {}).items(), *entries]
            continue
        if any(options.get(extra) for extra in ("control_after_generate", "image_upload", "video_upload")):
            next(values)  # a second widget that the front end adds
    assert next(values, None) is None, f"{node['type']} has more widget values than widgets"
    return named


@pytest.mark.parametrize("name", NAMES)
def test_the_ui_form_of_a_workflow_has_known_nodes_and_says_what_its_api_form_says(comfyui: ComfyUI, name: str) -> None:
    ui = ui_form(name)
    api = api_form(name)
    links = {link[0]: link for link in ui["links"]}
    nodes = {node["id"]: node for node in ui["nodes"]}
    assert {str(key) for key in nodes} == set(api)
    for node in ui["nodes"]:
        known = comfyui.get(f"/object_info/{node['type']}")
        assert node["type"] in known, f"ComfyUI has no node {node['type']}"
        inputs = widget_values(node, known[node["type"]])
        for slot_in, entry in enumerate(node["inputs"]):
            if entry.get("link") is not None:
                _, source, slot, target, target_slot, kind = links[entry["link"]]
                assert (target, target_slot) == (node["id"], slot_in)
                assert nodes[source]["outputs"][slot]["type"] == kind
                assert kind in entry["type"].split(",") or entry["type"] == "*"
                inputs[entry["name"]] = [str(source), slot]
        assert inputs == api[str(node["id"])]["inputs"]
        assert node["type"] == api[str(node["id"])]["class_type"]
