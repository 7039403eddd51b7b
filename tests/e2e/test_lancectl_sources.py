"""lancectl and what it starts from: kinds of pictures, photos taken sideways, pictures that move, and pipes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from lanced_process import LANCECTL, LANCECTL_SECONDS, Lanced

SEEN = ["--resolution", "112x112"]
HEIGHT, WIDTH = 48, 64


def drawn(shift: int = 0) -> Image.Image:
    """A red circle on blue that is not in the middle, so that turning it shows."""
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    pixels = np.full((HEIGHT, WIDTH, 3), (40, 80, 220), np.uint8)
    pixels[(x - 16 - shift) ** 2 + (y - 16) ** 2 < 12**2] = (220, 40, 40)
    return Image.fromarray(pixels)


def run(
    lanced: Lanced, *arguments: str | Path, stdin: bytes = b"", shell: str = ""
) -> subprocess.CompletedProcess[bytes]:
    """lancectl with something on its standard input, or in the shell's words."""
    command = ["bash", "-c", shell, "bash"] if shell else []
    return subprocess.run(
        [*command, str(LANCECTL), *map(str, arguments)],
        env=os.environ | {"LANCED_ENDPOINT": lanced.endpoint},
        input=stdin,
        capture_output=True,
        timeout=LANCECTL_SECONDS,
        check=False,
    )


def latents_of(lanced: Lanced, source: str | Path, folder: Path, *options: str) -> tuple[np.ndarray[Any, Any], str]:
    """What the encoder makes of a source, which tells whether two sources have the same pixels; and what was said."""
    file = folder / "source.latent"
    done = lanced.lancectl("encode", str(source), "-o", str(file), *options)
    assert done.returncode == 0, done.stderr
    return load_file(file)["latent_tensor"], done.stderr


@pytest.mark.parametrize("name", ["a.gif", "a.bmp", "a.tif", "a.webp", "a.png"])
def test_the_same_pixels_count_the_same_in_every_format(lanced: Lanced, tmp_path: Path, name: str) -> None:
    picture = drawn()
    picture.save(tmp_path / "plain.png")
    options: dict[str, Any] = {"lossless": True} if name.endswith("webp") else {}
    picture.save(tmp_path / name, **options)
    expected, _ = latents_of(lanced, tmp_path / "plain.png", tmp_path)
    found, _ = latents_of(lanced, tmp_path / name, tmp_path)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("orientation", [3, 5, 6, 8])
def test_a_photo_taken_sideways_is_used_as_stored_with_a_word_about_it(
    lanced: Lanced, tmp_path: Path, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turns = {3: Image.Transpose.ROTATE_180, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270,
             8: Image.Transpose.ROTATE_90}
    drawn().save(tmp_path / "stored.png")
    drawn().save(tmp_path / "photo.png", exif=exif)
    drawn().transpose(turns[orientation]).save(tmp_path / "upright.png")

    stored, _ = latents_of(lanced, tmp_path / "stored.png", tmp_path)
    plain, said = latents_of(lanced, tmp_path / "photo.png", tmp_path)
    assert np.array_equal(plain, stored)
    assert said.count("its EXIF wants it") == 1
    assert "--upright turns it" in said

    upright, _ = latents_of(lanced, tmp_path / "upright.png", tmp_path)
    turned, said = latents_of(lanced, tmp_path / "photo.png", tmp_path, "--upright")
    assert np.array_equal(turned, upright)
    assert "EXIF" not in said


def save_moving(path: Path) -> None:
    pictures = [drawn(3 * i) for i in range(12)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=80, loop=0)


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.gif"])
def test_a_question_about_a_picture_that_moves_is_about_a_clip(lanced: Lanced, tmp_path: Path, name: str) -> None:
    save_moving(tmp_path / name)
    done = lanced.lancectl("ask", str(tmp_path / name), "Describe the video.", "--json", "--max-tokens", "4", *SEEN)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["receipt"]["task"] == "x2t_video"
    assert f"{name}: looked at as a clip of 12 frames" in done.stderr


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.gif"])
def test_of_a_picture_that_moves_the_first_is_used_where_one_is_wanted(
    lanced: Lanced, tmp_path: Path, name: str
) -> None:
    save_moving(tmp_path / name)
    target = ("-o", str(tmp_path / "x.png"), "--steps", "2", "--size", "64x64")
    done = lanced.lancectl("edit", str(tmp_path / name), "turn the circle into a square", *target)
    assert done.returncode == 0, done.stderr
    assert f"{name}: the first of its 12 pictures is used" in done.stderr


def test_a_gif_of_one_picture_is_a_picture(lanced: Lanced, tmp_path: Path) -> None:
    drawn().save(tmp_path / "one.gif")
    done = lanced.lancectl("ask", str(tmp_path / "one.gif"), "What is it?", "--json", "--max-tokens", "4", *SEEN)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["receipt"]["task"] == "x2t_image"
    assert "clip" not in done.stderr


def test_sources_come_through_pipes(lanced: Lanced, tmp_path: Path) -> None:
    drawn().save(tmp_path / "a.png")
    save_moving(tmp_path / "a.webp")
    rest = ["Describe it.", "-q", "--max-tokens", "8", *SEEN]
    for name in ("a.png", "a.webp"):
        plain = run(lanced, "ask", tmp_path / name, *rest)
        assert plain.returncode == 0, plain.stderr
        for source in ("-", "/dev/stdin"):
            piped = run(lanced, "ask", source, *rest, stdin=(tmp_path / name).read_bytes())
            assert (piped.returncode, piped.stdout) == (0, plain.stdout), piped.stderr
        substituted = run(lanced, "ask", *rest, shell=f'"$1" "$2" <(cat "{tmp_path / name}") "${{@:3}}"')
        assert (substituted.returncode, substituted.stdout) == (0, plain.stdout), substituted.stderr


def test_a_pipe_that_nobody_writes_into_keeps_nobody_waiting_where_a_file_is_wanted(
    lanced: Lanced, tmp_path: Path
) -> None:
    pipe, folder = tmp_path / "pipe.png", tmp_path / "frames"
    os.mkfifo(pipe)
    folder.mkdir()
    drawn().save(folder / "1.png")
    os.mkfifo(folder / "fps.txt")
    commands: tuple[list[str | Path], ...] = (
        ["clip", pipe, "-o", tmp_path / "x.mp4"],
        ["show", pipe],
        ["video-edit", folder, "blue", "-o", tmp_path / "x.mp4"],
    )
    for command in commands:
        done = run(lanced, *command)
        assert done.returncode == 6, done.stderr
        assert str(command[1]) in done.stderr.decode()


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"", "the standard input: nothing came through it"),
        (b"a red fox", "the standard input: is neither a picture"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\0\0", "the standard input: cannot be read as PNG"),
    ],
)
def test_what_comes_through_a_pipe_and_is_no_picture_is_refused(lanced: Lanced, sent: bytes, said: str) -> None:
    done = run(lanced, "ask", "-", "What is it?", stdin=sent)
    assert (done.returncode, done.stdout) == (6, b"")
    assert said in done.stderr.decode()
    assert "/proc" not in done.stderr.decode()
