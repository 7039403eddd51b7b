"""Latents in and out of a real lanced with the demo model: encode, decode, and sampling from latents and in parts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from demo.shapes import Scene, look
from lanced_client import BadRequest, Client, Event, Preview, Progress, Result
from lanced_client.cropping import cropped_box
from lanced_process import Lanced

CIRCLE = Scene("circle", "red", "blue", "large", "left")
PROMPT = CIRCLE.caption()
SIZE: dict[str, Any] = {"width": 128, "height": 128}


def latents_of(result: Result) -> np.ndarray[Any, Any]:
    assert result.latents is not None
    return result.latents


def pixels_of(result: Result) -> np.ndarray[Any, Any]:
    assert result.pixels is not None
    return result.pixels


def test_a_picture_comes_back_from_its_latents(client: Client) -> None:
    picture = CIRCLE.frames(1, 128)
    latents = client.encode(picture)
    assert latents.shape == (1, 48, 1, 8, 8)
    assert latents.dtype == np.float32
    back = client.decode(latents)
    assert back.shape == (1, 1, 128, 128, 3)
    error = back[0].astype(float) - picture
    assert np.sqrt((error**2).mean()) < 20


def test_a_clip_comes_back_from_its_latents(client: Client) -> None:
    clip = Scene("square", "red", "white", "large", "left", motion="right").frames(9, 96)
    latents = client.encode(clip)
    assert latents.shape == (1, 48, 3, 6, 6)
    back = client.decode(latents)
    assert back.shape == (1, 9, 96, 96, 3)
    error = back[0].astype(float) - clip
    assert np.sqrt((error**2).mean()) < 30


def test_decode_gives_the_bytes_of_the_job_that_made_the_latents(client: Client) -> None:
    made = client.generate("t2i", prompt=PROMPT, seed=3, batch_size=2, num_inference_steps=4, **SIZE)
    assert np.array_equal(client.decode(latents_of(made)), pixels_of(made))


def test_full_strength_from_latents_is_the_plain_job(client: Client) -> None:
    plain = client.generate("t2i", prompt=PROMPT, seed=5, num_inference_steps=4, **SIZE)
    latents = client.encode(CIRCLE.frames(1, 128))
    started = client.generate("t2i", prompt=PROMPT, seed=5, num_inference_steps=4, latents=latents, denoise=1.0)
    assert np.array_equal(latents_of(started), latents_of(plain))
    assert np.array_equal(pixels_of(started), pixels_of(plain))


def test_steps_in_two_jobs_give_the_bytes_of_one(client: Client) -> None:
    request: dict[str, Any] = {"prompt": PROMPT, "seed": 5, "num_inference_steps": 6}
    whole = client.generate("t2i", **request, **SIZE)
    first = client.generate("t2i", **request, **SIZE, end_step=2, leftover_noise=True, decode=False)
    assert first.pixels is None
    assert first.latent_state is not None
    events: list[Event] = []
    second = client.generate(
        "t2i",
        on_event=events.append,
        **request,
        latents=first.latents,
        latent_state=first.latent_state,
        start_step=2,
        add_noise=False,
        preview=True,
    )
    assert second.latent_state is None
    assert np.array_equal(latents_of(second), latents_of(whole))
    assert np.array_equal(pixels_of(second), pixels_of(whole))
    steps = [event.step for event in events if isinstance(event, Progress) and event.stage == "denoise"]
    assert steps == [1, 2, 3, 4]
    assert sum(isinstance(event, Preview) for event in events) == 4


def test_a_low_strength_keeps_the_picture(client: Client) -> None:
    picture = CIRCLE.frames(1, 128)
    result = client.generate(
        "t2i",
        prompt="a large green square on a white ground",
        seed=1,
        num_inference_steps=4,
        denoise=0.1,
        latents=client.encode(picture),
    )
    assert look(pixels_of(result)[0, 0]).shape == "circle"
    assert result.receipt["params"]["denoise"] == 0.1


def test_a_mask_keeps_half_of_the_picture(client: Client) -> None:
    latents = client.encode(CIRCLE.frames(1, 128))
    mask = np.ones((1, 1, 1, 8, 8), np.float32)
    mask[..., :4, :] = 0
    made = latents_of(
        client.generate("t2i", prompt=PROMPT, latents=latents, latent_mask=mask, num_inference_steps=3, decode=False)
    )
    assert np.allclose(made[..., :4, :], latents[..., :4, :], rtol=1e-4, atol=1e-4)
    assert not np.allclose(made[..., 4:, :], latents[..., 4:, :], atol=0.1)


@pytest.mark.parametrize(
    ("task", "request_", "message"),
    [
        ("decode", {}, "latents are missing; task decode needs them"),
        ("decode", {"latents": np.zeros((1, 16, 1, 8, 8))}, "F32 [batch,48,latent frames,height/16,width/16]"),
        ("decode", {"latents": np.zeros((1, 48, 8, 8))}, 'tensor "latents": must be F32 [batch,48,'),
        ("encode", {}, "source is missing; task encode needs a picture or a video"),
        ("encode", {"source": np.zeros((8, 8, 3), np.uint8)}, "source height is 8; accepted are"),
        (
            "t2i",
            {"latents": np.zeros((1, 48, 2, 8, 8))},
            "latents are [1, 48, 2, 8, 8]; this job takes [1, 48, 1, 8, 8]",
        ),
        ("t2i", {"latents": np.zeros((1, 48, 1, 8, 8)), "width": 64, "height": 64}, "this job takes [1, 48, 1, 4, 4]"),
        ("t2i", {"latents": np.zeros((1, 48, 1, 8, 8)), "latent_mask": np.ones((1, 1, 1, 8, 4))}, "latent_mask are"),
        ("t2i", {"latents": np.zeros((1, 48, 1, 8, 8)), "latent_mask": np.ones((1, 1, 8, 8))}, "F32 [batch,1,latent"),
        ("t2i", {"start_step": 4, "end_step": 4}, "start_step is 4 and end_step is 4"),
        ("t2i", {"denoise": 0}, "denoise is 0; accepted are numbers from 0.0001 to 1"),
        ("t2i", {"add_noise": False}, "latents are missing; add_noise false needs them"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(
    client: Client, task: str, request_: dict[str, Any], message: str
) -> None:
    request: dict[str, Any] = {"prompt": PROMPT if task == "t2i" else None, **request_}
    with pytest.raises(BadRequest, match=re.escape(message)):
        client.submit(task, **request)


@pytest.mark.parametrize(("task", "name"), [("decode", "latents"), ("t2i", "latents"), ("t2i", "latent_state")])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_latents_with_a_number_that_is_none_are_refused_by_its_place(
    client: Client, task: str, name: str, value: str
) -> None:
    good = np.zeros((1, 48, 1, 2, 2), np.float32)
    bad = good.copy()
    bad[0, 3, 0, 1, 0] = float(value)
    request: dict[str, Any] = {"latents": good, name: bad} | ({"prompt": PROMPT} if task == "t2i" else {})
    with pytest.raises(BadRequest, match=f"{name}: value 14 of 192 is {value}; accepted are finite numbers"):
        client.generate(task, **request)


def test_lancectl_encodes_and_decodes_files_of_comfyuis_format(lanced: Lanced, tmp_path: Path) -> None:
    picture, latent, back = tmp_path / "circle.png", tmp_path / "circle.latent", tmp_path / "back.png"
    Image.fromarray(CIRCLE.frames(1, 128)[0]).save(picture)
    made = lanced.lancectl("encode", str(picture), "-o", str(latent), "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["files"] == [str(latent)]
    tensors = load_file(latent)
    assert tensors["latent_tensor"].shape == (1, 48, 1, 8, 8)
    assert tensors["latent_format_version_0"].shape == (0,)
    with safe_open(latent, "numpy") as file:
        assert json.loads(file.metadata()["lanced"])["task"] == "encode"
    receipt = json.loads(lanced.lancectl("show", str(latent), "--json").stdout)
    assert (receipt["task"], receipt["model"]["name"]) == ("encode", "lance-demo")
    assert lanced.lancectl("decode", str(latent), "-o", str(back)).returncode == 0
    with lanced.client() as client:
        assert np.array_equal(np.array(Image.open(back)), client.decode(tensors["latent_tensor"])[0, 0])


def test_lancectl_samples_in_two_parts(lanced: Lanced, tmp_path: Path) -> None:
    whole, half, rest = tmp_path / "whole.png", tmp_path / "half.latent", tmp_path / "rest.png"
    request = ["t2i", PROMPT, "--steps", "6", "--seed", "4"]
    size = ["--size", "128x128"]
    part = ["--start-step", "3", "--no-noise", "--init-latent", str(half)]
    for arguments in (
        [*request, *size, "-o", str(whole)],
        [*request, *size, "-o", str(half), "--end-step", "3", "--leftover-noise"],
        [*request, *part, "-o", str(rest)],
    ):
        done = lanced.lancectl(*arguments)
        assert done.returncode == 0, done.stderr
    assert np.array_equal(np.array(Image.open(whole)), np.array(Image.open(rest)))


def save_latents(path: Path, dtype: str, values: np.ndarray[Any, Any]) -> None:
    """A file of SaveLatent's layout in a number format that numpy may not have."""
    shape = list(values.shape)
    described = json.dumps({"latent_tensor": {"dtype": dtype, "shape": shape, "data_offsets": [0, values.nbytes]}})
    header = described.encode() + b" " * (-len(described) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + values.tobytes())


