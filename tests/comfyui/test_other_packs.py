"""Graphs saved with other Lance packs, which are not installed here, give what ours give for the same values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from comfyui_server import ComfyUI
from saved_pictures import saved_pixels
from workflow_files import api_form

if TYPE_CHECKING:
    from front_end import FrontEnd

VALUES = {
    "prompt": "a large red circle on the left on a blue background",
    "num_steps": 5,
    "cfg_scale": 4.0,
    "seed": 4001,
}


def saved_by(comfyui: ComfyUI, form: dict[str, Any]) -> np.ndarray[Any, Any]:
    run = comfyui.run(form)
    assert run.status == "success", run.error
    return saved_pixels(comfyui, run.outputs["3"])[0]


def test_a_picture_of_lance_quants_nodes_is_the_one_of_ours(comfyui: ComfyUI) -> None:
    theirs: dict[str, Any] = {
        "1": {"class_type": "LanceModelLoader", "inputs": {"flavor": "Lance_3B", "precision": "awq_int4"}},
        "2": {"class_type": "LanceT2I", "inputs": VALUES | {"lance_model": ["1", 0], "size": "128x192"}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "theirs"}},
    }
    ours = api_form("t2i", prompt=VALUES["prompt"], steps=5, seed=4001, height=128, width=192)
    np.testing.assert_array_equal(saved_by(comfyui, theirs), saved_by(comfyui, ours))


def test_an_answer_of_their_question_node_and_a_path_of_their_video_node_are_there(comfyui: ComfyUI) -> None:
    form: dict[str, Any] = {
        "1": {"class_type": "LanceModelLoader", "inputs": {"flavor": "Lance_3B", "precision": "awq_int4"}},
        "2": {"class_type": "LoadImage", "inputs": {"image": "lance-circle.png"}},
        "4": {
            "class_type": "LanceX2TImage",
            "inputs": {"lance_model": ["1", 0], "image": ["2", 0], "question": "What shape is it?"},
        },
        "5": {
            "class_type": "LanceT2V",
            "inputs": VALUES | {"lance_model": ["1", 0], "num_frames": 5, "height": 96, "width": 96},
        },
        "6": {"class_type": "PreviewAny", "inputs": {"source": ["4", 0]}},
        "7": {"class_type": "PreviewAny", "inputs": {"source": ["5", 0]}},
    }
    ours = api_form("ask_image", question="What shape is it?", resolution="image_768res", width=0, height=0)
    form |= {"8": ours["2"], "9": {"class_type": "PreviewAny", "inputs": {"source": ["8", 0]}}}
    form["8"]["inputs"] |= {"image": ["2", 0], "lance_model": ["1", 0]}
    run = comfyui.run(form)
    assert run.status == "success", run.error
    assert run.outputs["6"]["text"] == run.outputs["9"]["text"]
    (path,) = run.outputs["7"]["text"]
    assert path.endswith(".mp4")
    assert "/output/" in path


def test_a_graph_of_ours_from_before_the_ids_were_ours_runs(comfyui: ComfyUI) -> None:
    ours = api_form("t2i", steps=4, seed=4002)
    before = {key: dict(node) for key, node in api_form("t2i", steps=4, seed=4002).items()}
    for node in before.values():
        node["class_type"] = node["class_type"].replace("Lanced", "Lance")
        newer = ("negative_prompt", "interval_low", "interval_high")
        node["inputs"] = {name: value for name, value in node["inputs"].items() if name not in newer}
    np.testing.assert_array_equal(saved_by(comfyui, before), saved_by(comfyui, ours))


def test_an_api_form_of_theirs_opens_with_our_nodes(front_end: FrontEnd) -> None:
    theirs: dict[str, Any] = {
        "1": {"class_type": "LanceModelLoader", "inputs": {"flavor": "Lance_3B", "precision": "awq_int4"}},
        "2": {"class_type": "LanceT2I", "inputs": VALUES | {"lance_model": ["1", 0], "size": "128x192"}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "theirs"}},
    }
    assert front_end.open(theirs) == []
    node = front_end.api_form()["2"]
    assert node["class_type"] == "LancedTextToImage"
    assert (node["inputs"]["height"], node["inputs"]["width"], node["inputs"]["steps"]) == (128, 192, 5)


def test_a_saved_workflow_of_theirs_opens_with_our_nodes_and_runs(comfyui: ComfyUI, front_end: FrontEnd) -> None:
    position = {"pos": [50, 50], "size": [300, 200], "flags": {}, "mode": 0, "properties": {}}
    model = {"name": "lance_model", "type": "LANCE_MODEL"}
    nodes = [
        {"id": 1, "type": "LanceModelLoader", "outputs": [model | {"links": [1]}],
         "widgets_values": ["Lance_3B", "awq_int4"]},
        {"id": 2, "type": "LanceT2I", "inputs": [model | {"link": 1}],
         "widgets_values": ["a red circle", 3, 4.0, 7, "512x512"],
         "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [2]}]},
        {"id": 3, "type": "PreviewImage", "inputs": [{"name": "images", "type": "IMAGE", "link": 2}]},
    ]  # fmt: skip
    links = [[1, 1, 0, 2, 0, "LANCE_MODEL"], [2, 2, 0, 3, 0, "IMAGE"]]
    placed = [node | position | {"order": order} for order, node in enumerate(nodes)]
    workflow = {"nodes": placed, "links": links, "last_node_id": 3, "last_link_id": 2, "version": 0.4}
    assert front_end.open(workflow) == []
    node = front_end.api_form()["2"]
    assert node["class_type"] == "LancedTextToImage"
    asked = {name: node["inputs"][name] for name in ("prompt", "steps", "guidance", "seed", "width", "height")}
    assert asked == {"prompt": "a red circle", "steps": 3, "guidance": 4.0, "seed": 7, "width": 512, "height": 512}
    assert front_end.run() == "success"
