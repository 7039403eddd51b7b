"""lance-quant calibrate: what it counts of the demo model's jobs, and that nothing but the jobs changes it."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lanced_process import BUILD

QUANT = BUILD / "lance-quant"
ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "demo/lance-demo"
SMALL = ("--size", "64x64", "--steps", "4", "--resolution", "64x64/56x56")
LAYER = "language_model.model.layers.1"
Sums = dict[str, np.ndarray[Any, Any]]


@pytest.fixture
def jobs(tmp_path: Path) -> list[str | Path]:
    """Three pictures of prompts, and three questions about two pictures in an example file."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\n\na large blue square on the left\r\na green triangle\n")
    for name in ("a", "b"):
        Image.effect_mandelbrot((80, 64), (-2, -1, 1, 1), 40 + ord(name)).convert("RGB").save(tmp_path / f"{name}.png")
    questions = {
        str(i): {
            "interleave_array": [f"{'ab'[i % 2]}.png", ["You are a helpful assistant.", "what shape is it?", "none"]],
            "element_dtype_array": ["image", "text"],
            "istarget_in_interleave": [0, 1],
        }
        for i in range(3)
    }
    (tmp_path / "questions.json").write_text(json.dumps(questions))
    return [
        *("--task", "t2i", "--prompts", prompts),
        *("--task", "x2t_image", "--examples", tmp_path / "questions.json"),
        *SMALL,
    ]


def command(words: list[str | Path], output: Path, *more: str) -> list[str]:
    return [str(word) for word in (QUANT, "calibrate", "--model", MODEL, *words, "-o", output, *more)]


def calibrate(words: list[str | Path], output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(words, output, *more), capture_output=True, text=True, timeout=120, check=False)