@pytest.fixture
def latents(client: Client) -> np.ndarray[Any, Any]:
    return client.encode(CIRCLE.frames(1, 128))


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_lancectl_takes_latents_of_half_the_width(
    lanced: Lanced, client: Client, latents: np.ndarray[Any, Any], tmp_path: Path, dtype: str
) -> None:
    file, back = tmp_path / "half.latent", tmp_path / "back.png"
    stored = latents.astype(np.float16) if dtype == "F16" else (latents.view(np.uint32) >> 16).astype(np.uint16)
    wide = stored.astype(np.float32) if dtype == "F16" else (stored.astype(np.uint32) << 16).view(np.float32)
    save_latents(file, dtype, stored)
    done = lanced.lancectl("decode", str(file), "-o", str(back))
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.array(Image.open(back)), client.decode(wide)[0, 0])


def test_lancectl_takes_latents_without_frames_as_one_frame(
    lanced: Lanced, client: Client, latents: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    file, back = tmp_path / "picture.latent", tmp_path / "back.png"
    save_latents(file, "F32", latents[:, :, 0])
    done = lanced.lancectl("decode", str(file), "-o", str(back))
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.array(Image.open(back)), client.decode(latents)[0, 0])


def test_lancectl_names_the_number_format_that_latents_cannot_have(lanced: Lanced, tmp_path: Path) -> None:
    file = tmp_path / "whole.latent"
    save_latents(file, "I32", np.zeros((1, 48, 1, 8, 8), np.int32))
    done = lanced.lancectl("decode", str(file), "-o", str(tmp_path / "x.png"))
    assert done.returncode == 6
    assert '"latent_tensor" is I32; latents in F32, F16 and BF16 are accepted' in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["encode", "PNG", "-o", "x.png"], 2, "does not end in .latent"),
        (["encode", "PNG"], 2, "encode needs -o FILE.latent"),
        (["decode", "PNG", "-o", "x.latent"], 2, "decode needs -o FILE.png"),
        (["decode", "PNG", "-o", "x.png"], 6, "circle.png"),
        (["decode", "MISSING", "-o", "x.png"], 6, "missing.latent"),
        (["decode", "FOREIGN", "-o", "x.png"], 6, 'foreign.latent: "latent_tensor" is not of the shape [batch,48,'),
        (["t2i", "x", "-o", "x.png", "--init-latent", "MISSING"], 6, "missing.latent"),
        (["t2i", "x", "-o", "x.png", "--denoise", "2"], 4, "denoise is 2; accepted are numbers"),
        (["encode", "PNG", "-o", "x.latent", "--denoise", "1"], 2, "--denoise means nothing to encode"),
    ],
)
def test_lancectl_says_what_is_wrong_with_latents(
    lanced: Lanced, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    picture, foreign = tmp_path / "circle.png", tmp_path / "foreign.latent"
    Image.fromarray(CIRCLE.frames(1, 128)[0]).save(picture)
    save_file({"latent_tensor": np.zeros((1, 4, 8, 8), np.float32)}, foreign)
    files = {"PNG": str(picture), "MISSING": str(tmp_path / "missing.latent"), "FOREIGN": str(foreign)}
    words = [str(tmp_path / word) if word.startswith("x.") else files.get(word, word) for word in arguments]
    done = lanced.lancectl(*words)
    assert done.returncode == code, done.stderr
    assert message in done.stderr


@pytest.mark.parametrize("size", [(128, 128), (100, 260), (301, 97), (160, 161), (131, 64), (1000, 999), (65, 480)])
@pytest.mark.parametrize("target", [(128, 128), (64, 160), (224, 112)])
def test_a_picture_cropped_by_the_client_is_what_the_daemon_makes_of_it(
    client: Client, size: tuple[int, int], target: tuple[int, int]
) -> None:
    rows, columns = np.mgrid[: size[0], : size[1]]
    picture = np.stack([rows % 256, columns % 256, rows * columns // 7 % 256], axis=-1).astype(np.uint8)
    box = cropped_box(*size, *target)
    cut = Image.fromarray(picture[box.top : box.top + box.height, box.left : box.left + box.width])
    ours = np.asarray(cut.resize((target[1], target[0]), Image.Resampling.BICUBIC))
    theirs = client.generate("encode", source=picture[None], resolution=f"{target[0]}x{target[1]}")
    assert np.array_equal(latents_of(theirs), client.encode(ours[None]))
