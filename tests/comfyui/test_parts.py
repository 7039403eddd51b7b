"""Encode, sampler and decode as artists combine them, with core nodes too: latents are ComfyUI's both ways."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import safetensors.numpy

from comfyui_server import ComfyUI
from demo.shapes import look
from figures import Figures
from lanced_client import Client
from saved_pictures import pixels_of, saved_pixels
from workflow_files import api_form

PROMPT = "a large red circle on the left on a blue background"
SAMPLER = {
    "lance_model": ["1", 0],
    "prompt": PROMPT,
    "steps": 12,
    "guidance": 4.0,
    "shift": 3.5,
    "seed": 5,
    "denoise": 1.0,
    "add_noise": "enable",
    "start_at_step": 0,
    "end_at_step": 10000,
    "return_with_leftover_noise": "disable",
    "fps": 12.0,
}


class Graph:
    """An API-form prompt that grows; a node is its [id, 0]."""

    def __init__(self) -> None:
        self.form: dict[str, Any] = {}
        self.ids = itertools.count(1)
        self.add("LancedModel", model="automatic", endpoint="")

    def add(self, kind: str, /, **inputs: Any) -> list[Any]:
        key = str(next(self.ids))
        self.form[key] = {"class_type": kind, "inputs": inputs}
        return [key, 0]

    def empty(self, width: int = 128, height: int = 128, batch_size: int = 1) -> list[Any]:
        return self.add("EmptyLatentImage", width=width, height=height, batch_size=batch_size)

    def sample(self, latent: list[Any], **inputs: Any) -> list[Any]:
        return self.add("LancedSampler", **(SAMPLER | {"latent_image": latent} | inputs))

    def encode(self, pixels: list[Any], batch: str = "video") -> list[Any]:
        return self.add("LancedEncode", lance_model=["1", 0], pixels=pixels, batch=batch)

    def picture(self, name: str = "lance-circle.png") -> list[Any]:
        return self.add("LoadImage", image=name)

    def save(self, latent: list[Any]) -> str:
        """Save a latent as pictures; the output node's id."""
        frames = self.add("LancedDecode", lance_model=["1", 0], latent=latent, fps=12.0)
        return str(self.add("SaveImage", images=frames, filename_prefix="parts")[0])

    def save_latent(self, latent: list[Any]) -> str:
        return str(self.add("SaveLatent", samples=latent, filename_prefix="parts")[0])

    def run(self, comfyui: ComfyUI) -> dict[str, Any]:
        run = comfyui.run(self.form)
        assert run.status == "success", run.error
        return run.outputs

    def error(self, comfyui: ComfyUI) -> str:
        run = comfyui.run(self.form)
        assert run.status == "error"
        assert run.error_type == "lance.Refused"
        assert run.texts[-1] == run.error.strip()
        return run.error


def saved_latent(comfyui: ComfyUI, output: dict[str, Any]) -> np.ndarray[Any, Any]:
    file = comfyui.fetch_file(output["latents"][0])
    return np.asarray(safetensors.numpy.load(file)["latent_tensor"])


def test_two_samplers_give_the_bytes_of_one_and_another_seed_others(comfyui: ComfyUI) -> None:
    graph = Graph()
    empty = graph.empty()
    whole = graph.save(graph.sample(empty))
    first = graph.sample(empty, end_at_step=5, return_with_leftover_noise="enable")
    second = graph.save(graph.sample(first, add_noise="disable", start_at_step=5, seed=99))
    other = graph.save(graph.sample(empty, seed=6))
    outputs = graph.run(comfyui)
    (one,), (two,) = saved_pixels(comfyui, outputs[whole]), saved_pixels(comfyui, outputs[second])
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, saved_pixels(comfyui, outputs[other])[0])
    assert one.shape == (128, 128, 3), "the size that the empty latent's node says"


def test_an_early_end_without_leftover_noise_is_a_finished_picture(comfyui: ComfyUI) -> None:
    graph = Graph()
    saved = graph.save(graph.sample(graph.empty(), steps=30, end_at_step=22))
    (picture,) = saved_pixels(comfyui, graph.run(comfyui)[saved])
    got = look(picture)
    assert (got.colour, got.background) == ("red", "blue")


