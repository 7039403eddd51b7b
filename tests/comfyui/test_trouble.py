"""The daemon goes away, is replaced, or is of another version while ComfyUI runs."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from comfyui_server import ComfyUI
from figures import Figures
from lanced_client import Client, LanceError
from lanced_process import DEMO_AWQ, DEMO_MODEL, Lanced
from scripted_daemon import scripted_daemon
from workflow_files import api_form

TASKS = ["t2i", "t2v", "i2v", "image_edit", "video_edit", "ask_image", "ask_video", "parts_refine"]
KILLS = 20


def test_twenty_kills_at_random_moments_cost_time_but_no_prompt(
    comfyui: ComfyUI, client: Client, figures: Figures
) -> None:
    rng = random.Random(2027)
    seconds = {name: comfyui.run(killable(name, 7000)).seconds for name in TASKS}
    killed = 0

    def kill() -> None:
        nonlocal killed
        with contextlib.suppress(LanceError, ProcessLookupError):  # it is just being started
            os.kill(client.hello().pid, signal.SIGKILL)
            killed += 1

    number = 0
    while killed < KILLS:
        name = TASKS[number % len(TASKS)]
        number += 1
        before = killed
        run = comfyui.run(killable(name, 7000 + number), disturb=kill, after_seconds=rng.uniform(0, seconds[name]))
        assert run.status == "success", run.error
        assert comfyui.is_alive()
        if killed > before:
            saw = "'lanced went away; trying again', " if any("went away" in text for text in run.texts) else ""
            moment = f"at {run.told_before!r}" if run.told_before else "at its start"
            figures.add(f"what was seen of {KILLS} kill -9", f"{name} {moment}: {saw}done in {run.seconds:.1f} s"
                        f" (undisturbed: {seconds[name]:.1f} s)")
        next_one = comfyui.run(api_form("t2i", seed=8000 + number, steps=2))
        assert next_one.status == "success", next_one.error
    assert number < 2 * KILLS, "most kills came too late"


def killable(name: str, seed: int) -> dict[str, Any]:
    """A prompt of about a second."""
    return api_form(name, seed=seed, **({"width": 560, "height": 560} if name.startswith("ask") else {"steps": 100}))


def test_a_daemon_killed_under_a_prompt_is_started_again_and_the_picture_is_the_same(
    comfyui: ComfyUI, client: Client
) -> None:
    form = api_form("t2i", width=256, height=256, steps=60, seed=3001)
    expected = saved_pixels(comfyui, form)
    comfyui.request("/free", {"free_memory": True})
    daemon = client.hello()
    run = comfyui.run(form, disturb=lambda: os.kill(daemon.pid, signal.SIGKILL), after_seconds=0.5)
    assert run.status == "success", run.error
    assert client.hello().generation != daemon.generation
    assert any("went away" in text for text in run.texts)
    assert pixels(comfyui, run.outputs) == expected


def test_a_daemon_killed_between_prompts_leaves_no_stale_handle(comfyui: ComfyUI, client: Client) -> None:
    assert comfyui.run(api_form("t2i", seed=3002, steps=2)).status == "success"
    os.kill(client.hello().pid, signal.SIGKILL)
    again = comfyui.run(api_form("t2i", seed=3003, steps=2))
    assert again.status == "success", again.error
    assert "1" not in again.executed, "the handle comes from the cache"


def test_a_daemon_that_is_restarted_with_the_same_weights_has_nothing_done_again(comfyui: ComfyUI) -> None:
    with Lanced(models=(Path(f"demo={DEMO_MODEL}"),)) as lanced:
        form = api_form("t2i", seed=3004, steps=2)
        form["1"]["inputs"]["endpoint"] = lanced.endpoint
        assert comfyui.run(form).executed == ["1", "2", "3"]
        lanced.process.kill()
        lanced.process.wait()
        lanced.start()
        assert comfyui.run(form).executed == []


def test_other_weights_under_the_same_name_are_noticed(comfyui: ComfyUI) -> None:
    with Lanced(models=(Path(f"demo={DEMO_MODEL}"),)) as lanced:
        form = api_form("t2i", seed=3005, steps=2)
        form["1"]["inputs"] = {"model": "demo", "endpoint": lanced.endpoint}
        first = pixels(comfyui, comfyui.run(form).outputs)
        lanced.process.kill()
        lanced.process.wait()
        lanced.command[lanced.command.index("--model") + 1] = f"demo={DEMO_AWQ}"
        lanced.start()
        with lanced.client() as client:
            client.load("demo")
        second = comfyui.run(form)
        assert second.executed == ["1", "2", "3"]
        assert pixels(comfyui, second.outputs) != first


def test_a_daemon_that_cannot_be_started_from_here_is_named_with_what_to_do(comfyui: ComfyUI) -> None:
    with Lanced(endpoint="tcp://127.0.0.1:38917") as lanced:
        form = api_form("t2i", width=256, height=256, steps=1000, seed=3006)
        form["1"]["inputs"]["endpoint"] = lanced.endpoint
        run = comfyui.run(form, disturb=lanced.process.kill, after_seconds=1.0)
    assert run.status == "error"
    assert "no lanced answers at tcp://127.0.0.1:38917: start it there, or check the endpoint" in run.error
    assert comfyui.run(api_form("t2i", seed=3007, steps=2)).status == "success"


@pytest.mark.parametrize("version", ["0.0.9", "9.0.0"])
def test_a_daemon_of_another_protocol_says_both_versions(comfyui: ComfyUI, tmp_path: Path, version: str) -> None:
    endpoint = f"ipc://{tmp_path}/other.ipc"
    protocol = 3 if version.startswith("9") else 0
    with scripted_daemon(endpoint, lambda request: {"protocol": protocol, "version": version, "ok": True}):
        form = api_form("t2i", seed=3008)
        form["1"]["inputs"]["endpoint"] = endpoint
        run = comfyui.run(form)
    assert run.status == "error"
    assert f"speaks protocol {protocol} (version {version}), this client protocol 2 (lanced_client 0.1.0)" in run.error
    assert "update the older of the two" in run.error


def saved_pixels(comfyui: ComfyUI, form: dict[str, Any]) -> list[bytes]:
    run = comfyui.run(form)
    assert run.status == "success", run.error
    return pixels(comfyui, run.outputs)


def pixels(comfyui: ComfyUI, outputs: dict[str, Any]) -> list[bytes]:
    """The saved pictures, without the workflow that comes before their pixels."""
    files = [comfyui.fetch_file(entry) for entry in outputs["3"]["images"]]
    return [file[file.index(b"IDAT") :] for file in files]
