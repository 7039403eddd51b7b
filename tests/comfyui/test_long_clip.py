"""A clip as cameras make them, 10 s of 1080p30 with sound, goes into the nodes as it goes into lancectl."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from comfyui_server import ROOT, ComfyUI
from lanced_client import Client
from saved_pictures import pixels_of, saved_pixels
from workflow_files import api_form

PATIENCE_SECONDS = 600
CLIP = ("testsrc2=size=1920x1080:rate=30:duration=10", "sine=frequency=440:duration=10")
QUESTION, PROMPT = "Which way does the shape move?", "change the background to yellow"


@pytest.fixture(scope="module")
def clip(comfyui: ComfyUI, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Also in ComfyUI's input folder."""
    ffmpeg = shutil.which("ffmpeg")
    if not ffmpeg:
        pytest.skip("needs ffmpeg, to make a clip with sound")
    path = tmp_path_factory.mktemp("clip") / "long.mp4"
    picture, sound = CLIP
    command = [ffmpeg, "-v", "error", "-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound]
    subprocess.run([*command, "-preset", "ultrafast", "-pix_fmt", "yuv420p", str(path)], check=True)
    comfyui.upload(path)
    return path


def lancectl(endpoint: str, *arguments: str) -> str:
    command = [str(ROOT / "build/lancectl"), *arguments]
    done = subprocess.run(
        command,
        env=os.environ | {"LANCED_ENDPOINT": endpoint},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_answer_about_a_long_clip_is_lancectls(comfyui: ComfyUI, client: Client, endpoint: str, clip: Path) -> None:
    form = api_form("ask_video", question=QUESTION)
    form["4"]["inputs"]["file"] = clip.name
    run = comfyui.run(form, timeout=PATIENCE_SECONDS)
    assert run.status == "success", run.error
    (answer,) = run.outputs["3"]["text"]
    assert answer == lancectl(endpoint, "ask", str(clip), QUESTION, "--size", "112x112").removesuffix("\n")


def test_an_edit_of_a_long_clip_has_lancectls_frames_and_the_clips_sound(
    comfyui: ComfyUI, client: Client, endpoint: str, clip: Path, tmp_path: Path
) -> None:
    form = api_form("video_edit", prompt=PROMPT, steps=2)
    form["4"]["inputs"]["file"] = clip.name
    form["5"] = {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "frames"}}
    run = comfyui.run(form, timeout=PATIENCE_SECONDS)
    assert run.status == "success", run.error
    lancectl(endpoint, "video-edit", str(clip), PROMPT, "--size", "96x96", "--steps", "2", "-o", f"{tmp_path}/frames/")
    made = saved_pixels(comfyui, run.outputs["5"])
    expected = [pixels_of(path.read_bytes()) for path in sorted((tmp_path / "frames").glob("*.png"))]
    np.testing.assert_array_equal(made, expected)
    saved = tmp_path / "saved.mp4"
    saved.write_bytes(comfyui.fetch_file(run.outputs["3"]["images"][0]))
    probe = ["ffprobe", "-v", "error", "-show_streams", "-of", "json", str(saved)]
    streams = json.loads(subprocess.run(probe, check=True, capture_output=True).stdout)["streams"]
    lengths = {stream["codec_type"]: float(stream["duration"]) for stream in streams}
    assert lengths.keys() == {"video", "audio"}
    assert list(lengths.values()) == pytest.approx([10.0, 10.0], abs=0.2), "seconds: all of the clip and of its sound"
