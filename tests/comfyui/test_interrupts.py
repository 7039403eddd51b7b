"""Interrupt, at any moment of any task: the prompt ends within a step, and nothing is left behind."""

from __future__ import annotations

import itertools
import random
import time
from typing import Any

import pytest

from comfyui_server import ComfyUI
from figures import Figures
from lanced_client import Client
from saved_pictures import saved_pictures
from workflow_files import api_form

TASKS = ["t2i", "t2v", "i2v", "image_edit", "video_edit", "ask_image", "ask_video", "parts_refine"]
INTERRUPTS = 50
STAGES = ("start", "waits", "load", "prepare", "vit", "encode", "prefix", "denoise", "decode")
MARGIN_SECONDS = 0.5  # for how often a node looks, ComfyUI's own messages, and what else the machine does
STRAY_BYTES = 24 << 20  # what the C library keeps of freed memory, and ended jobs whose turn to be forgotten comes


def shapes(name: str) -> list[dict[str, Any]]:
    """Inputs that make a task take about a second or more, most of it in different stages."""
    if name == "ask_image":  # vit and prefix
        return [{"width": 1008, "height": 1008}, {"width": 896, "height": 1008}]
    if name == "ask_video":
        return [{"width": 560, "height": 560}, {"width": 560, "height": 672}]
    if name == "parts_refine":  # the size is that of its latent
        return [{"steps": 1000}]
    side = 512 if name in ("t2i", "image_edit") else 256
    return [
        {"width": 256, "height": 256, "steps": 1000},  # denoise
        {"width": side, "height": side, "steps": 1},  # vit, encode, decode
    ]


def undisturbed(comfyui: ComfyUI, name: str, shape: dict[str, Any]) -> tuple[float, float]:
    """How long it takes, at most a second, and the longest time between two things that it tells."""
    few_steps = shape | ({"steps": min(shape["steps"], 3)} if "steps" in shape else {})
    run = comfyui.run(api_form(name, seed=4999, **few_steps))
    assert run.status == "success", run.error
    moments = [run.started_at["2"], *run.progress_at]
    longest = max(after - before for before, after in itertools.pairwise(moments))
    return 1.0 if few_steps != shape else min(1.0, run.seconds), longest


def wait_until_idle(client: Client) -> None:
    deadline = time.monotonic() + 5
    while client.stats()["jobs"]["running"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert client.stats()["jobs"]["running"] == 0


def memory_bytes(client: Client) -> int:
    """What the daemon holds, less the blocks of prompts that it keeps on purpose."""
    stats = client.stats()
    return int(stats["memory"]["resident_bytes"]) - int(stats["prefix_cache"]["bytes"])


def test_fifty_interrupts_at_random_moments_end_within_a_step_and_leave_nothing_behind(
    comfyui: ComfyUI, client: Client, figures: Figures
) -> None:
    rng = random.Random(2026)
    cases = [(name, shape) for name in TASKS for shape in shapes(name)]
    times = [undisturbed(comfyui, name, shape) for name, shape in cases]
    before = memory_bytes(client)
    told: dict[str, list[str]] = {name: [] for name in TASKS}
    for number in range(INTERRUPTS):
        (name, shape), (seconds, step) = list(zip(cases, times, strict=True))[number % len(cases)]
        form = api_form(name, seed=5000 + number, **shape)
        if name.startswith("ask"):  # another size: the daemon keeps what it made of a picture
            form["2"]["inputs"]["height"] -= 16 * (1 + number // len(cases))
        run = comfyui.run(form, disturb=comfyui.interrupt, after_seconds=rng.uniform(0, 0.8 * seconds))
        assert run.status in ("interrupted", "success"), run.error
        wait_until_idle(client)
        if run.status == "success":
            told[name].append("done before")
            continue
        took = run.ended_after_disturbance_seconds
        first_word = run.told_before.split()[0] if run.told_before else "start"
        stage = first_word if first_word in STAGES else "text" if name.startswith("ask") else "start"
        told[name].append(f"{took * 1000:.0f} ms of {step * 1000:.0f} ({stage})")
        assert took < step + MARGIN_SECONDS, f"{name}, interrupted in {run.told_before!r}"
    for name, outcomes in told.items():
        figures.add("interrupts: ended after, of the longest step (stage)", f"{name}: {', '.join(outcomes)}")
        assert any("ms" in outcome for outcome in outcomes), f"every {name} was done before its interrupt"
    after = memory_bytes(client)
    figures.add("memory of the daemon", f"{before >> 20} MiB before {INTERRUPTS} interrupts, {after >> 20} MiB after")
    assert after - before < STRAY_BYTES


@pytest.mark.parametrize("name", TASKS)
def test_the_prompt_after_an_interrupt_is_right(comfyui: ComfyUI, client: Client, name: str) -> None:
    """Right: as if there had been no interrupt."""
    form = frames_as_pictures(api_form(name, seed=6000))
    expected = saved(comfyui, form)
    long = api_form(name, seed=6001, **shapes(name)[0])
    comfyui.run(long, disturb=comfyui.interrupt, after_seconds=0.3)
    comfyui.forget()
    assert saved(comfyui, form) == expected


def frames_as_pictures(form: dict[str, Any]) -> dict[str, Any]:
    """The same with the frames of the Lance node saved as they are: a video encoder's pixels are not the same twice."""
    for node in form.values():
        if node["class_type"] == "SaveVideo":
            node |= {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "frames"}}
    return form


def saved(comfyui: ComfyUI, form: dict[str, Any]) -> list[bytes | str]:
    """What the prompt's output nodes gave: pixels of pictures, and texts."""
    run = comfyui.run(form)
    assert run.status == "success", run.error
    assert "2" in run.executed, "it comes from the cache"
    found: list[bytes | str] = [text for output in run.outputs.values() for text in output.get("text", [])]
    found += [picture.tobytes() for picture in saved_pictures(comfyui, run.outputs)]
    assert found
    return found
