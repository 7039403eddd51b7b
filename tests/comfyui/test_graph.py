"""`lancectl graph` gives what a real ComfyUI gives for the same graph: pixels, latents, answers, names of files."""

from __future__ import annotations

import copy
import io
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load as load_tensors

from comfyui_server import ROOT, RUN_SECONDS, ComfyUI
from lanced_process import LANCECTL
from saved_pictures import saved_pictures
from their_graphs import API_FILES, PICTURE, REASON, UI_FILES, loaded, named, opened, submitted
from workflow_files import NAMES, api_form

if TYPE_CHECKING:
    from front_end import FrontEnd

INPUTS = ROOT / "workflows/input"
Graph = dict[str, Any]
CIRCLE = "a large red circle on the left on a blue background"
SMALL = {"steps": 4, "guidance": 4.0, "shift": 3.5, "seed": 2**63 + 12345}
ASKED = {"max_new_tokens": 16, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0, "seed": 0}


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}


MODEL = node("LancedModel", model="automatic", endpoint="")


def lancectl_graph(graph: Graph, folder: Path, endpoint: str, inputs: Path) -> dict[str, Any]:
    """What lancectl told of its run: by node, "files" or "text"."""
    file = folder / "graph.json"
    file.write_text(json.dumps(graph))
    done = subprocess.run(
        [str(LANCECTL), "graph", str(file), "-o", str(folder / "out"), "--input-dir", str(inputs), "--json"],
        env=os.environ | {"LANCED_ENDPOINT": endpoint},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    outputs: dict[str, Any] = json.loads(done.stdout)["outputs"]
    return outputs


def with_frames_as_pictures(graph: Graph) -> Graph:
    """The same with the frames that go into its saved videos saved as pictures too: a video's own are encoded."""
    made = copy.deepcopy(graph)
    for key, entry in graph.items():
        if entry["class_type"] == "SaveVideo":
            made[f"{key}01"] = node("GetVideoComponents", video=entry["inputs"]["video"])
            made[f"{key}02"] = node("SaveImage", images=[f"{key}01", 0], filename_prefix="frames")
    return made


def pixels_of(path: str) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def check_same(comfyui: ComfyUI, graph: Graph, folder: Path, endpoint: str, inputs: Path = INPUTS) -> None:
    """Run the graph in both and compare all that it saves and shows. inputs: the files that it loads."""
    graph = with_frames_as_pictures(graph)
    run = comfyui.run(graph)
    assert run.status == "success", run.error
    ours = lancectl_graph(graph, folder, endpoint, inputs)
    compared = 0
    for key, theirs in run.outputs.items():
        if theirs.get("animated") or graph[key]["class_type"] in ("SaveVideo", "LancedTextToVideo"):
            continue
        if "text" in theirs:
            assert ours[key]["text"] == list(theirs["text"]), key
            compared += 1
        if "latents" in theirs:
            (made,) = ours[key]["files"]
            expected = load_tensors(comfyui.fetch_file(theirs["latents"][0]))["latent_tensor"]
            np.testing.assert_array_equal(load_tensors(Path(made).read_bytes())["latent_tensor"], expected)
            compared += 1
        if "images" in theirs:
            expected_pictures = list(saved_pictures(comfyui, {key: theirs}))
            pictures = [pixels_of(path) for path in ours[key]["files"]]
            assert len(pictures) == len(expected_pictures), key
            for picture, expected_picture in zip(pictures, expected_pictures, strict=True):
                np.testing.assert_array_equal(picture, expected_picture, err_msg=key)
            compared += 1
    assert compared


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_gives_what_comfyui_gives(comfyui: ComfyUI, endpoint: str, tmp_path: Path, name: str) -> None:
    check_same(comfyui, api_form(name), tmp_path, endpoint)


def inputs_of(comfyui: ComfyUI, graph: Graph, folder: Path) -> Path:
    """A folder that has the pictures which the graph loads, as ComfyUI then has them too."""
    inputs = folder / "inputs"
    inputs.mkdir()
    for entry in graph.values():
        if entry["class_type"] == "LoadImage":
            name = entry["inputs"]["image"]
            comfyui.upload_bytes(name, PICTURE.read_bytes())
            (inputs / name).write_bytes(PICTURE.read_bytes())
    return inputs


@pytest.mark.skipif(not UI_FILES, reason=REASON)
@pytest.mark.parametrize("path", UI_FILES, ids=named)
def test_what_the_front_end_makes_of_a_graph_of_another_pack_gives_what_comfyui_gives(
    comfyui: ComfyUI, front_end: FrontEnd, endpoint: str, tmp_path: Path, path: Path
) -> None:
    front_end.open(opened(loaded(path), set(comfyui.get("/object_info"))))
    graph = front_end.api_form()
    check_same(comfyui, graph, tmp_path, endpoint, inputs_of(comfyui, graph, tmp_path))


@pytest.mark.skipif(not API_FILES, reason=f"{REASON} with graphs in API form")
@pytest.mark.parametrize("path", API_FILES, ids=named)
def test_a_graph_that_another_pack_exported_gives_what_comfyui_gives(
    comfyui: ComfyUI, endpoint: str, tmp_path: Path, path: Path
) -> None:
    graph = submitted(loaded(path), set(comfyui.get("/object_info")))
    check_same(comfyui, graph, tmp_path, endpoint, inputs_of(comfyui, graph, tmp_path))


def saved_circle(mode: str, format: str, **options: Any) -> bytes:
    with Image.open(INPUTS / "lance-circle.png") as image:
        picture = image.convert("RGB").resize((150, 132), Image.Resampling.BICUBIC)
    if mode in ("RGBA", "LA"):
        picture = picture.convert(mode)
        alpha = Image.fromarray(np.tile(np.linspace(0, 255, 150).round().astype(np.uint8), (132, 1)))
        picture.putalpha(alpha)
    else:
        picture = picture.convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.fixture
def reads_by_libav(comfyui: ComfyUI) -> None:
    """lancectl reads files as ComfyUI does since libav decodes its pictures. Before, it was Pillow, whose grays and
    JPEGs are a little different, and videos were converted in another way."""
    if "VideoFromFile" not in (Path(os.environ["COMFYUI"]) / "nodes.py").read_text():
        pytest.skip("this ComfyUI reads pictures by Pillow")


@pytest.mark.parametrize(
    ("mode", "format", "options"),
    [
        ("RGB", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("P", "PNG", {}),
        ("L", "PNG", {}),
        ("LA", "PNG", {}),
        ("RGB", "JPEG", {"quality": 90}),
        ("RGB", "JPEG", {"quality": 90, "subsampling": 0}),
        ("L", "JPEG", {"quality": 90}),
        ("RGB", "WEBP", {"lossless": True}),
        ("RGB", "WEBP", {"quality": 80}),
        ("RGB", "BMP", {}),
    ],
)
@pytest.mark.usefixtures("reads_by_libav")
def test_a_picture_is_read_as_comfyuis_loader_reads_it(
    comfyui: ComfyUI, endpoint: str, tmp_path: Path, mode: str, format: str, options: dict[str, Any]
) -> None:
    name = f"read-{mode}.{format.lower()}"
    content = saved_circle(mode, format, **options)
    comfyui.upload_bytes(name, content)
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    (inputs / name).write_bytes(content)
    graph = {"1": node("LoadImage", image=name), "2": node("SaveImage", images=["1", 0], filename_prefix="read")}
    run = comfyui.run(graph)
    assert run.status == "success", run.error
    (path,) = lancectl_graph(graph, tmp_path, endpoint, inputs)["2"]["files"]
    (expected,) = saved_pictures(comfyui, run.outputs)
    np.testing.assert_array_equal(pixels_of(path), expected)


@pytest.mark.usefixtures("reads_by_libav")
def test_frames_of_a_file_are_read_as_comfyui_reads_them(comfyui: ComfyUI, endpoint: str, tmp_path: Path) -> None:
    graph = {
        "1": node("LoadVideo", file="lance-square-moves.mp4"),
        "2": node("GetVideoComponents", video=["1", 0]),
        "3": node("ImageFromBatch", image=["2", 0], batch_index=-3, length=2),
        "4": node("SaveImage", images=["3", 0], filename_prefix="some"),
        "5": node("PreviewAny", source=["2", 2]),
        "6": node("SaveImage", images=["2", 0], filename_prefix="all"),
    }
    check_same(comfyui, graph, tmp_path, endpoint)


def test_an_edit_by_the_mask_of_a_transparent_picture_is_the_same(
    comfyui: ComfyUI, endpoint: str, tmp_path: Path
) -> None:
    content = saved_circle("RGBA", "PNG")
    comfyui.upload_bytes("masked.png", content)
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    (inputs / "masked.png").write_bytes(content)
    edit = {"resolution": "image_768res", "width": 128, "height": 96, "batch_size": 2, "prompt": "make it yellow"}
    graph = {
        "1": MODEL,
        "2": node("LoadImage", image="masked.png"),
        "3": node("LancedImageEdit", lance_model=["1", 0], image=["2", 0], mask=["2", 1], **edit, **SMALL),
        "4": node("SaveImage", images=["3", 0], filename_prefix="edited"),
        "5": node("SaveLatent", samples=["3", 1], filename_prefix="edited"),
    }
    run = comfyui.run(graph)
    assert run.status == "success", run.error
    ours = lancectl_graph(graph, tmp_path, endpoint, inputs)
    expected = list(saved_pictures(comfyui, {"4": run.outputs["4"]}))
    assert len(expected) == 2
    for path, picture in zip(ours["4"]["files"], expected, strict=True):
        np.testing.assert_array_equal(pixels_of(path), picture)
    latents = load_tensors(comfyui.fetch_file(run.outputs["5"]["latents"][0]))["latent_tensor"]
    np.testing.assert_array_equal(load_tensors(Path(ours["5"]["files"][0]).read_bytes())["latent_tensor"], latents)


def sampled(**inputs: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "prompt": CIRCLE,
        "denoise": 1.0,
        "add_noise": "enable",
        "start_at_step": 0,
        "end_at_step": 10000,
        "return_with_leftover_noise": "disable",
        "fps": 12.0,
        "lance_model": ["1", 0],
    }
    return node("LancedSampler", **(given | SMALL | inputs))


def test_graphs_of_parts_are_the_same(comfyui: ComfyUI, endpoint: str, tmp_path: Path) -> None:
    graph = {
        "1": MODEL,
        "2": node("EmptySD3LatentImage", width=64, height=96, batch_size=1),
        "3": node("RepeatLatentBatch", samples=["2", 0], amount=2),
        "4": sampled(latent_image=["3", 0], end_at_step=2, return_with_leftover_noise="enable"),
        "5": sampled(latent_image=["4", 0], start_at_step=2, add_noise="disable"),
        "6": node("SaveLatent", samples=["5", 0], filename_prefix="both"),
        "7": node("LancedDecode", lance_model=["1", 0], latent=["5", 0], fps=12.0),
        "8": node("SaveImage", images=["7", 0], filename_prefix="both_%width%x%height%"),
        "9": node("EmptyHunyuanLatentVideo", width=64, height=64, length=5, batch_size=1),
        "10": sampled(latent_image=["9", 0], guidance=6.0, negative_prompt="grey", interval_low=0.2),
        "11": node("SaveLatent", samples=["10", 0], filename_prefix="clip"),
        "12": node("LoadVideo", file="lance-square-moves.mp4"),
        "21": node("EmptyHunyuanLatentVideo", width=64, height=64, length=9, batch_size=1),
        "13": sampled(latent_image=["21", 0], source=["12", 0], prompt="make the square green"),
        "14": node("SaveLatent", samples=["13", 0], filename_prefix="restyled"),
        "15": node("LoadImage", image="lance-circle.png"),
        "16": node("ImageBatch", image1=["15", 0], image2=["15", 0]),
        "17": node("LancedEncode", lance_model=["1", 0], pixels=["16", 0], batch="pictures"),
        "18": node("SaveLatent", samples=["17", 0], filename_prefix="encoded"),
        "19": sampled(latent_image=["17", 0], noise=["17", 0], denoise=0.5),
        "20": node("SaveLatent", samples=["19", 0], filename_prefix="own_noise"),
    }
    check_same(comfyui, graph, tmp_path, endpoint)


def test_lists_and_texts_are_the_same(comfyui: ComfyUI, endpoint: str, tmp_path: Path) -> None:
    question = {"question": "What shape is it?", "resolution": "image_768res", "width": 128, "height": 128}
    graph = {
        "1": MODEL,
        "2": node("LoadImage", image="lance-circle.png"),
        "4": node("ImageBatch", image1=["2", 0], image2=["2", 0]),
        "5": node("LancedAskImage", lance_model=["1", 0], image=["4", 0], **question, **ASKED),
        "6": node("StringReplace", string="a large red SHAPE", find="SHAPE", replace=["5", 0]),
        "7": node("PrimitiveInt", value=64),
        "8": node(
            "LancedTextToImage",
            lance_model=["1", 0],
            prompt=["6", 0],
            width=["7", 0],
            height="64",
            batch_size=1,
            **SMALL,
        ),
        "9": node("SaveImage", images=["8", 0], filename_prefix="each"),
        "10": node("PrimitiveFloat", value=0.1),
        "11": node("PreviewAny", source=["10", 0]),
    }
    run = comfyui.run(graph)
    assert run.status == "success", run.error
    ours = lancectl_graph(graph, tmp_path, endpoint, INPUTS)
    assert ours["11"]["text"] == list(run.outputs["11"]["text"])
    expected = list(saved_pictures(comfyui, {"9": run.outputs["9"]}))
    assert len(expected) == 2
    for path, picture in zip(ours["9"]["files"], expected, strict=True):
        np.testing.assert_array_equal(pixels_of(path), picture)


def test_a_graph_of_another_pack_is_the_same(comfyui: ComfyUI, endpoint: str, tmp_path: Path) -> None:
    graph = {
        "1": node("LanceModelLoader", flavor="Lance_3B", precision="awq_int4"),
        "2": node("LanceT2I", prompt=CIRCLE, num_steps=4, cfg_scale=4.0, seed=7, lance_model=["1", 0], size="64x96"),
        "3": node("SaveImage", images=["2", 0], filename_prefix="theirs"),
    }
    check_same(comfyui, copy.deepcopy(graph), tmp_path, endpoint)


def test_files_have_the_names_that_comfyui_gives_them(comfyui: ComfyUI, endpoint: str, tmp_path: Path) -> None:
    graph = {"1": node("LoadImage", image="lance-circle.png")}
    for place, prefix in enumerate(["a/b/named", "a//b/../named_%year%", "%width%_x_%batch_num%", "named"]):
        graph[str(place + 2)] = node("SaveImage", images=["1", 0], filename_prefix=prefix)
    run = comfyui.run(graph)
    assert run.status == "success", run.error
    ours = lancectl_graph(graph, tmp_path, endpoint, INPUTS)
    for key, theirs in run.outputs.items():
        expected = [str(Path(entry["subfolder"]) / entry["filename"]) for entry in theirs["images"]]
        made = [str(Path(path).relative_to(tmp_path / "out")) for path in ours[key]["files"]]
        assert made == expected


def test_the_pictures_of_a_graph_carry_it_as_comfyuis_do(comfyui: ComfyUI, endpoint: str, tmp_path: Path) -> None:
    graph = api_form("t2i", prompt='a "red" circle 🦊', steps=2, seed=2**63 + 1, width=64, height=64)
    run = comfyui.run(graph)
    assert run.status == "success", run.error
    (path,) = lancectl_graph(graph, tmp_path, endpoint, tmp_path)["3"]["files"]
    with Image.open(io.BytesIO(comfyui.fetch_file(run.outputs["3"]["images"][0]))) as image:
        theirs = json.loads(image.info["prompt"])
        theirs["1"].pop("is_changed", None)  # of ComfyUI's cache
    with Image.open(path) as image:
        assert json.loads(image.info["prompt"]) == theirs == graph
        assert json.loads(image.info["lanced"])["prompt"] == 'a "red" circle 🦊'
