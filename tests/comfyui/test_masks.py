"""A mask on Lance Image Edit: what is painted changes, what is not stays as it was."""

from __future__ import annotations

from typing import Any

import numpy as np

from comfyui_server import ROOT, ComfyUI, Run
from lanced_client import Client
from saved_pictures import pixels_of, saved_pixels
from workflow_files import api_form

SIDE = 128
SOURCE = pixels_of((ROOT / "workflows/input/lance-circle.png").read_bytes())
PAINTED = (slice(40, 100), slice(20, 75))  # rows and columns that end within latent cells
CELLS = (slice(32, 112), slice(16, 80))  # of 16 x 16 that these touch
Form = dict[str, Any]


def masked_edit(paint: bool = True, **inputs: Any) -> Form:
    form = api_form("image_edit", prompt="make it yellow", steps=6, width=SIDE, height=SIDE, **inputs)
    form["2"]["inputs"]["mask"] = ["12", 0]
    rows, columns = PAINTED
    form |= {
        "10": solid(0.0, SIDE, SIDE),
        "11": solid(1.0 if paint else 0.0, columns.stop - columns.start, rows.stop - rows.start),
        "12": {
            "class_type": "MaskComposite",
            "inputs": {
                "destination": ["10", 0],
                "source": ["11", 0],
                "x": columns.start,
                "y": rows.start,
                "operation": "add",
            },
        },
    }
    return form


def solid(value: float, width: int, height: int) -> dict[str, Any]:
    return {"class_type": "SolidMask", "inputs": {"value": value, "width": width, "height": height}}


def run(comfyui: ComfyUI, form: Form) -> Run:
    done = comfyui.run(form)
    assert done.status == "success", done.error
    return done


def pictures(comfyui: ComfyUI, form: Form) -> list[np.ndarray[Any, Any]]:
    return saved_pixels(comfyui, run(comfyui, form).outputs["3"])


def outside() -> np.ndarray[Any, Any]:
    left_alone = np.ones((SIDE, SIDE), bool)
    left_alone[PAINTED] = False
    return left_alone


def test_outside_the_mask_every_pixel_is_the_sources_and_inside_it_is_what_masked_sampling_makes(
    comfyui: ComfyUI, client: Client
) -> None:
    (picture,) = pictures(comfyui, masked_edit(seed=11))
    assert np.array_equal(picture[outside()], SOURCE[outside()])
    mask = np.zeros((SIDE, SIDE), np.float32)
    mask[CELLS] = 1
    made = client.generate(
        "image_edit",
        prompt="make it yellow",
        source=SOURCE[None],
        resolution=f"{SIDE}x{SIDE}",
        num_inference_steps=6,
        seed=11,
        latents=client.encode(SOURCE[None]),
        latent_mask=mask[None, None, None, ::16, ::16],
    )
    assert made.pixels is not None
    assert np.array_equal(picture[PAINTED], made.pixels[0, 0][PAINTED])
    assert not np.array_equal(picture[PAINTED], SOURCE[PAINTED])


def test_a_soft_edge_mixes_source_and_result(comfyui: ComfyUI) -> None:
    hard = masked_edit(seed=12)
    soft = masked_edit(seed=12)
    soft["11"]["inputs"]["value"] = 0.5
    (whole,), (half,) = pictures(comfyui, hard), pictures(comfyui, soft)
    mixed = (whole[PAINTED].astype(float) + SOURCE[PAINTED]) / 2
    assert np.abs(half[PAINTED] - mixed).max() <= 1
    assert np.array_equal(half[outside()], SOURCE[outside()])


def test_a_mask_with_nothing_painted_leaves_the_picture_and_says_so(comfyui: ComfyUI) -> None:
    done = run(comfyui, masked_edit(paint=False, seed=13))
    (picture,) = saved_pixels(comfyui, done.outputs["3"])
    assert np.array_equal(picture, SOURCE)
    assert done.texts[-1] == "nothing is painted in the mask: the picture stays as it was"
    loaders = masked_edit(seed=13, mask=["4", 1])
    loaders["2"]["inputs"]["mask"] = ["4", 1]  # what Load Image gives for a picture without transparency
    (picture,) = pictures(comfyui, loaders)
    assert np.array_equal(picture, SOURCE)


def test_pictures_and_their_results_have_each_its_mask_or_one_for_all(comfyui: ComfyUI) -> None:
    form = masked_edit(seed=14, batch_size=2)
    form["2"]["inputs"] |= {"image": ["6", 0]}
    form["6"] = {"class_type": "ImageBatch", "inputs": {"image1": ["4", 0], "image2": ["4", 0]}}
    results = pictures(comfyui, form)
    assert len(results) == 4
    for picture in results:
        assert np.array_equal(picture[outside()], SOURCE[outside()])
    assert np.array_equal(results[0], results[2])
    assert not np.array_equal(results[0], results[1]), "a batch uses seed, seed + 1"


def test_the_sources_own_crop_stays_where_the_shape_is_another(comfyui: ComfyUI, client: Client) -> None:
    form = masked_edit(seed=15)
    form["2"]["inputs"] |= {"width": 128, "height": 64}
    (picture,) = pictures(comfyui, form)
    assert picture.shape == (64, 128, 3)
    middle = SOURCE[32:96]
    left_alone = outside()[32:96]
    assert np.array_equal(picture[left_alone], middle[left_alone])


def test_as_many_masks_as_pictures_or_one_are_taken(comfyui: ComfyUI) -> None:
    form = masked_edit(seed=16)
    form["13"] = {"class_type": "MaskToImage", "inputs": {"mask": ["12", 0]}}
    form["14"] = {"class_type": "ImageBatch", "inputs": {"image1": ["13", 0], "image2": ["13", 0]}}
    form["15"] = {"class_type": "ImageToMask", "inputs": {"image": ["14", 0], "channel": "red"}}
    form["2"]["inputs"]["mask"] = ["15", 0]
    refused = comfyui.run(form)
    assert refused.status == "error"
    assert "mask must be a MASK [1 or 1, height, width]" in refused.error
