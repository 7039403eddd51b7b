"""lancectl and a real lanced with the demo model: every task, all kinds of files in and out, and wrong input."""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lanced_process import LANCECTL, Lanced

PICTURE = ["--size", "128x128", "--steps", "12"]
CLIP = ["--size", "96x96", "--frames", "9", "--steps", "8"]
SEEN = ["--resolution", "112x112"]  # what the demo model's ViT was trained on
Pixels = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def still_alive(lanced: Lanced) -> Iterator[None]:
    """No test may end the daemon or leave a job in it."""
    yield
    status = lanced.lancectl("status", "--json")
    assert status.returncode == 0, status.stderr
    jobs = json.loads(status.stdout)["jobs"]
    assert (jobs["queued"], jobs["running"]) == (0, 0)


@pytest.fixture(scope="module")
def circle(lanced: Lanced, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of the demo's world: a red circle on the left on blue."""
    y, x = np.ogrid[:128, :128]
    pixels = np.full((128, 128, 3), (40, 80, 220), np.uint8)
    pixels[(x - 36) ** 2 + (y - 64) ** 2 < 30**2] = (220, 40, 40)
    path = tmp_path_factory.mktemp("world") / "circle.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def moving(lanced: Lanced, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of that world as a folder: a green square that moves to the right over white."""
    folder = tmp_path_factory.mktemp("world") / "moving"
    folder.mkdir()
    for i in range(9):
        pixels = np.full((96, 96, 3), 245, np.uint8)
        left = 8 + 7 * i
        pixels[36:60, left : left + 24] = (40, 180, 60)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (folder / "fps.txt").write_text("12\n")
    return folder


def make(lanced: Lanced, *arguments: str | Path) -> str:
    done = lanced.lancectl("--quiet", *map(str, arguments))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def pixels_of(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image)


def frames_of(folder: Path) -> Pixels:
    return np.stack([pixels_of(path) for path in sorted(folder.glob("*.png"))])


def receipt_of(lanced: Lanced, path: Path) -> dict[str, Any]:
    shown = lanced.lancectl("show", str(path), "--json")
    assert shown.returncode == 0, shown.stderr
    receipt = json.loads(shown.stdout)
    assert isinstance(receipt, dict)
    return receipt


def test_a_video_is_the_same_in_every_container(lanced: Lanced, tmp_path: Path) -> None:
    prompt = "a small green triangle moves from left to right on a white background"
    names = ("clip", "clip.mp4", "clip.webm", "clip.y4m")
    for name in ("clip/", *names[1:]):
        target = f"{tmp_path}/{name}"
        assert make(lanced, "t2v", prompt, "-o", target, "--seed", "5", *CLIP) == target + "\n"
    frames = frames_of(tmp_path / "clip")
    assert frames.shape == (9, 96, 96, 3)
    assert (tmp_path / "clip/fps.txt").read_text() == "12\n"
    for name in names[:3]:
        receipt = receipt_of(lanced, tmp_path / name)
        assert (receipt["task"], receipt["prompt"], receipt["seed"]) == ("t2v", prompt, 5)
        assert receipt["params"]["num_frames"] == 9
    # Read back, they are the same video to the model.
    question = ("Describe the video.", *SEEN)
    answers = {make(lanced, "ask", tmp_path / name, *question) for name in names}
    assert len(answers) == 1


def test_a_video_begins_with_the_picture_it_was_given(lanced: Lanced, circle: Path, tmp_path: Path) -> None:
    make(lanced, "i2v", circle, "the circle moves right", "-o", f"{tmp_path}/run/", "--latent-mean", *CLIP)
    frames = frames_of(tmp_path / "run")
    assert frames.shape == (9, 96, 96, 3)
    with Image.open(circle) as picture:
        given = np.asarray(picture.resize((96, 96), Image.Resampling.BICUBIC)).astype(float)
    assert np.abs(frames[0] - given).mean() < 12
    receipt = receipt_of(lanced, tmp_path / "run")
    assert receipt["params"]["source_latent_mean"] is True


def test_an_edit_changes_the_picture_by_its_prompt(lanced: Lanced, circle: Path, tmp_path: Path) -> None:
    make(lanced, "edit", circle, "change the background to yellow", "-o", tmp_path / "a.png", *PICTURE)
    edited = pixels_of(tmp_path / "a.png")
    assert edited.shape == (128, 128, 3)
    corner = edited[:16, -16:].reshape(-1, 3).mean(axis=0)
    assert corner[0] > 150 and corner[1] > 150 and corner[2] < 120, f"the corner is {corner}, not yellow"
    assert receipt_of(lanced, tmp_path / "a.png")["task"] == "image_edit"


def test_a_picture_may_be_png_jpeg_or_webp(lanced: Lanced, circle: Path, tmp_path: Path) -> None:
    with Image.open(circle) as picture:
        picture.save(tmp_path / "a.jpg", quality=95)
        picture.save(tmp_path / "a.webp", lossless=True)
        picture.convert("RGBA").save(tmp_path / "rgba.png")
        picture.convert("P").save(tmp_path / "palette.png")
        picture.convert("CMYK").save(tmp_path / "cmyk.jpg")
        picture.crop((0, 0, 127, 125)).save(tmp_path / "odd.png")
    for name in ("a.jpg", "a.webp", "rgba.png", "palette.png", "cmyk.jpg", "odd.png"):
        assert "red circle on the left" in make(lanced, "ask", tmp_path / name, "Describe the image.", *SEEN), name


def test_a_video_edit_keeps_the_length_of_its_source(lanced: Lanced, moving: Path, tmp_path: Path) -> None:
    make(lanced, "video-edit", moving, "change the background to yellow", "-o", f"{tmp_path}/out/", "--size", "96x96",
         "--steps", "8")
    frames = frames_of(tmp_path / "out")
    assert frames.shape == (9, 96, 96, 3)
    assert receipt_of(lanced, tmp_path / "out")["task"] == "video_edit"


def test_an_answer_is_printed_as_it_is_made(lanced: Lanced, circle: Path) -> None:
    question = ("ask", str(circle), "Describe the image.", *SEEN)
    answer = make(lanced, *question)
    assert answer.endswith("\n")
    assert "red circle" in answer
    object_ = json.loads(make(lanced, *question, "--json"))
    assert object_["text"] == answer.rstrip("\n")
    assert object_["receipt"]["task"] == "x2t_image"
    assert len(make(lanced, *question, "--max-tokens", "2").split()) <= 2
    loose = ("--temperature", "1.5", "--top-k", "50", "--top-p", "0.95", "--repetition-penalty", "1.05")
    assert make(lanced, *question, *loose, "--seed", "3") == make(lanced, *question, *loose, "--seed", "3")


def test_the_answer_of_a_job_can_be_fetched_later(lanced: Lanced, circle: Path) -> None:
    with lanced.client() as client:
        source = pixels_of(circle)[None]
        job = client.submit("x2t_image", source=source, prompt="Describe the image.", resolution="112x112")
        expected = job.result().text
        done = lanced.lancectl("fetch", job.id)
    assert (done.returncode, done.stdout) == (0, f"{expected}\n")


def test_of_a_long_video_only_sampled_frames_are_sent(lanced: Lanced, tmp_path: Path) -> None:
    folder = tmp_path / "long"
    folder.mkdir()
    for i in range(200):
        Image.new("RGB", (33, 47), (i, 255 - i, 90)).save(folder / f"{i:03}.png")
    done = lanced.lancectl("ask", str(folder), "Describe the video.", "--fps", "30", *SEEN)
    assert done.returncode == 0, done.stderr
    assert "69 of its 200 frames" in done.stderr


def test_sources_larger_than_a_request_are_made_smaller(circle: Path, tmp_path: Path) -> None:
    with Image.open(circle) as picture:
        picture.resize((1600, 1600)).save(tmp_path / "large.png")
    with Lanced("--blob-bytes", "2M") as small:
        done = small.lancectl("ask", str(tmp_path / "large.png"), "Describe the image.", *SEEN)
    assert done.returncode == 0, done.stderr
    assert "instead of 1600x1600" in done.stderr
    assert "red circle" in done.stdout


def example(elements: list[Any], kinds: list[str], targets: list[int]) -> dict[str, Any]:
    return {"interleave_array": elements, "element_dtype_array": kinds, "istarget_in_interleave": targets}


def test_example_files_are_run_as_the_official_script_does(
    lanced: Lanced, circle: Path, moving: Path, tmp_path: Path
) -> None:
    file, out = tmp_path / "examples.json", tmp_path / "out"

    def run(examples: dict[str, Any], *arguments: str) -> str:
        file.write_text(json.dumps(examples, indent=2))
        return make(lanced, "run", "--examples", file, "-o", out, *arguments)

    run({"000003.png": "a red circle", "12": "a blue square"}, *PICTURE)
    assert pixels_of(out / "000003.png").shape == pixels_of(out / "000012.png").shape == (128, 128, 3)
    prompts = json.loads((out / "prompt.json").read_text())
    assert prompts == {"000003.png": "a red circle", "000012.png": "a blue square"}
    alone = tmp_path / "alone.png"
    make(lanced, "t2i", "a blue square", "-o", alone, *PICTURE)
    np.testing.assert_array_equal(pixels_of(alone), pixels_of(out / "000012.png"))

    run({"0001": example(["turn the circle into a square", circle.name], ["text", "image"], [0, 0])},
        "--task", "image_edit", "--root", str(circle.parent), *PICTURE)
    assert receipt_of(lanced, out / "000001.png")["task"] == "image_edit"

    run({"0004": example(["the circle moves right", str(circle)], ["text", "image"], [0, 0])}, "--task", "i2v", *CLIP)
    assert receipt_of(lanced, out / "000004.mp4")["task"] == "i2v"

    system = "Look at the image carefully and answer the question."
    run({"0001": example([str(circle), [system, "Describe the image.", "-"]], ["image", "text"], [0, 1]),
         "0002": example([str(circle), "whatever"], ["image", "text"], [0, 1])}, *SEEN)
    results = json.loads((out / "result.json").read_text())
    assert [result["question"] for result in results] == ["Describe the image.", ""]
    assert "red circle" in results[0]["answer"]
    assert results[0]["image"] == str(circle)

    run({"0001": example([str(moving), [system, "Describe the video.", "-"]], ["video", "text"], [0, 1])}, *SEEN)
    results = json.loads((out / "result.json").read_text())
    assert results[0]["video"] == str(moving)
    assert results[0]["answer"]


def test_an_entry_that_fails_does_not_stop_the_others(lanced: Lanced, circle: Path, tmp_path: Path) -> None:
    file = tmp_path / "examples.json"
    kinds = (["image", "text"], [0, 1])
    file.write_text(json.dumps({
        "1": example(["missing.png", ["", "What is it?", ""]], *kinds),
        "2": example([str(circle), ["", "What is it?", ""]], *kinds),
    }))
    done = lanced.lancectl("run", "--examples", str(file), "-o", str(tmp_path / "out"), *SEEN)
    assert done.returncode == 6
    assert "missing.png" in done.stderr
    assert "1 of 2 entries were not made" in done.stderr
    assert [result["image"] for result in json.loads((tmp_path / "out/result.json").read_text())] == [str(circle)]


def refused(lanced: Lanced, code: int, *arguments: str | Path) -> str:
    done = lanced.lancectl("--quiet", *map(str, arguments))
    assert done.returncode == code, (done.returncode, done.stderr)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, "one clear error"
    return done.stderr


def png_header(width: int, height: int) -> bytes:
    """A PNG of that size up to its pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"")


def test_a_source_that_is_wrong_gives_one_error_that_names_it(
    lanced: Lanced, circle: Path, moving: Path, tmp_path: Path
) -> None:
    text, empty, cut, wide = (tmp_path / name for name in ("text.png", "empty.mp4", "cut.jpg", "wide.png"))
    text.write_text("a red fox in snow\n")
    empty.write_bytes(b"")
    with Image.open(circle) as picture:
        picture.save(cut)
        picture.resize((8193, 1)).save(wide)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    headless = tmp_path / "headless.y4m"
    headless.write_bytes(b"YUV4MPEG2 W32 H32 F12:1 Ip A1:1 C420jpeg\n")
    targa, cut_clip, half_frame, vast = (tmp_path / name for name in ("a.tga", "cut.mp4", "half.y4m", "vast.png"))
    with Image.open(circle) as picture:
        picture.save(targa)
    make(lanced, "t2v", "a circle", "-o", cut_clip, *CLIP)
    cut_clip.write_bytes(cut_clip.read_bytes()[:-100])
    half_frame.write_bytes(headless.read_bytes() + b"FRAME\n" + bytes(32 * 32 * 3 // 2) + b"FRAME\n" + bytes(1000))
    vast.write_bytes(png_header(16000, 16000))
    bare = tmp_path / "bare"
    bare.mkdir()
    Image.new("RGB", (96, 96)).save(bare / "1.png")
    picture_target, video_target = ("-o", tmp_path / "out.png"), ("-o", tmp_path / "out.mp4")

    cases: list[tuple[tuple[str | Path, ...], Path, str]] = [
        (("edit", text, "blue", *picture_target), text, "TIFF, AVIF and HEIC are accepted"),
        (("edit", tmp_path / "none.png", "blue", *picture_target), tmp_path / "none.png", "No such file"),
        (("edit", cut, "blue", *picture_target), cut, "ends too early"),
        (("edit", wide, "blue", *picture_target), wide, "is 8193 x 1 pixels; 1 to 8192 a side are accepted"),
        (("edit", moving, "blue", *picture_target), moving, "a picture is wanted"),
        (("i2v", text, "it runs", *video_target), text, "TIFF, AVIF and HEIC are accepted"),
        (("video-edit", circle, "blue", *video_target), circle, "a video is wanted"),
        (("video-edit", text, "blue", *video_target), text, "is no video"),
        (("video-edit", empty, "blue", *video_target), empty, "is no video"),
        (("video-edit", headless, "blue", *video_target), headless, "no frames"),
        (("video-edit", bare, "blue", *video_target), bare, "fps.txt"),
        (("video-edit", tmp_path, "blue", "--fps", "12", *video_target), tmp_path, "cut.jpg"),
        (("ask", text, "What is it?"), text, "neither a picture"),
        (("ask", targa, "What is it?"), targa, "neither a picture (PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF"),
        (("ask", cut_clip, "What is it?"), cut_clip, "the file ends too early"),
        (("video-edit", half_frame, "blue", *video_target), half_frame, "the file ends too early, after frame 1"),
        (("ask", vast, "What is it?"), vast, "is 16000 x 16000 pixels; 1 to 8192 a side are accepted"),
        (("ask", "/dev/zero", "What is it?"), Path("/dev/zero"), "neither a file nor a pipe nor a folder"),
    ]
    for arguments, named, reason in cases:
        message = refused(lanced, 6, *arguments)
        assert str(named) in message and reason in message, message


def test_parameters_that_are_wrong_are_refused_with_what_is_accepted(
    lanced: Lanced, circle: Path, moving: Path, tmp_path: Path
) -> None:
    video, picture = ("-o", tmp_path / "out.mp4"), ("-o", tmp_path / "out.png")
    assert "1 to 121" in refused(lanced, 4, "t2v", "a circle", "--frames", "200", *video)
    assert "1 to 121" in refused(lanced, 4, "i2v", circle, "it moves", "--frames", "200", *video)
    assert "multiples of 16" in refused(lanced, 4, "t2v", "a circle", "--size", "100x96", *video)
    assert "image_768res" in refused(lanced, 4, "edit", circle, "blue", "--resolution", "8k", *picture)
    assert "temperature" in refused(lanced, 4, "ask", circle, "What?", "--temperature", "-1")
    assert "max_new_tokens" in refused(lanced, 4, "ask", circle, "What?", "--max-tokens", "0")
    assert "prompt is empty" in refused(lanced, 4, "edit", circle, "", *picture)
    refused(lanced, 5, "t2v", "a circle", "-o", f"{moving}/")  # its frames are there
    assert not list(tmp_path.iterdir())


def test_a_picture_of_one_pixel_gives_a_result(lanced: Lanced, tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (220, 40, 40)).save(tmp_path / "one.png")
    assert make(lanced, "ask", tmp_path / "one.png", "Describe the image.", *SEEN).strip()
    make(lanced, "edit", tmp_path / "one.png", "change the background to yellow", "-o", tmp_path / "a.png", *PICTURE)
    assert pixels_of(tmp_path / "a.png").shape == (128, 128, 3)


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.y4m", "a/"])
def test_a_full_disk_leaves_no_half_video_and_the_result_can_be_fetched(
    lanced: Lanced, name: str, tmp_path: Path
) -> None:
    def limit_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    target = f"{tmp_path}/{name}"
    done = subprocess.run(
        [str(LANCECTL), "--quiet", "t2v", "a circle", "-o", target, *CLIP],
        env=os.environ | {"LANCED_ENDPOINT": lanced.endpoint},
        capture_output=True,
        text=True,
        preexec_fn=limit_files,
        restore_signals=False,
        timeout=120,
    )
    assert done.returncode == 5
    assert target.rstrip("/") in done.stderr
    assert not list(tmp_path.iterdir())
    fetch = next(line for line in done.stderr.splitlines() if line.startswith("  lancectl fetch "))
    job, where = fetch.split()[2], f"{tmp_path}/" + fetch.split()[4]
    make(lanced, "fetch", job, "-o", where)
    assert Path(where).suffix == Path(target).suffix
    assert Path(where).is_dir() == target.endswith("/")


def test_frames_that_are_not_made_are_said(lanced: Lanced, tmp_path: Path) -> None:
    size = ["--size", "64x64", "--steps", "1"]
    odd = lanced.lancectl("t2v", "a circle", "-o", str(tmp_path / "a.mp4"), "--frames", "7", *size)
    assert odd.returncode == 0, odd.stderr
    assert "7 frames were asked for and 5 made: a video has 4n+1\n" in odd.stderr
    receipt = receipt_of(lanced, tmp_path / "a.mp4")
    assert (receipt["params"]["num_frames"], receipt["frames"]) == (7, 5)
    even = lanced.lancectl("t2v", "a circle", "-o", str(tmp_path / "b.mp4"), "--frames", "5", *size)
    assert "asked for" not in even.stderr


def test_ctrl_c_cancels_a_video(lanced: Lanced, tmp_path: Path) -> None:
    command = [str(LANCECTL), "t2v", "a circle", "-o", str(tmp_path / "a.mp4"), "--steps", "1000", "--size", "96x96"]
    environment = os.environ | {"LANCED_ENDPOINT": lanced.endpoint}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("denoise"):
                break
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert time.monotonic() - started < 10
    assert not (tmp_path / "a.mp4").exists()