def test_the_noise_is_ksamplers_for_the_whole_batch_and_its_batch_index(comfyui: ComfyUI) -> None:
    graph = Graph()
    empty = graph.empty(batch_size=3)
    batch = graph.save(graph.sample(empty, steps=3))
    last = graph.add("LatentFromBatch", samples=empty, batch_index=2, length=1)
    alone = graph.save(graph.sample(last, steps=3))
    noise = graph.add("RandomNoise", noise_seed=5)
    given = graph.save(graph.sample(empty, steps=3, noise=noise, seed=1234))
    outputs = graph.run(comfyui)
    three = saved_pixels(comfyui, outputs[batch])
    assert len(three) == 3
    np.testing.assert_array_equal(saved_pixels(comfyui, outputs[alone])[0], three[2])
    np.testing.assert_array_equal(np.stack(saved_pixels(comfyui, outputs[given])), np.stack(three))


def test_less_denoise_keeps_more_of_the_picture_and_none_keeps_all(comfyui: ComfyUI) -> None:
    graph = Graph()
    latent = graph.encode(graph.picture())
    saves = {-1.0: graph.save(latent)}
    for denoise in (0.0, 0.3, 0.9):
        prompt = "a small green square on the right on a white background"
        saves[denoise] = graph.save(graph.sample(latent, denoise=denoise, prompt=prompt, steps=10))
    outputs = graph.run(comfyui)
    pictures = {key: saved_pixels(comfyui, outputs[node])[0].astype(float) for key, node in saves.items()}
    near = np.abs(pictures[0.3] - pictures[-1.0]).mean()
    far = np.abs(pictures[0.9] - pictures[-1.0]).mean()
    assert np.array_equal(pictures[0.0], pictures[-1.0])
    assert 0 < near < far / 2


def test_a_noise_mask_keeps_what_it_leaves_out(comfyui: ComfyUI) -> None:
    graph = Graph()
    latent = graph.encode(graph.picture())
    solid = graph.add("SolidMask", value=0.0, width=128, height=128)
    right = graph.add("SolidMask", value=1.0, width=64, height=128)
    mask = graph.add("MaskComposite", destination=solid, source=right, x=64, y=0, operation="add")
    masked = graph.add("SetLatentNoiseMask", samples=latent, mask=mask)
    made = graph.sample(masked, prompt="a large yellow circle on the left on a white background", steps=20)
    before, after = graph.save_latent(latent), graph.save_latent(made)
    outputs = graph.run(comfyui)
    kept, changed = saved_latent(comfyui, outputs[before]), saved_latent(comfyui, outputs[after])
    np.testing.assert_allclose(changed[..., :4], kept[..., :4], atol=1e-4)
    assert np.abs(changed[..., 4:] - kept[..., 4:]).mean() > 0.1


def test_latents_go_through_core_nodes_and_files_unchanged(comfyui: ComfyUI, client: Client) -> None:
    graph = Graph()
    latent = graph.encode(graph.picture())
    flipped = graph.add("LatentFlip", samples=latent, flip_method="y-axis: horizontally")
    both = graph.add("LatentBatch", samples1=latent, samples2=flipped)
    saved, pictures = graph.save_latent(latent), graph.save(both)
    outputs = graph.run(comfyui)
    upright, turned = saved_pixels(comfyui, outputs[pictures])
    # Of a latent with frames, Latent Flip turns what it calls the y-axis upside down.
    assert np.abs(np.flipud(turned).astype(float) - upright).mean() < 15
    assert np.abs(turned.astype(float) - upright).mean() > 0

    file = comfyui.fetch_file(outputs[saved]["latents"][0])
    comfyui.upload_bytes("parts.latent", file)
    again = Graph()
    loaded = again.save(again.add("LoadLatent", latent="parts.latent"))
    np.testing.assert_array_equal(saved_pixels(comfyui, again.run(comfyui)[loaded])[0], upright)

    ours = saved_latent(comfyui, outputs[saved])
    circle = pixels_of(comfyui.fetch_file({"filename": "lance-circle.png", "type": "input", "subfolder": ""}))
    np.testing.assert_array_equal(client.encode(circle), ours)


def test_decode_gives_the_bytes_of_the_node_that_made_the_latent(comfyui: ComfyUI) -> None:
    form = api_form("t2i", seed=71, steps=6, batch_size=2)
    form["4"] = {"class_type": "LancedDecode", "inputs": {"lance_model": ["1", 0], "latent": ["2", 1], "fps": 12.0}}
    form["5"] = {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "parts"}}
    run = comfyui.run(form)
    assert run.status == "success", run.error
    direct, decoded = (np.stack(saved_pixels(comfyui, run.outputs[key])) for key in ("3", "5"))
    np.testing.assert_array_equal(direct, decoded)


