"""`lancectl sheet` and `lancectl clip`: files put together, without a daemon."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image

from lanced_process import LANCECTL, LANCECTL_SECONDS, ROOT


def lancectl(*arguments: str | Path, lines: str = "") -> subprocess.CompletedProcess[str]:
    command = [str(LANCECTL), *map(str, arguments)]
    return subprocess.run(command, input=lines, capture_output=True, text=True, timeout=LANCECTL_SECONDS)


def picture(path: Path, width: int, height: int, colour: tuple[int, int, int]) -> Path:
    Image.new("RGB", (width, height), colour).save(path)
    return path


def test_a_sheet_has_each_picture_in_the_middle_of_its_cell_and_large_ones_made_smaller(tmp_path: Path) -> None:
    small = picture(tmp_path / "a.png", 20, 10, (255, 0, 0))
    large = picture(tmp_path / "b.png", 200, 100, (0, 0, 255))
    done = lancectl("sheet", small, large, small, "-o", tmp_path / "s.png", "--columns", "2", "--cell", "40")
    assert done.returncode == 0, done.stderr
    pixels = np.asarray(Image.open(tmp_path / "s.png"))
    assert pixels.shape == (80, 80, 3)
    red, blue = (np.argwhere((pixels == colour).all(axis=2)) for colour in ((255, 0, 0), (0, 0, 255)))
    assert blue.min(axis=0).tolist() == [10, 40] and blue.max(axis=0).tolist() == [29, 79]
    assert red.min(axis=0).tolist() == [15, 10] and len(red) == 2 * 20 * 10


def test_a_clip_is_its_pictures_one_after_the_other(tmp_path: Path) -> None:
    colours = [(250, 10, 10), (10, 250, 10), (10, 10, 250)]
    files = [picture(tmp_path / f"{place}.png", 32, 32, colour) for place, colour in enumerate(colours)]
    done = lancectl("clip", *files, "-o", f"{tmp_path}/frames/", "--fps", "5")
    assert done.returncode == 0, done.stderr
    frames = sorted((tmp_path / "frames").glob("*.png"))
    assert [Image.open(frame).getpixel((9, 9)) for frame in frames] == colours
    assert (tmp_path / "frames/fps.txt").read_text().strip() == "5"


def test_what_cannot_be_put_together_is_named(tmp_path: Path) -> None:
    one, other = picture(tmp_path / "a.png", 32, 32, (0, 0, 0)), picture(tmp_path / "b.png", 32, 16, (0, 0, 0))
    cases: list[tuple[list[str | Path], int, str]] = [
        (["clip", one, other, "-o", tmp_path / "c.mp4"], 6, "b.png: is 32 x 16, those before it 32 x 32"),
        (["sheet", one, tmp_path / "no.png", "-o", tmp_path / "s.png"], 6, "no.png"),
        (["sheet", one, "-o", tmp_path / "s.jpg"], 2, "sheet needs -o FILE.png"),
        (["sheet", one, "-o", tmp_path / "s.png", "--cell", "5"], 2, '--cell: "5" is not from 16 to 1024'),
        (["clip", "-o", tmp_path / "c.mp4"], 2, "clip needs pictures or videos"),
    ]
    for arguments, code, words in cases:
        done = lancectl(*arguments)
        assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    assert not (tmp_path / "s.png").exists() and not (tmp_path / "c.mp4").exists()


def test_graphs_answers_each_line_and_goes_on_after_a_bad_one(tmp_path: Path) -> None:
    graph = json.loads((ROOT / "workflows/api/t2i.json").read_text())
    (tmp_path / "good.json").write_text(json.dumps(graph))
    graph["2"]["inputs"]["width"] = 50
    (tmp_path / "bad.json").write_text(json.dumps(graph))
    asked = [{"workflow": f"{tmp_path}/{name}.json", "dry_run": True} for name in ("bad", "none", "good")]
    lines = "".join(json.dumps(line) + "\n" for line in [*asked, {"dry_run": True}]) + "no JSON\n"
    done = lancectl("graphs", lines=lines)
    codes = [answer["exit_code"] for answer in map(json.loads, done.stdout.splitlines()) if "exit_code" in answer]
    assert codes == [2, 6, 0, 2, 2]
    assert "width is 50, no multiple of 16" in done.stderr
    assert done.returncode == 0
