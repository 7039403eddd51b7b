"""The nodes of all tasks: what they take and give."""

from __future__ import annotations

import io
import json
import re
import time

import numpy as np
import pytest
from PIL import Image

from comfyui_server import ComfyUI, Run
from lanced_client import Client
from saved_pictures import saved_pixels
from workflow_files import NAMES, api_form


def answers(run: Run) -> list[str]:
    return [text for output in run.outputs.values() for text in output.get("text", [])]


def test_previews_of_a_video_move_and_its_steps_are_told_by_stage(comfyui: ComfyUI, client: Client) -> None:
    run = comfyui.run(api_form("t2v", seed=91, steps=200, prompt="a prompt whose prefix nobody has kept"))
    assert run.status == "success", run.error
    assert len(set(run.previews)) > 6
    told = {text.split()[0] for text in run.texts}
    assert {"prefix", "denoise", "decode"} <= told
    values = [value for value, _ in run.progress]
    assert values == sorted(values)


def test_a_video_made_with_the_model_for_pictures_says_so(comfyui: ComfyUI) -> None:
    run = comfyui.run(api_form("t2v", seed=98, steps=2))
    assert run.status == "success", run.error
    time_taken, _, remark = run.texts[-1].partition(";\n")
    assert time_taken.split()[1] == "s"
    assert remark.startswith("made with lance-demo: ")
    assert "made for pictures: no model for videos that fits is here" in remark


@pytest.mark.parametrize("name", ["t2i", "image_edit", "t2v", "i2v", "video_edit"])
def test_the_last_preview_is_the_finished_picture_or_the_finished_frames_moving(comfyui: ComfyUI, name: str) -> None:
    form = api_form(name, seed=97, steps=5)
    for node in form.values():
        if node["class_type"] == "SaveVideo":
            node |= {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "frames"}}
    run = comfyui.run(form)
    assert run.status == "success", run.error
    frames = saved_pixels(comfyui, run.outputs["3"])
    with Image.open(io.BytesIO(run.previews[-1])) as shown:
        assert getattr(shown, "n_frames", 1) == len(frames)
        for index, frame in enumerate(frames):
            shown.seek(index)
            seen = shown.convert("RGB").resize(frame.shape[1::-1])
            assert np.abs(np.asarray(seen).astype(float) - frame).mean() < 12, index


def test_an_answer_appears_under_the_node(comfyui: ComfyUI, client: Client) -> None:
    run = comfyui.run(api_form("ask_image", seed=92))
    assert run.texts[-1] == "a large red circle on the left on a blue background"


def test_a_video_node_takes_frames_as_well_as_a_video(comfyui: ComfyUI, client: Client) -> None:
    prompt = api_form("ask_video", video=["5", 0], fps=12.0)
    prompt["5"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["4", 0]}}
    run = comfyui.run(prompt)
    assert run.status == "success", run.error
    assert "from left to right" in answers(run)


def test_a_question_about_several_pictures_gets_an_answer_for_each(comfyui: ComfyUI, client: Client) -> None:
    prompt = api_form("ask_image", image=["6", 0], question="What shape is it?")
    prompt["5"] = {"class_type": "LoadImage", "inputs": {"image": "lance-square.png"}}
    prompt["6"] = {"class_type": "ImageBatch", "inputs": {"image1": ["4", 0], "image2": ["5", 0]}}
    run = comfyui.run(prompt)
    assert run.status == "success", run.error
    assert "circle\nsquare" in answers(run)


def test_an_edit_of_several_pictures_gives_each_the_result_it_has_alone(comfyui: ComfyUI, client: Client) -> None:
    prompt = api_form("image_edit", image=["6", 0], prompt="make it green", steps=5, batch_size=2)
    prompt["6"] = {"class_type": "ImageBatch", "inputs": {"image1": ["4", 0], "image2": ["4", 0]}}
    run = comfyui.run(prompt)
    assert run.status == "success", run.error
    files = [comfyui.fetch_file(entry) for entry in run.outputs["3"]["images"]]
    assert len(files) == 4
    pixels = [file[file.index(b"IDAT") :] for file in files]  # what comes before holds the workflow
    assert pixels[:2] == pixels[2:]
    assert pixels[0] != pixels[1], "a batch uses seed, seed + 1"


PRIMITIVES = {bool: "PrimitiveBoolean", int: "PrimitiveInt", float: "PrimitiveFloat", str: "PrimitiveStringMultiline"}
CHOICES = {"resolution", "batch", "add_noise", "return_with_leftover_noise"}  # a menu takes no link


