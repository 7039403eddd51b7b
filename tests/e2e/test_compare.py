"""lance-quant compare: recipes side by side, and how well texts and answers are expected."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lanced_process import BUILD, DEMO_AWQ, DEMO_MODEL
from quantised import QUANT, quant, two_of_each
from qwen3 import Qwen3

STATISTICS = DEMO_MODEL.parents[1] / "tests/golden/data/quant/demo/act_stats.pt"
Numbers = dict[str, Any]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str | Path]]:
    return two_of_each(tmp_path_factory.mktemp("jobs"))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("a red circle is on the left of a blue square\nthe circle moves to the right\n" * 40)
    return path


def told(report: Path) -> Numbers:
    return dict(json.loads((report / "report.json").read_text()))


def test_a_model_expects_what_its_reference_says_about_as_well_as_that(
    jobs: dict[str, list[str | Path]], text: Path, tmp_path: Path
) -> None:
    words = ["compare", "--reference", DEMO_MODEL, *jobs["x2t_image"], "--text", text]
    quant(*words, "--model", DEMO_AWQ, "-o", tmp_path / "awq")
    quant(*words, "--model", DEMO_MODEL, "-o", tmp_path / "itself")
    (itself,), (awq,) = told(tmp_path / "itself")["tasks"], told(tmp_path / "awq")["tasks"]
    assert itself["perplexity"] == itself["reference_perplexity"] == awq["reference_perplexity"]
    assert 1 <= itself["perplexity"] < 2  # it says what it holds to be likeliest
    assert awq["perplexity"] != itself["perplexity"]
    read = [told(tmp_path / name)["text"] for name in ("itself", "awq")]
    assert read[0]["perplexity"] == read[0]["reference_perplexity"] == read[1]["reference_perplexity"]
    assert read[1]["perplexity"] != read[0]["perplexity"]
    assert read[0]["tokens"] > 512  # more than one window
    assert f"{read[1]['perplexity']:.4f}" in (tmp_path / "awq/report.md").read_text()


def test_recipes_are_made_and_compared_in_one_run(jobs: dict[str, list[str | Path]], tmp_path: Path) -> None:
    words: list[str | Path] = ["--group", "64", "--form", "awq-int4", "--stats", STATISTICS]
    said = quant(
        "compare", "--recipes", "published,best", *words, "--reference", DEMO_MODEL, *jobs["t2i"], "-o", tmp_path / "ab"
    )
    published, best = json.loads((tmp_path / "ab/report.json").read_text())
    assert (published["model"], best["model"]) == ("published", "best")
    assert best["tasks"][0]["latent_error"] != published["tasks"][0]["latent_error"] > 0
    assert (tmp_path / "ab/report.md").read_text() == said
    for name, report in (("published", published), ("best", best)):
        assert (tmp_path / "ab" / name / "sheet.png").exists()
        again = tmp_path / name
        model = tmp_path / "ab" / name / "model"
        quant("compare", "--model", model, "--reference", DEMO_MODEL, *jobs["t2i"], "-o", again)
        assert told(again)["tasks"] == report["tasks"]
    weights = [tmp_path / "ab" / name / "model/awq_state_dict.safetensors" for name in ("published", "best")]
    assert weights[0].read_bytes() != weights[1].read_bytes()


@pytest.mark.parametrize(
    ("words", "status", "why"),
    [
        (("--recipes", "published,better"), 2, "must be published, best"),
        (("--recipes", "best,best"), 2, "must be published, best"),
        (("--recipes", "best"), 2, "needs --form and --stats"),
        (("--recipes", "best", "--form", "int8", "--stats", "x"), 2, "which both recipes make"),
        (("--recipes", "best", "--form", "nvfp4", "--group", "64"), 2, "is for --form awq-int4"),
        (("--recipes", "best", "--form", "nvfp4", "--stats", "x", "--model", str(DEMO_AWQ)), 2, "and no --model"),
        (("--form", "nvfp4", "--model", str(DEMO_AWQ)), 2, "is for --recipes"),
        (("--model", str(DEMO_AWQ), "--stats", str(STATISTICS)), 1, "has no products of inputs"),
        (("--model", str(DEMO_AWQ), "--text", "/nowhere/text.txt"), 1, "/nowhere/text.txt"),
    ],
)
def test_comparisons_that_cannot_be_made_are_refused_in_words(
    words: tuple[str, ...], status: int, why: str, jobs: dict[str, list[str | Path]], tmp_path: Path
) -> None:
    command = [QUANT, "compare", "--reference", DEMO_MODEL, *jobs["t2i"], *words, "-o", tmp_path / "report"]
    said = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert (said.returncode, why in said.stderr) == (status, True), said.stderr
    assert not (tmp_path / "report/report.json").exists()


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of random weights, with more words and narrower layers."""
    folder = tmp_path_factory.mktemp("random")
    words = ["--config", "tiny", "--form", "bf16", "-o", str(folder)]
    subprocess.run([BUILD / "random-checkpoint", *words], check=True, capture_output=True)
    return folder / "Lance_3B"


