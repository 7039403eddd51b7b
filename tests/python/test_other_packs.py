"""Graphs of other packs as ours: which node is meant, what becomes of its inputs and outputs."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from lanced_client.other_packs import convert, entry_for, other_ids, table
from lanced_client.other_packs_ui import convert_ui

NODES = table()["nodes"]
SHARED = [
    pytest.param(one, other, id=f"{one['id']}: {one['pack']}, {other['pack']}")
    for one, other in itertools.combinations(NODES, 2)
    if one["id"] == other["id"]
]


@pytest.mark.parametrize(("one", "other"), SHARED)
def test_packs_that_share_an_id_are_told_apart_by_the_saved_names(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert entry_for(one["id"], one["inputs"]) == one
    assert entry_for(other["id"], other["inputs"]) == other


@pytest.mark.parametrize("entry", NODES, ids=lambda entry: f"{entry['id']} of {entry['pack']}")
def test_an_entry_takes_only_what_is_there_and_fills_the_rest(entry: dict[str, Any]) -> None:
    assert set(entry["take"].values()) <= set(entry["inputs"])
    assert set(entry.get("only", {})) <= set(entry["inputs"])
    assert entry["becomes"] in table()["defaults"]
    inputs = dict.fromkeys(entry["inputs"]) | entry.get("only", {})
    graph = {"1": {"class_type": entry["id"], "inputs": inputs}}
    assert convert(graph) == []
    assert graph["1"]["class_type"] == entry["becomes"]


def test_the_model_and_size_of_lance_quant_become_ours() -> None:
    graph = {
        "1": {"class_type": "LanceModelLoader", "inputs": {"flavor": "Lance_3B", "precision": "awq_int4"}},
        "2": {
            "class_type": "LanceT2I",
            "inputs": {"lance_model": ["1", 0], "prompt": "a fox", "num_steps": 12, "cfg_scale": 3.0, "seed": 7,
                       "size": "512x768"},
        },
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }
    assert convert(graph, models=["Lance_3B", "Lance-3B-AWQ-INT4"]) == []
    assert graph["1"] == {"class_type": "LancedModel", "inputs": {"model": "Lance-3B-AWQ-INT4", "endpoint": ""}}
    assert graph["2"]["inputs"] == {
        "lance_model": ["1", 0], "prompt": "a fox", "steps": 12, "guidance": 3.0, "seed": 7, "shift": 3.5,
        "height": 512, "width": 768, "batch_size": 1, "negative_prompt": "", "interval_low": 0.4, "interval_high": 1.0,
    }  # fmt: skip
    assert graph["3"]["inputs"] == {"images": ["2", 0]}


def test_a_path_output_becomes_a_file_that_is_saved_once() -> None:
    inputs = {"lance_model": ["1", 0], "prompt": "a fox runs", "num_frames": 9, "height": 96, "width": 96}
    graph: dict[str, Any] = {
        "2": {"class_type": "LanceT2V", "inputs": inputs},
        "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 0]}},
        "4": {"class_type": "PreviewAny", "inputs": {"source": ["2", 0]}},
    }
    assert convert(graph) == []
    assert graph["3"]["inputs"]["source"] == graph["4"]["inputs"]["source"] == ["2:file1", 0]
    assert graph["2:file1"]["inputs"]["what"] == ["2", 1], "the VIDEO"


def test_sound_and_rate_of_the_fork_go_on() -> None:
    names = ("lance_model", "video_frames", "video_fps", "instruction", "video_audio")
    graph: dict[str, Any] = {
        "2": {"class_type": "LanceVideoEdit", "inputs": {name: [name, 0] for name in names}},
        "3": {"class_type": "CreateVideo", "inputs": {"images": ["2", 0], "audio": ["2", 1], "fps": ["2", 2]}},
    }
    assert convert(graph) == []
    assert graph["3"]["inputs"] == {"images": ["2", 0], "audio": ["video_audio", 0], "fps": ["2", 5]}


def test_what_ours_cannot_do_is_left_alone_and_said() -> None:
    inputs = {"prompt": "x", "batch_index": 2, "steps": 3}
    graph = {"2": {"class_type": "LanceImageEditing", "inputs": dict(inputs)}}
    assert convert(graph) == ["node 2: LanceImageEditing with batch_index = 2 has no counterpart here"]
    assert graph["2"] == {"class_type": "LanceImageEditing", "inputs": inputs}


def test_the_interval_of_their_guidance_is_ours() -> None:
    inputs = {"prompt": "x", "cfg_start": 0.1, "cfg_end": 0.9}
    graph: dict[str, Any] = {"2": {"class_type": "LanceImageGeneration", "inputs": inputs}}
    assert convert(graph) == []
    assert (graph["2"]["inputs"]["interval_low"], graph["2"]["inputs"]["interval_high"]) == (0.1, 0.9)


def test_ids_that_another_pack_has_and_nodes_of_nobody_stay() -> None:
    graph = {"1": {"class_type": "LanceT2I", "inputs": {"prompt": "x"}}, "2": {"class_type": "KSampler", "inputs": {}}}
    before = {key: dict(node) for key, node in graph.items()}
    assert convert(graph, taken=other_ids()) == []
    assert graph == before
    odd = {"1": {"class_type": "LanceT2I", "inputs": {"prompt": "x", "what": 1}}}
    assert convert(odd) == ["node 1: no LanceT2I is known with the inputs prompt, what"]


def saved_workflow() -> dict[str, Any]:
    """As ComfyUI saves it: a loader, a picture, what shows it."""
    return {
        "nodes": [
            {"id": 1, "type": "LanceModelLoader", "widgets_values": ["Lance_3B", "awq_int4"],
             "outputs": [{"name": "lance_model", "type": "LANCE_MODEL", "links": [1]}]},
            {"id": 2, "type": "LanceT2I", "inputs": [{"name": "lance_model", "type": "LANCE_MODEL", "link": 1}],
             "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [2]}],
             "widgets_values": ["a fox", 12, 3.0, 7, "fixed", "512x768"]},
            {"id": 3, "type": "PreviewImage", "inputs": [{"name": "images", "type": "IMAGE", "link": 2}]},
        ],
        "links": [[1, 1, 0, 2, 0, "LANCE_MODEL"], [2, 2, 0, 3, 0, "IMAGE"]],
    }


def test_a_saved_workflow_of_lance_quant_has_our_nodes_widgets_and_links() -> None:
    workflow = saved_workflow()
    assert convert_ui(workflow, models=["Lance_3B-AWQ-INT4"]) == []
    loader, picture, shown = workflow["nodes"]
    assert (loader["type"], loader["widgets_values"]) == ("LancedModel", ["Lance_3B-AWQ-INT4", ""])
    assert picture["type"] == "LancedTextToImage"
    assert picture["inputs"] == [{"name": "lance_model", "type": "LANCED_MODEL", "link": 1}]
    assert picture["widgets_values"] == ["a fox", 768, 512, 12, 3.0, 3.5, 7, "fixed", 1, "", 0.4, 1.0]
    assert workflow["links"] == [[1, 1, 0, 2, 0, "LANCED_MODEL"], [2, 2, 0, 3, 0, "IMAGE"]]
    assert shown["type"] == "PreviewImage"


def test_a_saved_workflow_whose_pack_is_installed_stays() -> None:
    workflow = saved_workflow()
    assert convert_ui(workflow, taken=other_ids()) == []
    assert workflow == saved_workflow()


def test_outputs_go_to_the_places_that_ours_have_and_a_path_that_nobody_uses_does_not_matter() -> None:
    inputs = [{"name": "lance_model", "type": "LANCE_MODEL", "link": None}]
    outputs = [{"name": "Video", "type": "VIDEO", "links": [1]}, {"name": "Frames", "type": "IMAGE", "links": [2]},
               {"name": "Path", "type": "STRING", "links": None}]  # fmt: skip
    values = ["a fox", 96, 96, 9, 7, "fixed", 3, 4.0, 3.0, 0.4, 1.0, "auto", 384, 64, "auto", 6.0]
    workflow: dict[str, Any] = {
        "nodes": [
            {"id": 1, "type": "LanceTextToVideo", "inputs": inputs, "outputs": outputs, "widgets_values": values}
        ],
        "links": [[1, 1, 0, 2, 0, "VIDEO"], [2, 1, 1, 3, 0, "IMAGE"]],
    }
    assert convert_ui(workflow) == []
    (node,) = workflow["nodes"]
    assert node["type"] == "LancedTextToVideo"
    assert node["widgets_values"] == ["a fox", 96, 96, 9, 3, 4.0, 3.0, 7, "fixed", "", 0.4, 1.0]
    assert [output["type"] for output in node["outputs"]] == ["IMAGE", "VIDEO"]
    assert [link[2] for link in workflow["links"]] == [1, 0]


def test_a_saved_question_has_all_widgets_of_ours() -> None:
    inputs = [{"name": "lance_model", "link": 1}, {"name": "image", "link": 2}]
    workflow: dict[str, Any] = {
        "nodes": [{"id": 3, "type": "LanceX2TImage", "inputs": inputs, "widgets_values": ["What is it?"]}],
        "links": [[1, 1, 0, 3, 0, "LANCE_MODEL"], [2, 2, 0, 3, 1, "IMAGE"]],
    }
    assert convert_ui(workflow) == []
    assert workflow["nodes"][0]["widgets_values"] == ["What is it?", "image_768res", 0, 0, 256, 0.0, 0, 1.0, 1.0, 0]


def ends_meet(graph: dict[str, Any]) -> bool:
    """Every link is known where it begins and where it ends, and nothing names a link that is not there."""
    links = [dict(zip(LINK, link, strict=True)) if isinstance(link, list) else link for link in graph["links"]]
    nodes = {node["id"]: node for node in graph["nodes"]}
    for link in links:
        outside = graph["inputs"] if link["origin_id"] == -10 else None
        origin = outside or nodes[link["origin_id"]]["outputs"]
        assert link["id"] in (origin[link["origin_slot"]].get("linkIds") or origin[link["origin_slot"]].get("links"))
        if link["target_id"] == -20:
            assert link["id"] in graph["outputs"][link["target_slot"]]["linkIds"]
        else:
            assert nodes[link["target_id"]]["inputs"][link["target_slot"]]["link"] == link["id"]
    ends = [entry["link"] for node in graph["nodes"] for entry in node.get("inputs", []) if entry["link"] is not None]
    ends += [link for entry in graph.get("outputs", []) for link in entry["linkIds"]]
    begins = [link for node in graph["nodes"] for entry in node.get("outputs", []) for link in entry["links"] or []]
    begins += [link for entry in graph.get("inputs", []) for link in entry["linkIds"]]
    return sorted(begins) == sorted(ends) == sorted(link["id"] for link in links)


LINK = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")


def test_a_saved_path_that_goes_on_comes_from_a_node_that_saves_the_file() -> None:
    workflow: dict[str, Any] = {
        "last_node_id": 9, "last_link_id": 5,
        "nodes": [
            {"id": 1, "type": "LanceModelLoader", "widgets_values": ["Lance_3B_Video", "bf16"],
             "outputs": [{"name": "lance_model", "type": "LANCE_MODEL", "links": [1]}]},
            {"id": 2, "type": "LanceT2V", "pos": [500, 40], "size": [300, 200],
             "inputs": [{"name": "lance_model", "type": "LANCE_MODEL", "link": 1}],
             "outputs": [{"name": "video_path", "type": "STRING", "links": [2, 3]}],
             "widgets_values": ["a fox runs", 9, 96, 96, 12, 3.0, 7, "fixed"]},
            {"id": 3, "type": "PreviewAny", "inputs": [{"name": "source", "type": "*", "link": 2}]},
            {"id": 4, "type": "PreviewAny", "inputs": [{"name": "source", "type": "*", "link": 3}]},
        ],
        "links": [[1, 1, 0, 2, 0, "LANCE_MODEL"], [2, 2, 0, 3, 0, "STRING"], [3, 2, 0, 4, 0, "STRING"]],
    }  # fmt: skip
    assert convert_ui(workflow) == []
    assert ends_meet(workflow)
    *_, saver = workflow["nodes"]
    assert (saver["id"], saver["type"], saver["widgets_values"]) == (10, "LancedSaveFile", ["lance"])
    assert [6, 2, 1, 10, 0, "VIDEO"] in workflow["links"]
    assert [link[1:3] for link in workflow["links"] if link[0] in (2, 3)] == [[10, 0], [10, 0]]
    assert (workflow["last_node_id"], workflow["last_link_id"]) == (10, 6)


def saved_edit_of_the_fork() -> dict[str, Any]:
    """In a subgraph, whose sound comes from outside and goes through to another node, as does the rate."""
    nodes: list[dict[str, Any]] = [
        {"id": 1, "type": "LanceVideoEdit",
         "inputs": [{"name": "lance_model", "type": "LANCE_MODEL", "link": 1},
                    {"name": "video_frames", "type": "IMAGE", "link": 2},
                    {"name": "video_audio", "type": "AUDIO", "link": 3}],
         "outputs": [{"name": "frames", "type": "IMAGE", "links": [4]},
                     {"name": "audio", "type": "AUDIO", "links": [5]},
                     {"name": "fps", "type": "FLOAT", "links": [6]}],
         "widgets_values": [24.0, "make it night", 12, 3.0, 7, "fixed"]},
        {"id": 2, "type": "CreateVideo",
         "inputs": [{"name": "images", "type": "IMAGE", "link": 4}, {"name": "audio", "type": "AUDIO", "link": 5},
                    {"name": "fps", "type": "FLOAT", "link": 6}],
         "outputs": [{"name": "VIDEO", "type": "VIDEO", "links": [7]}]},
    ]  # fmt: skip
    rows = [
        (1, -10, 0, 1, 0, "LANCE_MODEL"), (2, -10, 1, 1, 1, "IMAGE"), (3, -10, 2, 1, 2, "AUDIO"),
        (4, 1, 0, 2, 0, "IMAGE"), (5, 1, 1, 2, 1, "AUDIO"), (6, 1, 2, 2, 2, "FLOAT"), (7, 2, 0, -20, 0, "VIDEO"),
    ]  # fmt: skip
    return {
        "nodes": nodes,
        "links": [dict(zip(LINK, row, strict=True)) for row in rows],
        "inputs": [{"linkIds": [number]} for number in (1, 2, 3)],
        "outputs": [{"linkIds": [7]}],
        "state": {"lastNodeId": 2, "lastLinkId": 7},
    }


def test_nodes_in_a_saved_subgraph_are_replaced_and_what_went_through_goes_past() -> None:
    subgraph = saved_edit_of_the_fork()
    assert convert_ui({"nodes": [], "links": [], "definitions": {"subgraphs": [subgraph]}}) == []
    assert ends_meet(subgraph)
    edit = subgraph["nodes"][0]
    assert edit["type"] == "LancedVideoEdit"
    assert [entry["name"] for entry in edit["inputs"]] == ["lance_model", "video"]
    origins = {link["id"]: (link["origin_id"], link["origin_slot"]) for link in subgraph["links"]}
    assert origins == {1: (-10, 0), 2: (-10, 1), 4: (1, 0), 5: (-10, 2), 6: (1, 5), 7: (2, 0)}


def test_a_saved_line_of_status_leads_nowhere() -> None:
    workflow: dict[str, Any] = {
        "nodes": [
            {"id": 1, "type": "LanceLoadModel", "widgets_values": ["auto", "image", "cuda"],
             "outputs": [{"name": "lance_model", "type": "LANCE_MODEL", "links": None},
                         {"name": "status", "type": "STRING", "links": [1]}]},
            {"id": 2, "type": "PreviewAny", "inputs": [{"name": "source", "type": "*", "link": 1}]},
        ],
        "links": [[1, 1, 1, 2, 0, "STRING"]],
    }  # fmt: skip
    assert convert_ui(workflow) == []
    assert ends_meet(workflow)
    assert workflow["links"] == []
