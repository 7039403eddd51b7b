"""`lancectl graph`: workflows of ComfyUI without ComfyUI; odd ones are refused in words before any work."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

from lanced_client import Client
from lanced_process import DEMO_MODEL, LANCECTL, LANCECTL_SECONDS, ROOT, Lanced

Graph = dict[str, Any]
WORKFLOWS = sorted((ROOT / "workflows/api").glob("*.json"))
INPUTS = ROOT / "workflows/input"
SAMPLING: dict[str, Any] = {"steps": 3, "guidance": 4.0, "shift": 3.5, "seed": 7}


def node(kind: str, title: str = "", **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs} | ({"_meta": {"title": title}} if title else {})


MODEL = node("LancedModel", model="automatic", endpoint="")


def picture(prompt: str = "a circle", **inputs: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {"prompt": prompt, "width": 64, "height": 64, "batch_size": 1, "lance_model": ["1", 0]}
    return node("LancedTextToImage", **(asked | SAMPLING | inputs))


PICTURE: Graph = {"1": MODEL, "2": picture(), "3": node("SaveImage", images=["2", 0], filename_prefix="lance")}


def run(
    lanced: Lanced, graph: Any, folder: Path, *arguments: str, inputs: Path = INPUTS
) -> subprocess.CompletedProcess[str]:
    file = folder / "graph.json"
    file.write_text(graph if isinstance(graph, str) else json.dumps(graph))
    return lanced.lancectl("graph", str(file), "-o", str(folder / "out"), "--input-dir", str(inputs), *arguments)


def told(lanced: Lanced, graph: Any, folder: Path, *arguments: str, inputs: Path = INPUTS) -> dict[str, Any]:
    """What a run that works told: by node, "files" or "text"."""
    done = run(lanced, graph, folder, "--json", *arguments, inputs=inputs)
    assert done.returncode == 0, done.stderr
    outputs: dict[str, Any] = json.loads(done.stdout)["outputs"]
    return outputs


def pixels_of(path: str | Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image)


def without_titles(graph: Graph) -> Graph:
    return {key: {"class_type": entry["class_type"], "inputs": entry["inputs"]} for key, entry in graph.items()}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_workflow_that_comes_along_runs(lanced: Lanced, tmp_path: Path, path: Path) -> None:
    graph = json.loads(path.read_text())
    outputs = told(lanced, graph, tmp_path)
    showing = {"SaveImage": "files", "SaveVideo": "files", "PreviewAny": "text", "LancedAskImage": "text"}
    for key, entry in graph.items():
        if what := showing.get(entry["class_type"]):
            assert outputs[key][what], key
    for output in outputs.values():
        for file in output.get("files", []):
            shown = lanced.lancectl("show", file, "--json")
            if "grid" not in path.stem:  # which is put together of several
                assert json.loads(shown.stdout)["job"], shown.stderr


def test_a_graphs_picture_is_the_one_of_lancectls_own_command_and_carries_the_graph(
    lanced: Lanced, tmp_path: Path
) -> None:
    graph = copy.deepcopy(PICTURE)
    graph["2"]["inputs"] |= {"prompt": 'a "red" circle 🦊', "seed": 2**64 - 3, "batch_size": 2}
    files = told(lanced, graph, tmp_path)["3"]["files"]
    assert files == [str(tmp_path / f"out/lance_{number:05}_.png") for number in (1, 2)]
    arguments = ["--seed", str(2**64 - 3), "--steps", "3", "--size", "64x64", "--count", "2", "-q"]
    done = lanced.lancectl("t2i", 'a "red" circle 🦊', "-o", str(tmp_path / "own.png"), *arguments)
    assert done.returncode == 0, done.stderr
    for number, file in enumerate(files, start=1):
        np.testing.assert_array_equal(pixels_of(file), pixels_of(tmp_path / f"own-{number}.png"))
        with Image.open(file) as image:
            assert json.loads(image.info["prompt"]) == graph
            receipt = json.loads(image.info["lanced"])
        assert receipt["batch_index"] == number - 1
    again = told(lanced, graph, tmp_path)["3"]["files"]
    assert again == [str(tmp_path / f"out/lance_{number:05}_.png") for number in (3, 4)]


def test_settings_are_found_by_id_and_title_and_stand_in_the_picture(lanced: Lanced, tmp_path: Path) -> None:
    graph = copy.deepcopy(PICTURE)
    graph["2"]["_meta"] = {"title": "The first. Picture"}
    done = run(
        lanced, graph, tmp_path, "-q", "--set", "The first. Picture.prompt=x=y.z", "--set", f"2.seed={2**64 - 1}"
    )
    assert done.returncode == 0, done.stderr
    with Image.open(done.stdout.strip()) as image:
        inputs = json.loads(image.info["prompt"])["2"]["inputs"]
        receipt = json.loads(image.info["lanced"])
    assert (inputs["prompt"], inputs["seed"]) == ("x=y.z", 2**64 - 1)
    assert (receipt["prompt"], int(receipt["seed"])) == ("x=y.z", 2**64 - 1)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("2.width=50", "no multiple of 16"),
        ("2.width=5000", "16 to 1024 are accepted"),
        ("2.steps=many", '"many" is no whole number'),
        ("2.steps=1e300", '"1e+300" is no whole number'),
        ("2.colour=red", 'LancedTextToImage has no input "colour"; it has lance_model, prompt'),
        ("9.seed=1", 'no node of the id or title "9"'),
        ("seed=1", "is not NODE.INPUT=VALUE"),
        ("Same.images=1", '2 nodes have the title "Same"'),
        ("3.filename_prefix=../x", "leads out of the folder of outputs"),
        ("3.filename_prefix=/tmp/x", "leads out of the folder of outputs"),
    ],
)
def test_a_setting_that_fits_nothing_is_refused(lanced: Lanced, tmp_path: Path, setting: str, words: str) -> None:
    same = node("PreviewImage", "Same", images=["2", 0])
    graph = PICTURE | {"4": same, "5": same}
    done = run(lanced, graph, tmp_path, "--set", setting)
    assert done.returncode == 2
    assert words in done.stderr
    assert not (tmp_path / "out").exists()


def changed(**inputs: Any) -> Graph:
    graph = copy.deepcopy(PICTURE)
    for place, value in inputs.items():
        key, _, name = place.partition("_")
        graph[key.removeprefix("n")]["inputs"][name] = value
    return graph


LOADED: Graph = {
    "1": node("LoadImage", image="lance-circle.png"),
    "2": node("SaveImage", images=["1", 0], filename_prefix="x"),
}
CIRCLE_OF_LINKS = {"4": node("StringReplace", string=["4", 0], find="a", replace="b")}
HALF_A_SIZE: dict[str, Any] = {"prompt": "", "resolution": "image_256res", "width": 64, "height": 0, "batch_size": 1}
PROMPT_AS_FOLDER = "%LancedTextToImage.prompt%/x"
OUT_OF_INPUTS = "leads out of the folder of inputs"
WRONG: list[tuple[str, Any, str, int]] = [
    ("no JSON", '{"1": ', "not valid JSON", 6),
    ("a list", "[]", "no graph in ComfyUI's API form", 6),
    ("an empty object", "{}", "no graph in ComfyUI's API form", 6),
    ("a number for a node", '{"1": 5}', "has no class_type", 6),
    ("the drawn form", {"nodes": [], "links": []}, "Export (API)", 6),
    ("inputs that are a list", {"1": {"class_type": "SaveImage", "inputs": []}}, "are no object", 6),
    ("another pack's node", PICTURE | {"7": node("KSampler")}, "KSampler (node 7) is no node that lancectl can run", 2),
    ("what to do with it", PICTURE | {"7": node("KSampler")}, "lance-farm prepare --runner comfyui", 2),
    ("a circle", changed(n2_prompt=["4", 0]) | CIRCLE_OF_LINKS, "in a circle", 2),
    ("a link to nowhere", changed(n3_images=["8", 0]), 'linked to node "8", which is not there', 2),
    ("a number for a node's id", changed(n3_images=[2, 0]), 'node 2, which is no text, as ids of nodes are: "2"', 2),
    ("a list for a node's id", changed(n3_images=[["2"], 0]), 'linked to node ["2"], which is no text', 2),
    ("a link to no output", changed(n3_images=["2", 7]), "linked to output 7", 2),
    ("a link to half an output", changed(n3_images=["2", 0.5]), "linked to output 0.5", 2),
    ("a link of another type", changed(n3_images=["2", 1]), "has to be IMAGE, and node 2 gives LATENT", 2),
    ("a text for a picture", changed(n3_images="lance.png"), "has to be linked", 2),
    ("a missing input", {"1": MODEL, "3": node("SaveImage", filename_prefix="x")}, "has no images", 2),
    ("too many steps", changed(n2_steps=100000), "1 to 1000 are accepted", 2),
    ("a number that is none", changed(n2_guidance="four"), '"four" is no number', 2),
    ("an object for a number", changed(n2_guidance={"a": 1}), "neither a text nor a number", 2),
    ("a seed too large", changed(n2_seed=2**64), "no whole number", 2),
    ("a seed below zero", changed(n2_seed=-1), "are accepted", 2),
    ("nothing that shows", {"1": MODEL, "2": picture()}, "no node that saves or shows", 2),
    ("a prefix that climbs", changed(n3_filename_prefix="a/../../x"), "leads out of the folder of outputs", 2),
    ("a prefix whose date climbs", changed(n3_filename_prefix="%date:..%/x"), '"../x" leads out of the folder', 2),
    ("a prefix whose input climbs", changed(n2_prompt="..", n3_filename_prefix=PROMPT_AS_FOLDER), '"../x" leads', 2),
    ("a missing picture", LOADED | {"1": node("LoadImage", image="none.png")}, "No such file", 6),
    ("a picture elsewhere", LOADED | {"1": node("LoadImage", image="../input/lance-circle.png")}, OUT_OF_INPUTS, 2),
    ("a picture from the root", LOADED | {"1": node("LoadImage", image="/etc/passwd")}, OUT_OF_INPUTS, 2),
    ("a folder for a picture", LOADED | {"1": node("LoadImage", image=".")}, OUT_OF_INPUTS, 2),
    (
        "half a size",
        {
            "1": MODEL,
            "2": node("LoadImage", image="lance-circle.png"),
            "3": node("LancedImageEdit", lance_model=["1", 0], image=["2", 0], **HALF_A_SIZE, **SAMPLING),
            "4": node("SaveImage", images=["3", 0], filename_prefix="x"),
        },
        "give both width and height or neither",
        2,
    ),
    (
        "another container",
        {
            "1": node("LoadVideo", file="lance-square-moves.mp4"),
            "2": node("SaveVideo", video=["1", 0], filename_prefix="x", format="webm", codec="auto"),
        },
        "is none of auto, mp4",
        2,
    ),
]


@pytest.mark.parametrize(("graph", "words", "code"), [entry[1:] for entry in WRONG], ids=[entry[0] for entry in WRONG])
def test_a_graph_that_is_wrong_is_refused_in_words_before_anything_is_done(
    lanced: Lanced, tmp_path: Path, graph: Any, words: str, code: int
) -> None:
    done = run(lanced, graph, tmp_path)
    assert words in done.stderr
    assert done.returncode == code
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()
    with lanced.client() as client:
        assert client.jobs() == []


def test_everything_that_is_wrong_is_told_at_once(lanced: Lanced, tmp_path: Path) -> None:
    done = run(lanced, changed(n2_steps=0, n2_seed="x", n3_images=["8", 0]), tmp_path)
    assert all(words in done.stderr for words in ("steps is 0", 'seed "x"', 'node "8"'))
    twice = json.dumps(PICTURE)[:-1] + ', "2": ' + json.dumps(picture()) + "}"
    assert run(lanced, twice, tmp_path).stderr.count("node 2 is there twice") == 1
    wrong = json.dumps(changed(n2_steps=0))[:-1]
    twice = run(lanced, wrong + ', "2": ' + json.dumps(picture(steps=0)) + "}", tmp_path).stderr
    assert twice.count("steps is 0") == 1
    many = {str(key): node("SaveImage", images=[f"none{key}", 0], filename_prefix="x") for key in range(100)}
    done = run(lanced, many, tmp_path)
    assert len(done.stderr.splitlines()) < 30
    assert "more" in done.stderr.splitlines()[-1]


def test_numbers_that_are_written_as_texts_are_numbers_as_in_comfyui(lanced: Lanced, tmp_path: Path) -> None:
    texts = changed(n2_steps="3", n2_seed=" 7 ", n2_guidance="4", n2_width=64.9)
    (made,) = told(lanced, texts, tmp_path)["3"]["files"]
    (expected,) = told(lanced, PICTURE, tmp_path)["3"]["files"]
    np.testing.assert_array_equal(pixels_of(made), pixels_of(expected))


def test_a_graph_of_thousands_of_nodes_is_checked_and_run(lanced: Lanced, tmp_path: Path) -> None:
    count = 5000
    graph = {
        str(key): {"class_type": "Reroute", "inputs": {"": [str(key + 1), 0]}} for key in range(count)
    }  # the last comes first
    graph |= {str(count): node("PrimitiveString", value="through"), "shown": node("PreviewAny", source=["0", 0])}
    assert told(lanced, graph, tmp_path)["shown"]["text"] == ["through"]


def test_a_dry_run_says_what_would_be_done_and_does_nothing(lanced: Lanced, tmp_path: Path) -> None:
    done = run(lanced, PICTURE, tmp_path, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "1 LancedModel (LancedModel)",
        "2 LancedTextToImage (LancedTextToImage): a job of the daemon, t2i",
        "3 SaveImage (SaveImage): writes lance",
    ]
    assert not (tmp_path / "out").exists()


def test_a_graph_without_jobs_needs_no_daemon(tmp_path: Path) -> None:
    file = tmp_path / "graph.json"
    file.write_text(json.dumps(LOADED))
    done = subprocess.run(
        [str(LANCECTL), "graph", str(file), "-o", str(tmp_path / "out"), "--input-dir", str(INPUTS)],
        env=os.environ | {"LANCED_ENDPOINT": f"ipc://{tmp_path}/nobody"},
        capture_output=True,
        text=True,
        timeout=LANCECTL_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(pixels_of(done.stdout.strip()), pixels_of(INPUTS / "lance-circle.png"))


def test_jobs_of_independent_branches_are_with_the_daemon_together(lanced: Lanced, tmp_path: Path) -> None:
    graph: Graph = {"1": MODEL}
    for branch in range(3):
        graph[f"p{branch}"] = picture(f"a circle {branch}", steps=200, width=128, height=128)
        graph[f"s{branch}"] = node("SaveImage", images=[f"p{branch}", 0], filename_prefix=f"branch{branch}")
    file = tmp_path / "graph.json"
    file.write_text(json.dumps(graph))
    process = subprocess.Popen(
        [str(LANCECTL), "graph", str(file), "-o", str(tmp_path / "out"), "-q"],
        env=os.environ | {"LANCED_ENDPOINT": lanced.endpoint},
        stdout=subprocess.PIPE,
        text=True,
    )
    most = 0
    with lanced.client() as client:
        while process.poll() is None and most < 3:
            most = max(most, len([job for job in client.jobs() if job["state"] in ("queued", "running")]))
    out, _ = process.communicate(timeout=LANCECTL_SECONDS)
    assert (process.returncode, len(out.split())) == (0, 3)
    assert most == 3


def test_ctrl_c_cancels_all_jobs_of_a_graph(lanced: Lanced, tmp_path: Path) -> None:
    graph: Graph = {"1": MODEL}
    for branch in range(2):
        graph[f"p{branch}"] = picture(steps=1000, width=256, height=256)
        graph[f"s{branch}"] = node("SaveImage", images=[f"p{branch}", 0], filename_prefix="x")
    file = tmp_path / "graph.json"
    file.write_text(json.dumps(graph))
    process = subprocess.Popen(
        [str(LANCECTL), "graph", str(file), "-o", str(tmp_path / "out"), "-q"],
        env=os.environ | {"LANCED_ENDPOINT": lanced.endpoint},
    )
    with lanced.client() as client:
        deadline = time.monotonic() + LANCECTL_SECONDS
        while len(client.jobs()) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=LANCECTL_SECONDS) == 130
        while client.jobs() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert client.jobs() == []


def test_a_job_that_fails_is_named_with_its_node(lanced: Lanced, tmp_path: Path) -> None:
    graph = changed()
    graph["1"] = node("LancedModel", model="no-such-model", endpoint="")
    graph["2"]["_meta"] = {"title": "My picture"}
    done = run(lanced, graph, tmp_path, "-q")
    assert done.returncode == 4
    assert "node 2 (My picture): " in done.stderr
    assert "no-such-model" in done.stderr


def test_a_private_daemon_runs_a_graph_whatever_model_it_names(tmp_path: Path) -> None:
    graph = changed()
    graph["1"] = node("LancedModel", model="Lance-3B", endpoint="")
    file = tmp_path / "graph.json"
    file.write_text(json.dumps(graph))
    done = subprocess.run(
        [str(LANCECTL), "graph", str(file), "-o", str(tmp_path / "out"), "--model", str(DEMO_MODEL), "-q"],
        env=os.environ | {"LANCED_ENDPOINT": f"ipc://{tmp_path}/own"},
        capture_output=True,
        text=True,
        timeout=LANCECTL_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).exists()


def test_a_graph_that_names_its_daemon_is_sent_there(lanced: Lanced, tmp_path: Path) -> None:
    graph = changed(n1_endpoint=lanced.endpoint)
    file = tmp_path / "graph.json"
    file.write_text(json.dumps(graph))
    done = subprocess.run(
        [str(LANCECTL), "graph", str(file), "-o", str(tmp_path / "out"), "-q"],
        env=os.environ | {"LANCED_ENDPOINT": f"ipc://{tmp_path}/nobody"},
        capture_output=True,
        text=True,
        timeout=LANCECTL_SECONDS,
    )
    assert done.returncode == 0, done.stderr


def test_graphs_of_another_pack_become_ours_paths_of_files_and_sounds_included(lanced: Lanced, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"lance_model": ["1", 0], "num_steps": 3, "cfg_scale": 4.0, "seed": 7}
    graph: Graph = {
        "1": node("LanceModelLoader", flavor="Lance_3B", precision="awq_int4"),
        "2": node("LanceT2V", prompt="a circle", num_frames=5, height=64, width=64, **asked),
        "3": node("PreviewAny", source=["2", 0]),
        "4": node("LanceT2I", prompt="a circle", size="64x96", **asked),
        "5": node("SaveImage", images=["4", 0], filename_prefix="theirs"),
    }
    outputs = told(lanced, graph, tmp_path)
    assert outputs["3"]["text"] == outputs["2:file1"]["files"] == [str(tmp_path / "out/lance_00001_.mp4")]
    assert pixels_of(outputs["5"]["files"][0]).shape == (64, 96, 3)
    edited: dict[str, Any] = {
        "video_frames": ["5", 0],
        "video_fps": ["5", 2],
        "video_audio": ["5", 1],
        "instruction": "x",
    }
    graph = {
        "1": graph["1"],
        "4": node("LoadVideo", file="lance-square-moves.mp4"),
        "5": node("GetVideoComponents", video=["4", 0]),
        "6": node("LanceVideoEdit", **edited, **asked),
        "7": node("CreateVideo", images=["6", 0], audio=["6", 1], fps=["6", 2]),
        "8": node("SaveVideo", video=["7", 0], filename_prefix="edited", format="auto", codec="auto"),
    }
    planned = run(lanced, graph, tmp_path, "--dry-run")
    assert "6 LancedVideoEdit (LancedVideoEdit): a job of the daemon, video_edit" in planned.stdout


def test_latents_are_saved_with_graph_and_receipt_and_go_on_from_there(lanced: Lanced, tmp_path: Path) -> None:
    saved = node("SaveLatent", samples=["2", 1], filename_prefix="latents/kept")
    graph: Graph = {"1": MODEL, "2": picture(), "3": saved}
    (path,) = told(lanced, graph, tmp_path)["3"]["files"]
    assert load_file(path)["latent_tensor"].shape == (1, 48, 1, 4, 4)
    with safe_open(path, "np") as file:
        assert json.loads(file.metadata()["prompt"]) == graph
        assert json.loads(file.metadata()["lanced"])["prompt"] == "a circle"
    decoded: Graph = {
        "1": MODEL,
        "2": node("LoadLatent", latent="latents/kept_00001_.latent [output]"),
        "3": node("LancedDecode", lance_model=["1", 0], latent=["2", 0], fps=12.0),
        "4": node("SaveImage", images=["3", 0], filename_prefix="decoded"),
    }
    (made,) = told(lanced, decoded, tmp_path)["4"]["files"]
    (expected,) = told(lanced, PICTURE, tmp_path)["3"]["files"]
    np.testing.assert_array_equal(pixels_of(made), pixels_of(expected))


def test_a_video_keeps_its_sound_and_carries_graph_and_receipt(lanced: Lanced, tmp_path: Path) -> None:
    ffmpeg = shutil.which("ffmpeg")
    if not ffmpeg:
        pytest.skip("needs ffmpeg, to make a video with sound")
    sounding = tmp_path / "sounding.mp4"
    command = [ffmpeg, "-v", "error", "-i", str(INPUTS / "lance-square-moves.mp4"), "-f", "lavfi", "-i", "sine=440"]
    subprocess.run([*command, "-shortest", "-c:v", "copy", str(sounding)], check=True)
    asked: dict[str, Any] = {"resolution": "video_480p", "width": 96, "height": 96, "fps": 12.0} | SAMPLING
    asked["prompt"] = "make the square green"
    graph: Graph = {
        "1": MODEL,
        "2": node("LoadVideo", file="sounding.mp4"),
        "3": node("LancedVideoEdit", lance_model=["1", 0], video=["2", 0], **asked),
        "4": node("SaveVideo", video=["3", 1], filename_prefix="edited", format="auto", codec="auto"),
        "5": node("CreateVideo", images=["3", 0], audio=["3", 4], fps=["3", 5]),
        "6": node("SaveVideo", video=["5", 0], filename_prefix="made", format="auto", codec="auto"),
        "7": node("SaveVideo", video=["2", 0], filename_prefix="copied", format="auto", codec="auto"),
    }
    outputs = told(lanced, graph, tmp_path, inputs=tmp_path)
    for key in ("4", "6", "7"):
        (path,) = outputs[key]["files"]
        probe = ["ffprobe", "-v", "error", "-show_streams", "-show_format", "-of", "json", path]
        found = json.loads(subprocess.run(probe, check=True, capture_output=True).stdout)
        assert [stream["codec_type"] for stream in found["streams"]] == ["video", "audio"], key
        assert json.loads(found["format"]["tags"]["prompt"]) == graph
    assert json.loads(lanced.lancectl("show", outputs["4"]["files"][0], "--json").stdout)["task"] == "video_edit"


def test_the_tables_are_found_beside_the_program_and_where_it_is_installed(lanced: Lanced, tmp_path: Path) -> None:
    file = tmp_path / "graph.json"
    file.write_text(json.dumps(PICTURE))
    tables = [ROOT / f"protocol/{name}.json" for name in ("nodes", "core_nodes", "other_packs")]
    for place in ("bin", "share/lanced"):
        root = tmp_path / place.replace("/", "-")
        (root / "bin").mkdir(parents=True)
        (root / place).mkdir(parents=True, exist_ok=True)
        shutil.copy(LANCECTL, root / "bin")
        command = [str(root / "bin/lancectl"), "graph", str(file), "--dry-run"]
        without = subprocess.run(command, capture_output=True, text=True)
        assert (without.returncode, "nodes.json" in without.stderr) == (6, True)
        for table in tables:
            shutil.copy(table, root / place)
        assert subprocess.run(command, capture_output=True, text=True).returncode == 0


def test_a_broken_picture_is_told_before_any_job(lanced: Lanced, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes((INPUTS / "lance-circle.png").read_bytes()[:200])
    edit: dict[str, Any] = {"prompt": "x", "resolution": "image_256res", "width": 64, "height": 64, "batch_size": 1}
    graph: Graph = PICTURE | {
        "4": node("LoadImage", image="broken.png"),
        "5": node("LancedImageEdit", lance_model=["1", 0], image=["4", 0], **edit, **SAMPLING),
        "6": node("SaveImage", images=["5", 0], filename_prefix="x"),
    }
    done = run(lanced, graph, tmp_path, inputs=tmp_path)
    assert done.returncode == 6
    assert "broken.png" in done.stderr
    with Client(lanced.endpoint) as client:
        assert client.jobs() == []
