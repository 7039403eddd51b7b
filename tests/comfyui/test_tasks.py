"""The nodes of all tasks: what they take and give, and that nothing that happens meanwhile is in the artist's way."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from typing import Any

import pytest

from comfyui_server import ROOT, ComfyUI, Run
from lanced_client import Client, LanceError

pytestmark = pytest.mark.usefixtures("sources")

TASKS = ["t2i", "t2v", "i2v", "image_edit", "video_edit", "ask_image", "ask_video"]
INTERRUPTS_PER_TASK = 8
KILLS_PER_TASK = 3
TASK_NODE = "2"


def workflow(name: str, **inputs: Any) -> dict[str, Any]:
    """A workflow of the repository with other inputs of its Lance node, and an output nobody has cached."""
    prompt: dict[str, Any] = json.loads((ROOT / f"workflows/{name}.api.json").read_text())
    prompt[TASK_NODE]["inputs"].update(inputs)
    return prompt


def long_workflow(name: str, seed: int) -> dict[str, Any]:
    """One that takes seconds, in every stage that the task has."""
    if name.startswith("ask"):
        side = 1120 if name == "ask_image" else 560
        return workflow(name, width=side, height=side, seed=seed)
    return workflow(name, width=256, height=256, steps=1000, seed=seed)


def wait_until_idle(client: Client) -> None:
    deadline = time.monotonic() + 5
    while client.stats()["jobs"]["running"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert client.stats()["jobs"]["running"] == 0


def answers(run: Run) -> list[str]:
    return [text for output in run.outputs.values() for text in output.get("text", [])]


def test_previews_of_a_video_move_and_its_steps_are_told_by_stage(comfyui: ComfyUI, client: Client) -> None:
    run = comfyui.run(workflow("t2v", seed=91, steps=200))
    assert run.status == "success", run.error
    assert len(set(run.previews)) > 6
    told = {text.split()[0] for text in run.texts}
    assert {"prefix", "denoise", "decode"} <= told
    values = [value for value, _ in run.progress]
    assert values == sorted(values)


def test_an_answer_appears_under_the_node(comfyui: ComfyUI, client: Client) -> None:
    run = comfyui.run(workflow("ask_image", seed=92))
    assert run.texts[-1] == "a large red circle on the left on a blue background"


def test_a_video_node_takes_frames_as_well_as_a_video(comfyui: ComfyUI, client: Client) -> None:
    prompt = workflow("ask_video", video=["5", 0], fps=12.0)
    prompt["5"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["4", 0]}}
    run = comfyui.run(prompt)
    assert run.status == "success", run.error
    assert "from left to right" in answers(run)


def test_a_question_about_several_pictures_gets_an_answer_for_each(comfyui: ComfyUI, client: Client) -> None:
    prompt = workflow("ask_image", image=["6", 0], question="What shape is it?")
    prompt["5"] = {"class_type": "LoadImage", "inputs": {"image": "lance-square.png"}}
    prompt["6"] = {"class_type": "ImageBatch", "inputs": {"image1": ["4", 0], "image2": ["5", 0]}}
    run = comfyui.run(prompt)
    assert run.status == "success", run.error
    assert "circle\nsquare" in answers(run)


def test_an_edit_of_several_pictures_gives_each_the_result_it_has_alone(comfyui: ComfyUI, client: Client) -> None:
    prompt = workflow("image_edit", image=["6", 0], prompt="make it green", steps=5, batch_size=2)
    prompt["6"] = {"class_type": "ImageBatch", "inputs": {"image1": ["4", 0], "image2": ["4", 0]}}
    run = comfyui.run(prompt)
    assert run.status == "success", run.error
    files = [comfyui.fetch_file(entry) for entry in run.outputs["3"]["images"]]
    assert len(files) == 4
    pixels = [file[file.index(b"IDAT") :] for file in files]  # what comes before holds the workflow
    assert pixels[:2] == pixels[2:]
    assert pixels[0] != pixels[1], "a batch uses seed, seed + 1"


def test_a_size_may_come_from_another_node_and_half_a_size_is_refused_before_the_run(
    comfyui: ComfyUI, client: Client
) -> None:
    linked = workflow("image_edit", width=["7", 0], steps=2)
    linked["7"] = {"class_type": "PrimitiveInt", "inputs": {"value": 128}}
    run = comfyui.run(linked)
    assert run.status == "success", run.error
    half = comfyui.run(workflow("image_edit", width=0))
    assert half.status == "rejected"
    assert "give both width and height or neither" in half.error
    linked["7"]["inputs"]["value"] = 100
    late = comfyui.run(linked)
    assert late.status == "error"
    assert "width must be a multiple of 16" in late.error


def test_unloading_models_in_comfyui_frees_the_daemons_memory_too(comfyui: ComfyUI, client: Client) -> None:
    assert comfyui.run(workflow("t2i", seed=93, steps=2)).status == "success"
    assert client.hello().model is not None
    comfyui.request("/free", {"unload_models": True})
    deadline = time.monotonic() + 5
    while client.hello().model is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert client.hello().model is None
    assert comfyui.run(workflow("t2i", seed=94, steps=2)).status == "success"


@pytest.mark.parametrize("name", TASKS)
def test_an_interrupt_at_any_moment_ends_within_a_step(
    comfyui: ComfyUI, client: Client, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(name)
    took = []
    for seed in range(INTERRUPTS_PER_TASK):
        run = comfyui.run(long_workflow(name, 1000 + seed), interrupt_after_seconds=rng.uniform(0, 1))
        assert run.status in ("interrupted", "success"), run.error
        if run.status == "interrupted":
            took.append(round(run.ended_after_interrupt_seconds * 1000))
        wait_until_idle(client)
    with capsys.disabled():
        print(f"\n  {name}: {len(took)} of {INTERRUPTS_PER_TASK} interrupted, after {took} ms", end=" ")
    assert took, "every prompt was done before its interrupt"
    assert max(took) < 1000
    assert comfyui.run(workflow(name, seed=rng.randrange(1 << 32))).status == "success"


@pytest.mark.parametrize("name", TASKS)
def test_a_daemon_killed_at_any_moment_costs_time_but_not_the_prompt(
    comfyui: ComfyUI, client: Client, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(name)
    saw = []
    for seed in range(KILLS_PER_TASK):
        with contextlib.suppress(LanceError):
            threading.Timer(rng.uniform(0, 0.8), os.kill, (client.hello().pid, signal.SIGKILL)).start()
        inputs = {} if name.startswith("ask") else {"steps": 100}
        run = comfyui.run(workflow(name, seed=2000 + seed, **inputs))
        saw.append(f"{run.seconds:.1f} s{', started again' if any('went away' in text for text in run.texts) else ''}")
        assert run.status == "success", run.error
        assert comfyui.is_alive()
    with capsys.disabled():
        print(f"\n  {name}: {'; '.join(saw)}", end=" ")