@pytest.mark.parametrize("name", NAMES)
def test_every_number_and_text_of_a_node_may_come_from_another_node(comfyui: ComfyUI, name: str) -> None:
    form = api_form(name)
    for key, node in list(form.items()):
        if not node["class_type"].startswith("Lanced") or node["class_type"] == "LancedModel":
            continue
        for index, (entry, value) in enumerate(node["inputs"].items()):
            if isinstance(value, list) or entry in CHOICES:
                continue
            source = f"{key}0{index}"
            form[source] = {"class_type": PRIMITIVES[type(value)], "inputs": {"value": value}}
            node["inputs"][entry] = [source, 0]
    run = comfyui.run(form)
    assert run.status == "success", run.error


def test_a_size_may_come_from_the_size_of_a_picture(comfyui: ComfyUI) -> None:
    form = api_form("t2i", width=["9", 0], height=["9", 1], steps=2)
    form["8"] = {"class_type": "LoadImage", "inputs": {"image": "lance-circle.png"}}
    form["9"] = {"class_type": "GetImageSize", "inputs": {"image": ["8", 0]}}
    run = comfyui.run(form)
    assert run.status == "success", run.error


def test_a_size_may_come_from_another_node_and_half_a_size_is_refused_before_the_run(
    comfyui: ComfyUI, client: Client
) -> None:
    linked = api_form("image_edit", width=["7", 0], steps=2)
    linked["7"] = {"class_type": "PrimitiveInt", "inputs": {"value": 128}}
    run = comfyui.run(linked)
    assert run.status == "success", run.error
    half = comfyui.run(api_form("image_edit", width=0))
    assert half.status == "rejected"
    assert "give both width and height or neither" in half.error
    linked["7"]["inputs"]["value"] = 100
    late = comfyui.run(linked)
    assert late.status == "error"
    assert "width must be a multiple of 16" in late.error


@pytest.mark.parametrize("name", ["t2i", "t2v", "i2v", "image_edit", "video_edit", "ask_image", "ask_video"])
def test_what_is_found_wrong_only_while_it_runs_is_told_under_the_node(comfyui: ComfyUI, name: str) -> None:
    form = api_form(name, width=["20", 0])
    form["20"] = {"class_type": "PrimitiveInt", "inputs": {"value": 100}}
    run = comfyui.run(form)
    assert run.status == "error"
    assert re.search("width .*multiples? of 16", run.error)  # the node's words, or the daemon's
    assert run.error_type == "lance.Refused"
    assert run.texts[-1] == run.error.strip()


def test_unloading_models_in_comfyui_frees_the_daemons_memory_too(comfyui: ComfyUI, client: Client) -> None:
    assert comfyui.run(api_form("t2i", seed=93, steps=2)).status == "success"
    assert client.hello().model is not None
    comfyui.request("/free", {"unload_models": True})
    deadline = time.monotonic() + 5
    while client.hello().model is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert client.hello().model is None
    assert comfyui.run(api_form("t2i", seed=94, steps=2)).status == "success"


@pytest.mark.parametrize("name", ["t2i", "t2v", "i2v", "image_edit", "video_edit", "parts_refine"])
def test_a_negative_prompt_and_an_interval_are_the_daemons_and_the_receipt_says_so(comfyui: ComfyUI, name: str) -> None:
    form = api_form(name, steps=4, seed=95)
    given = {"negative_prompt": "blue", "interval_low": 0.2, "interval_high": 0.9}
    before, after = comfyui.run(form), comfyui.run(api_form(name, steps=4, seed=95, **given))
    assert after.status == "success", after.error
    assert "2" in before.executed and "2" in after.executed
    if name == "parts_refine":  # gives no receipt
        return
    shown = form | {"20": {"class_type": "PreviewAny", "inputs": {"source": ["2", 3 if "v" in name else 2]}}}
    shown["2"]["inputs"] |= given
    (text,) = comfyui.run(shown).outputs["20"]["text"]
    params = json.loads(text)["params"]
    assert (params["negative_prompt"], params["guidance_interval"]) == ("blue", [0.2, 0.9])


def test_a_graph_from_before_there_was_a_negative_prompt_gives_the_same_picture(comfyui: ComfyUI) -> None:
    form = api_form("t2i", steps=4, seed=96)
    (now,) = saved_pixels(comfyui, comfyui.run(form).outputs["3"])
    for name in ("negative_prompt", "interval_low", "interval_high"):
        del form["2"]["inputs"][name]
    (then,) = saved_pixels(comfyui, comfyui.run(form).outputs["3"])
    (other,) = saved_pixels(comfyui, comfyui.run(api_form("t2i", steps=4, seed=96, negative_prompt="red")).outputs["3"])
    assert (now == then).all()
    assert (now != other).any()
