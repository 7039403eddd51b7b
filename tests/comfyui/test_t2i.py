"""Text to image in a real ComfyUI, as an artist meets it. The nodes start the daemon themselves."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from comfyui_server import ROOT, ComfyUI
from lanced_client import Client
from saved_pictures import pixels_of, saved_pixels
from workflow_files import api_form

STEPS = 30


@pytest.fixture
def prompt() -> dict[str, Any]:
    return api_form("t2i")


def with_inputs(workflow: dict[str, Any], /, **inputs: Any) -> dict[str, Any]:
    """The workflow with other inputs of its Lance Text to Image node."""
    workflow["2"]["inputs"].update(inputs)
    return workflow


def client_params(prompt: dict[str, Any]) -> dict[str, Any]:
    """The same request for the Python client."""
    inputs = prompt["2"]["inputs"]
    return {
        "prompt": inputs["prompt"],
        "width": inputs["width"],
        "height": inputs["height"],
        "num_inference_steps": inputs["steps"],
        "guidance_scale": inputs["guidance"],
        "timestep_shift": inputs["shift"],
        "seed": inputs["seed"],
    }


def test_the_workflow_gives_the_picture_with_progress_per_step_and_a_preview(
    comfyui: ComfyUI, client: Client, prompt: dict[str, Any]
) -> None:
    run = comfyui.run(with_inputs(prompt, seed=1001))
    assert run.status == "success", run.error
    (picture,) = saved_pixels(comfyui, run.outputs["3"])
    assert picture.shape == (128, 128, 3)
    red, green, blue = (int(v) for v in picture[64, 34])
    assert red > 150, "the prompt asks for a red circle on the left"
    assert max(green, blue) < 110
    values = [value for value, _ in run.progress]
    assert values == sorted(values)
    told = [text.split()[1].rstrip(",") for text in run.texts if text.startswith("denoise ")]
    assert told == [f"{step}/{STEPS}" for step in range(1, STEPS + 1)], "each step is told once"
    assert run.progress[-1][0] == run.progress[-1][1]
    assert len(run.previews) >= 1
    with Image.open(io.BytesIO(run.previews[-1])) as preview:
        assert preview.size[0] == preview.size[1]
    assert any(text.startswith(f"denoise {STEPS}/{STEPS}") for text in run.texts)


def test_the_same_prompt_again_does_no_work_and_another_seed_loads_no_weights(
    comfyui: ComfyUI, client: Client, prompt: dict[str, Any]
) -> None:
    first = comfyui.run(with_inputs(prompt, seed=1002))
    loads = client.stats()["loads"]
    again = comfyui.run(prompt)
    assert again.executed == []
    assert again.outputs == first.outputs
    other = comfyui.run(with_inputs(prompt, seed=1003))
    assert other.status == "success"
    assert "1" not in other.executed, "the model node is answered from the cache"
    assert client.stats()["loads"] == loads


def test_the_same_seed_gives_the_same_bytes_in_comfyui_python_and_lancectl(
    comfyui: ComfyUI, client: Client, endpoint: str, prompt: dict[str, Any], tmp_path: Path
) -> None:
    run = comfyui.run(with_inputs(prompt, seed=12345678901234567890))
    (picture,) = saved_pixels(comfyui, run.outputs["3"])

    result = client.generate("t2i", **client_params(prompt))
    assert result.pixels is not None
    np.testing.assert_array_equal(picture, result.pixels[0, 0])

    inputs = prompt["2"]["inputs"]
    png = tmp_path / "lancectl.png"
    command = [str(ROOT / "build/lancectl"), "t2i", inputs["prompt"], "-o", str(png), "--endpoint", endpoint]
    command += ["--seed", str(inputs["seed"]), "--steps", str(STEPS), "--size", "128x128"]
    command += ["--guidance", str(inputs["guidance"]), "--shift", str(inputs["shift"])]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    np.testing.assert_array_equal(picture, pixels_of(png.read_bytes()))


def test_every_pixel_value_survives_save_image(comfyui: ComfyUI, client: Client, prompt: dict[str, Any]) -> None:
    run = comfyui.run(with_inputs(prompt, seed=5, batch_size=3, width=160, height=96))
    pictures = np.stack(saved_pixels(comfyui, run.outputs["3"]))
    params = client_params(prompt)
    expected = client.generate("t2i", batch_size=3, **params)
    assert expected.pixels is not None
    np.testing.assert_array_equal(pictures, expected.pixels[:, 0])
    assert len(np.unique(pictures)) > 200, "nearly every value occurs"


def test_the_latent_output_has_the_scale_and_shape_of_the_core_wan_nodes(
    comfyui: ComfyUI, client: Client, prompt: dict[str, Any]
) -> None:
    with_inputs(prompt, seed=77)
    prompt["4"] = {"class_type": "SaveLatent", "inputs": {"samples": ["2", 1], "filename_prefix": "lance"}}
    run = comfyui.run(prompt)
    assert run.status == "success", run.error
    saved = safetensors.numpy.load(comfyui.fetch_file(run.outputs["4"]["latents"][0]))["latent_tensor"]
    assert saved.shape == (1, 48, 1, 8, 8)
    result = client.generate("t2i", **client_params(prompt))
    assert result.latents is not None
    np.testing.assert_array_equal(saved, result.latents)


@pytest.mark.parametrize("width", [100, 1040, 0])
def test_a_size_that_the_daemon_would_refuse_is_refused_before_the_run(
    comfyui: ComfyUI, prompt: dict[str, Any], width: int
) -> None:
    run = comfyui.run(with_inputs(prompt, width=width))
    assert run.status == "rejected"
    assert f"width must be a multiple of 16 from 16 to 1024, is {width}" in run.error


def test_a_batch_that_the_daemon_would_refuse_is_refused_before_the_run(
    comfyui: ComfyUI, prompt: dict[str, Any]
) -> None:
    run = comfyui.run(with_inputs(prompt, batch_size=33))
    assert run.status == "rejected"
    assert "bigger than max of 32" in run.error


def test_the_daemons_own_words_are_shown_on_the_node(comfyui: ComfyUI, client: Client, prompt: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=".") as refused:
        client.generate("t2i", **(client_params(prompt) | {"prompt": "x" * 100_000}))
    run = comfyui.run(with_inputs(prompt, prompt="x" * 100_000))
    assert run.status == "error"
    assert run.error.strip() == str(refused.value)
    assert run.error_type == "lance.Refused"
    assert run.texts[-1] == str(refused.value), "it stands under the node"
    assert comfyui.run(with_inputs(prompt, prompt="a small green square")).status == "success"


def test_after_the_run_the_node_shows_the_finished_picture(comfyui: ComfyUI, prompt: dict[str, Any]) -> None:
    run = comfyui.run(with_inputs(prompt, seed=1009, steps=5))
    (picture,) = saved_pixels(comfyui, run.outputs["3"])
    with Image.open(io.BytesIO(run.previews[-1])) as last:
        assert last.size == (128, 128), "the front end says the size below it"
        shown = np.asarray(last.convert("RGB"), np.float32)
    assert np.abs(shown - picture).mean() < 6, "the finished one as a JPEG, no coarse preview"


def test_without_previews_in_comfyui_there_are_none(comfyui: ComfyUI, prompt: dict[str, Any]) -> None:
    run = comfyui.run(with_inputs(prompt, seed=1010, steps=5), extra_data={"preview_method": "none"})
    assert run.status == "success", run.error
    assert not run.previews


def test_an_unknown_model_is_named_by_the_daemon(comfyui: ComfyUI, prompt: dict[str, Any]) -> None:
    prompt["1"]["inputs"]["model"] = "no-such-model"
    run = comfyui.run(prompt)
    assert run.status == "error"
    assert "no-such-model" in run.error