def test_a_clip_goes_through_encode_and_decode_as_frames_and_as_video(comfyui: ComfyUI) -> None:
    graph = Graph()
    video = graph.add("LoadVideo", file="lance-square-moves.mp4")
    frames = graph.add("GetVideoComponents", video=video)
    one, other = graph.save_latent(graph.encode(video)), graph.save_latent(graph.encode(frames))
    pictures = graph.save_latent(graph.encode(frames, batch="pictures"))
    outputs = graph.run(comfyui)
    clip = saved_latent(comfyui, outputs[one])
    assert clip.shape[0] == 1
    assert clip.shape[2] > 1
    # ComfyUI may turn a video's colours into its floats in another way than the official reader does into bytes.
    assert np.abs(clip - saved_latent(comfyui, outputs[other])).mean() < 0.05
    several = saved_latent(comfyui, outputs[pictures])
    assert several.shape[0] >= 4 * (clip.shape[2] - 1) + 1
    assert several.shape[2] == 1


def test_an_empty_video_latent_makes_a_video(comfyui: ComfyUI) -> None:
    graph = Graph()
    empty = graph.add("EmptyHunyuanLatentVideo", width=96, height=96, length=9, batch_size=1)
    prompt = "a small green triangle moves from left to right on a white background"
    saved = graph.save(graph.sample(empty, prompt=prompt, steps=20))
    frames = saved_pixels(comfyui, graph.run(comfyui)[saved])
    assert len(frames) == 9
    got = look(frames[-1])
    assert (got.colour, got.background) == ("green", "white")


def test_the_sampler_edits_a_source(comfyui: ComfyUI) -> None:
    graph = Graph()
    saved = graph.save(
        graph.sample(graph.empty(), source=graph.picture(), prompt="turn the circle into a square", steps=30)
    )
    (picture,) = saved_pixels(comfyui, graph.run(comfyui)[saved])
    got = look(picture)
    assert (got.shape, got.colour, got.background) == ("square", "red", "blue")


def test_latents_of_another_model_and_odd_sizes_are_refused_in_words(comfyui: ComfyUI) -> None:
    graph = Graph()
    filled = graph.add("LatentAdd", samples1=graph.empty(), samples2=graph.add("LoadLatent", latent="parts4.latent"))
    comfyui.upload_bytes("parts4.latent", safetensors.numpy.save(four_channels()))
    graph.save(graph.sample(filled))
    assert "Lance takes those of the Wan 2.2 VAE" in graph.error(comfyui)
    odd = Graph()
    odd.save(odd.sample(odd.empty(width=120)))
    assert "width and height must be multiples of 16, the empty latent is 120 x 128 pixels" in odd.error(comfyui)
    noisy = Graph()
    noisy.save(noisy.sample(noisy.encode(noisy.picture()), add_noise="disable"))
    assert "add_noise is false at start_step 0" in noisy.error(comfyui)


# That the node's tooltip promises; others may do where the latent says how large its cells are.
PROMISED = {"EmptyLatentImage", "EmptySD3LatentImage", "EmptyHunyuanLatentVideo"}


def test_an_empty_latent_of_a_core_node_gives_the_size_that_it_says_or_is_refused_in_words(
    comfyui: ComfyUI, figures: Figures
) -> None:
    taken, refused = set(), set()
    for name, info in comfyui.get("/object_info").items():
        if not name.startswith("Empty") or info["output"][:1] != ["LATENT"]:
            continue
        inputs = {key: entry[1]["default"] for key, entry in info["input"]["required"].items() if len(entry) > 1
                  and "default" in entry[1]}  # fmt: skip
        if inputs.keys() != info["input"]["required"].keys() or "width" not in inputs:
            continue
        inputs |= {"width": 256, "height": 256} | ({"length": 9} if "length" in inputs else {})
        graph = Graph()
        saved = graph.save(graph.sample(graph.add(name, **inputs), steps=1))
        run = comfyui.run(graph.form)
        if run.status == "success":
            assert saved_pixels(comfyui, run.outputs[saved])[0].shape == (256, 256, 3), name
            taken.add(name)
        else:
            assert "and empty ones of EmptyLatentImage, EmptySD3LatentImage and" in run.error, (name, run.error)
            refused.add(name)
    figures.add("empty latents of core nodes", f"taken: {', '.join(sorted(taken))}")
    figures.add("empty latents of core nodes", f"refused: {', '.join(sorted(refused))}")
    assert taken >= PROMISED


def four_channels() -> dict[str, np.ndarray[Any, Any]]:
    """A latent file as SaveLatent writes it, of a model with 4 channels."""
    empty = np.zeros(0, np.float32)
    return {"latent_tensor": np.ones((1, 4, 16, 16), np.float32), "latent_format_version_0": empty}