def test_what_layers_lose_is_told_of_folders_whose_vae_is_elsewhere_and_of_other_shapes_refused_at_once(
    jobs: dict[str, list[str | Path]], other_model: Path, tmp_path: Path
) -> None:
    alone, stats = tmp_path / "alone", tmp_path / "stats.safetensors"
    alone.mkdir()
    for file in DEMO_MODEL.iterdir():
        if file.name not in ("Wan2.2_VAE.pth", "Qwen2.5-VL-ViT"):
            (alone / file.name).symlink_to(file)
    quant("calibrate", "--model", DEMO_MODEL, *jobs["t2i"], "-o", stats)
    words = ["compare", "--model", alone, "--vae", DEMO_MODEL / "Wan2.2_VAE.pth", *jobs["t2i"], "--stats", stats]
    quant(*words, "--reference", alone, "-o", tmp_path / "itself")
    layers = told(tmp_path / "itself")["layers"]
    assert [layer["expert"] for layer in layers] == ["und"] * 4 + ["gen"] * 4
    assert all(layer["down"] == 0 for layer in layers)
    command = [QUANT, *words, "--reference", other_model, "-o", tmp_path / "other"]
    said = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert (said.returncode, "have other shapes" in said.stderr, "samples" in said.stderr) == (1, True, False)


def test_answers_of_a_model_with_more_words_are_refused_in_words(
    jobs: dict[str, list[str | Path]], other_model: Path, tmp_path: Path
) -> None:
    command = [QUANT, "compare", "--reference", other_model, "--model", DEMO_MODEL, *jobs["x2t_image"]]
    command += ["--samples", "1", "-o", tmp_path / "report"]
    said = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert (said.returncode, "another vocabulary" in said.stderr) == (1, True), said.stderr


def test_a_text_that_is_no_text_is_told_before_a_report(jobs: dict[str, list[str | Path]], tmp_path: Path) -> None:
    (tmp_path / "bytes.txt").write_bytes(np.arange(128, 250, dtype=np.uint8).tobytes())
    command = [QUANT, "compare", "--reference", DEMO_MODEL, "--model", DEMO_AWQ, *jobs["x2t_image"]]
    command += ["--text", tmp_path / "bytes.txt", "-o", tmp_path / "report"]
    said = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert "bytes.txt" in said.stderr
    assert "UTF-8" in said.stderr


def test_a_texts_perplexity_is_what_numpy_computes(jobs: dict[str, list[str | Path]], tmp_path: Path) -> None:
    words = "a red circle is on the left of a blue square".split()
    vocabulary = json.loads((DEMO_MODEL / "vocab.json").read_text())
    ids = [vocabulary[word if i == 0 else f"Ġ{word}"] for i, word in enumerate(words)]
    (tmp_path / "text.txt").write_text(" ".join(words))
    report = tmp_path / "report"
    read: list[str | Path] = ["--text", tmp_path / "text.txt", "--samples", "1", "-o", report]
    quant("compare", "--model", DEMO_MODEL, "--reference", DEMO_MODEL, *jobs["x2t_image"], *read)
    text = told(report)["text"]
    assert text["tokens"] == len(ids) - 1
    assert text["perplexity"] == pytest.approx(Qwen3(DEMO_MODEL).perplexity(ids), rel=1e-4)