def read(path: Path) -> Sums:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert json.loads(header.pop("__metadata__")["tasks"])
    kinds: dict[str, Any] = {"F32": np.float32, "I64": np.int64}
    body = data[8 + length :]
    return {
        name: np.frombuffer(body[slice(*entry["data_offsets"])], kinds[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
    }


def test_every_layer_of_both_experts_is_counted_and_the_sums_fit_each_other(
    jobs: list[str | Path], tmp_path: Path
) -> None:
    made = calibrate(jobs, tmp_path / "stats.safetensors")
    assert made.returncode == 0, made.stderr
    assert "6 of 6 samples" in made.stderr
    sums = read(tmp_path / "stats.safetensors")
    layers = [name.removesuffix(".tokens") for name in sums if name.endswith(".tokens")]
    assert len(layers) == 56
    for layer in layers:
        tokens, total, squares, largest = (
            sums[f"{layer}.{kind}"] for kind in ("tokens", "sum_abs", "sum_squares", "largest")
        )
        # 16 cells of 3 pictures, with and without words in each of 4 steps, which all have guidance
        assert tokens.sum() == 3 * 16 * 2 * 4 if "_moe_gen" in layer else tokens.shape == (1,)
        assert np.all(total <= largest * tokens[:, None] * 1.0001)
        assert np.all(squares <= largest * total * 1.0001)
        assert np.all(total**2 <= squares * tokens[:, None] * 1.0001)
    for name in (name for name in sums if name.endswith(".moments")):
        squares = sums[name.replace("moments", "sum_squares")].sum(0)
        products = sums[name] + np.triu(sums[name], 1).transpose(0, 2, 1)
        assert np.allclose(np.concatenate([np.diag(block) for block in products])[: len(squares)], squares, rtol=1e-4)
        assert np.linalg.eigvalsh(products.astype(np.float64)).min() >= -1e-4 * squares.sum()
    assert f"{LAYER}.self_attn.q_proj.moments" in sums  # once for q, k and v
    assert f"{LAYER}.self_attn.v_proj.moments" not in sums


def test_threads_change_no_byte(jobs: list[str | Path], tmp_path: Path) -> None:
    for threads in ("1", "3"):
        made = calibrate(jobs, tmp_path / f"{threads}.safetensors", "--threads", threads)
        assert made.returncode == 0, made.stderr
    assert (tmp_path / "1.safetensors").read_bytes() == (tmp_path / "3.safetensors").read_bytes()


def test_what_is_interrupted_goes_on_to_the_same_bytes(jobs: list[str | Path], tmp_path: Path) -> None:
    output, partial = tmp_path / "stats.safetensors", tmp_path / "stats.safetensors.partial.safetensors"
    assert calibrate(jobs, tmp_path / "whole.safetensors").returncode == 0
    process = subprocess.Popen(command(jobs, output), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("2 of 6"):
            process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert partial.exists()
    assert not output.exists()
    again = calibrate(jobs, output)
    assert again.returncode == 1
    assert "--resume" in again.stderr
    other = calibrate([*jobs, "--seed", "1"], output, "--resume")
    assert other.returncode == 1
    assert "is of another model, other samples" in other.stderr
    last = calibrate(jobs, output, "--resume")
    assert last.returncode == 0, last.stderr
    assert "going on after" in last.stderr
    assert not partial.exists()
    assert output.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_killed_at_any_moment_its_result_is_there_whole_or_not_at_all(jobs: list[str | Path], tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    assert subprocess.run(command(jobs, whole), stderr=subprocess.DEVNULL, check=False).returncode == 0
    missing = 0
    for number, seconds in enumerate((0.005, 0.03, 0.06, 0.1, 0.2)):
        result = tmp_path / f"{number}.safetensors"
        process = subprocess.Popen(command(jobs, result), stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        process.kill()
        process.wait()
        if result.exists():
            assert result.read_bytes() == whole.read_bytes()
        else:
            missing += 1
    assert missing > 0


def test_parts_merged_are_the_whole(jobs: list[str | Path], tmp_path: Path) -> None:
    pictures, questions = jobs[:4], jobs[4:8]
    for name, words in (("whole", pictures + questions), ("pictures", pictures), ("questions", questions)):
        made = calibrate([*words, *SMALL], tmp_path / f"{name}.safetensors")
        assert made.returncode == 0, made.stderr
    parts = [tmp_path / "pictures.safetensors", tmp_path / "questions.safetensors"]
    merge: list[str | Path] = [QUANT, "merge", *parts, "-o", tmp_path / "merged.safetensors"]
    assert subprocess.run(merge, capture_output=True, check=False).returncode == 0
    whole, merged = read(tmp_path / "whole.safetensors"), read(tmp_path / "merged.safetensors")
    assert whole.keys() == merged.keys()
    for name, sums in whole.items():
        assert np.allclose(merged[name], sums, rtol=1e-4, atol=1e-3 * np.abs(sums).max()), name


def test_what_cannot_be_counted_gets_words(jobs: list[str | Path], tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "broken.json").write_text('{"0": {"interleave_array": ["c.png", "what?"]}}')
    output = tmp_path / "stats.safetensors"
    cases: tuple[tuple[list[str | Path], int, str], ...] = (
        (["--task", "t2i", "--prompts", tmp_path / "none.txt"], 1, "none.txt"),
        (["--task", "t2i", "--prompts", tmp_path / "empty.txt"], 1, "has no prompt"),
        (["--task", "i2v", "--prompts", tmp_path / "prompts.txt"], 1, "--pictures"),
        (["--task", "x2t_image", "--examples", tmp_path / "broken.json"], 1, 'entry "0"'),
        (["--task", "t2i", "--examples", tmp_path / "questions.json"], 1, "takes none"),
        (["--prompts", tmp_path / "prompts.txt"], 2, "--task before"),
        (["--task", "encode", "--prompts", tmp_path / "prompts.txt"], 2, "must be t2i"),
        (["--task", "t2i"], 2, "for it?"),
        ([*jobs, "--size", "64"], 2, "WIDTHxHEIGHT"),
    )
    for words, code, said in cases:
        made = calibrate(words, output)
        assert made.returncode == code, made.stderr
        assert said in made.stderr
        assert not output.exists()
    for name, why in (("nowhere/stats.safetensors", "nowhere"), (f"{'long' * 60}.safetensors", "at most 255")):
        made = calibrate(jobs, tmp_path / name)
        assert (made.returncode, why in made.stderr, "samples" in made.stderr) == (1, True, False), made.stderr
