"""A long queue on a machine that others keep busy: each of its prompts is done once."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from comfyui_server import ComfyUI
from figures import Figures
from lanced_client import Client
from saved_pictures import saved_pixels
from stress import busy_machine
from workflow_files import api_form

PROMPTS = 50
PATIENCE_SECONDS = 600


def ended(comfyui: ComfyUI, names: list[str]) -> list[dict[str, Any]]:
    """Their entries in ComfyUI's history, when all have one."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        history = comfyui.get("/history")
        if all(name in history for name in names):
            return [history[name] for name in names]
        assert time.monotonic() < deadline, f"{sum(name in history for name in names)} of {len(names)} have ended"
        time.sleep(0.5)


def test_of_fifty_prompts_on_a_busy_machine_none_is_lost_and_none_made_twice(
    comfyui: ComfyUI, client: Client, figures: Figures
) -> None:
    assert comfyui.run(api_form("t2i", width=64, height=64, steps=2, seed=9499)).status == "success"
    before = client.stats()["jobs"]
    cores = os.cpu_count() or 1
    started = time.monotonic()
    with busy_machine(cores):
        forms = [api_form("t2i", width=128, height=128, steps=20, seed=9500 + number) for number in range(PROMPTS)]
        names = [json.loads(comfyui.request("/prompt", {"prompt": form}))["prompt_id"] for form in forms]
        entries = ended(comfyui, names)
    seconds = time.monotonic() - started
    after = client.stats()["jobs"]
    assert [entry["status"]["status_str"] for entry in entries] == ["success"] * PROMPTS
    assert {kind: after[kind] - before[kind] for kind in ("submitted", "done")} == dict.fromkeys(
        ("submitted", "done"), PROMPTS
    )
    files = [entry["outputs"]["3"]["images"] for entry in entries]
    assert len({file["filename"] for of_one in files for file in of_one}) == PROMPTS
    pictures = [pixels.tobytes() for entry in entries for pixels in saved_pixels(comfyui, entry["outputs"]["3"])]
    assert len(pictures) == len(set(pictures)) == PROMPTS, "every seed has a picture of its own"
    figures.add("a queue", f"{PROMPTS} prompts beside {cores} busy loops: all done, each once, in {seconds:.1f} s")
