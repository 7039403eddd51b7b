"""Example graphs of other Lance packs: each opens in the front end with our nodes, runs there, and gives what the
Python client gives for the values that the file holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from comfyui_server import ComfyUI
from lanced_client import Client
from saved_pictures import pixels_of, saved_pictures
from their_graphs import PICTURE, REASON, UI_FILES, loaded, named, opened

if TYPE_CHECKING:
    from front_end import FrontEnd

Values = list[Any]


def picture() -> np.ndarray[Any, Any]:
    return pixels_of(PICTURE.read_bytes())[None]


def scaled_picture(side: int) -> np.ndarray[Any, Any]:
    """As Image Scale makes it, nearest-exact."""
    return np.asarray(Image.fromarray(picture()[0]).resize((side, side), Image.Resampling.NEAREST))[None]


# What each of their nodes asks for, read from its saved values by their own order.
ASKS: dict[str, Callable[[Values], tuple[str, dict[str, Any]]]] = {
    "LanceT2I": lambda v: (
        "t2i",
        {"prompt": v[0], "num_inference_steps": v[1], "guidance_scale": v[2], "seed": v[3]}
        | dict(zip(("height", "width"), map(int, v[-1].split("x")), strict=True)),
    ),
    "LanceX2TImage": lambda v: ("x2t_image", {"prompt": v[0], "source": picture()}),
    "LanceImageUnderstanding": lambda v: (
        "x2t_image",
        {"prompt": v[0], "max_new_tokens": v[1], "source": picture()},
    ),
    "LanceImageGeneration": lambda v: (
        "t2i",
        {"prompt": v[0], "width": v[1], "height": v[2], "seed": v[3], "num_inference_steps": v[5]}
        | {"guidance_scale": v[6], "timestep_shift": v[7], "guidance_interval": [v[8], v[9]]},
    ),
    "LanceImageEditing": lambda v: (
        "image_edit",
        {"prompt": v[0], "seed": v[3], "num_inference_steps": v[5], "guidance_scale": v[6], "timestep_shift": v[7]}
        | {"guidance_interval": [v[8], v[9]], "source": scaled_picture(768)},
    ),
}


@pytest.mark.skipif(not UI_FILES, reason=REASON)
@pytest.mark.parametrize("path", UI_FILES, ids=named)
def test_a_graph_of_theirs_opens_with_our_nodes_and_gives_what_the_client_gives(
    comfyui: ComfyUI, front_end: FrontEnd, client: Client, path: Path
) -> None:
    workflow = opened(loaded(path), set(comfyui.get("/object_info")))
    for node in workflow["nodes"]:
        if node["type"] == "LoadImage":
            comfyui.upload_bytes(node["widgets_values"][0], PICTURE.read_bytes())
    front_end.refresh()  # so that it knows these files
    (asking,) = (node for node in workflow["nodes"] if node["type"] in ASKS)
    task, request = ASKS[asking["type"]](asking["widgets_values"])
    assert front_end.open(workflow) == []
    assert all(not node["class_type"].startswith("Lance") or node["class_type"].startswith("Lanced")
               for node in front_end.api_form().values())  # fmt: skip
    assert front_end.run() == "success"
    outputs = comfyui.last_outputs()
    expected = client.generate(task, model="automatic", **request)
    if task == "x2t_image":
        assert [text for output in outputs.values() for text in output.get("text", [])] == [expected.text]
    else:
        assert expected.pixels is not None
        (made,) = saved_pictures(comfyui, outputs)
        assert np.array_equal(made, expected.pixels[0, 0])
