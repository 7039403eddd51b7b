"""lance-quant's recipe "best" beside the published one, on the same statistics; and compare, which shows both."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from lanced_process import BUILD
from layer_losses import LAYERS, beside, calibrated, e4m3, losses, moments, with_outliers
from quantised import quant
from safetensors_file import bf16, numbers, read

QUANT = BUILD / "lance-quant"
MODEL = Path(__file__).resolve().parents[2] / "demo/lance-demo"
NORM = "2.post_attention_layernorm_moe_gen"
GATE, UP = "2.mlp_moe_gen.gate_proj", "2.mlp_moe_gen.up_proj"
UP_OF_DOWN, DOWN = "1.mlp_moe_gen.up_proj", "1.mlp_moe_gen.down_proj"


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    prompts = tmp_path_factory.mktemp("jobs") / "prompts.txt"
    prompts.write_text("a red circle\na large blue square on the left\na green triangle at the top\n")
    return ["--task", "t2i", "--prompts", prompts, "--size", "64x64", "--steps", "6"]


@pytest.mark.parametrize(("form", "planted"), [("awq-int4", False), ("awq-int4", True), ("nvfp4", True)])
def test_every_layer_loses_less_than_by_the_published_recipe(
    form: str, planted: bool, jobs: list[str | Path], tmp_path: Path
) -> None:
    model = with_outliers(MODEL, tmp_path / "model") if planted else MODEL
    stats = calibrated(model, jobs, tmp_path)
    for recipe in ("best", "published"):
        words = ("--model", model, "--stats", stats, "--form", form, "--recipe", recipe, "-o", tmp_path / recipe)
        quant("apply", *words)
    file = f"{form.split('-')[0]}_state_dict.safetensors"
    best, published = (losses(tmp_path / recipe, model, read(stats), file) for recipe in ("best", "published"))
    assert best.keys() == published.keys()
    assert len(best) == 56
    worse = {name: (best[name], published[name]) for name in best if best[name] >= published[name]}
    assert worse == {}
    assert np.mean([np.sqrt(best[name] / published[name]) for name in best]) <= 0.7
    assert (tmp_path / "best" / file).stat().st_size < 1.01 * (tmp_path / "published" / file).stat().st_size


@pytest.fixture(scope="module")
def whole_and_slim(jobs: list[str | Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The demo model in NVFP4, with whole scales and without, each with all that lanced needs."""
    folder = tmp_path_factory.mktemp("nvfp4")
    stats = calibrated(MODEL, jobs, folder)
    for name, slim in (("whole", []), ("slim", ["--slim"])):
        quant("apply", "--model", MODEL, "--stats", stats, "--form", "nvfp4", *slim, "-o", folder / name)
        for file in MODEL.iterdir():
            if file.name != "model.safetensors":
                (folder / name / file.name).symlink_to(file)
    return folder / "whole", folder / "slim"


def test_an_nvfp4_block_scale_is_its_e4m3_number_times_the_tensor_scale(whole_and_slim: tuple[Path, Path]) -> None:
    whole, slim = (read(folder / "nvfp4_state_dict.safetensors") for folder in whole_and_slim)
    linears = [name.removesuffix(".qweight") for name in whole if name.endswith(".qweight")]
    assert len(linears) == 56
    for name in linears:
        scale = numbers(whole[f"{name}.tensor_scale"])
        scales = e4m3(numbers(whole[f"{name}.scales_fp8"])) * scale
        assert np.array_equal(scales, numbers(whole[f"{name}.scales_bf16"])), name
        if "q_proj" in name:
            for other in ("k_proj", "v_proj"):
                assert numbers(whole[f"{name.replace('q_proj', other)}.tensor_scale"]) == scale
    assert {name: entry for name, entry in whole.items() if "scales_bf16" not in name} == slim


def test_with_and_without_whole_scales_a_model_makes_the_same(
    whole_and_slim: tuple[Path, Path], jobs: list[str | Path], tmp_path: Path
) -> None:
    whole, slim = whole_and_slim
    report = tmp_path / "report"
    quant("compare", "--model", slim, "--reference", whole, *jobs, "-o", report)
    (task,) = json.loads((report / "report.json").read_text())["tasks"]
    assert task["latent_error"] == 0
    assert (task["psnr_db"], task["ssim"], task["fine_energy"]) == (99, 1, 1)


def test_compare_tells_how_far_a_model_is_from_its_reference(jobs: list[str | Path], tmp_path: Path) -> None:
    questions = tmp_path / "questions.json"
    picture = Path(__file__).resolve().parents[2] / "workflows/t2v.jpg"
    elements = {"element_dtype_array": ["image", "text"], "istarget_in_interleave": [0, 0]}
    questions.write_text(json.dumps({"0": elements | {"interleave_array": [str(picture), "what shape is it?"]}}))
    words = [*jobs, "--task", "x2t_image", "--examples", questions, "--resolution", "64x64/56x56"]
    report, stats = tmp_path / "report", calibrated(MODEL, jobs, tmp_path)
    awq = MODEL.parent / "lance-demo-awq"
    said = quant("compare", "--model", awq, "--reference", MODEL, "--stats", stats, *words, "-o", report)
    pictures, answers = json.loads((report / "report.json").read_text())["tasks"]
    assert (pictures["task"], pictures["samples"]) == ("t2i", 3)
    assert 0.01 < pictures["latent_error"] < 1
    assert 10 < pictures["psnr_db"] < 60
    assert 0 < pictures["ssim"] < 1
    assert 0 <= answers["token_agreement"] <= 1
    assert (report / "report.md").read_text() == said
    assert "| t2i | 3 |" in said
    assert (report / "sheet.png").read_bytes()[1:4] == b"PNG"
    told = {
        (entry["expert"], entry["layer"]): entry for entry in json.loads((report / "report.json").read_text())["layers"]
    }
    assert len(told) == 8
    for name, lost in losses(awq, MODEL, read(stats), "awq_state_dict.safetensors").items():
        entry = told["gen" if "_moe_gen" in name else "und", int(name.split(".")[3])]
        assert entry[name.split(".")[-1].split("_")[0]] == pytest.approx(np.sqrt(lost), rel=1e-3), name


def test_compare_finds_the_exponents_that_columns_were_scaled_by(jobs: list[str | Path], tmp_path: Path) -> None:
    stats, tensors = calibrated(MODEL, jobs, tmp_path), read(MODEL / "model.safetensors")
    weight = {name: numbers(tensors[f"{LAYERS}{name}.weight"]) for name in (NORM, GATE, UP, DOWN, UP_OF_DOWN)}
    products = {name: moments(read(stats), f"{LAYERS}{name}") for name in (GATE, DOWN)}
    inputs = {name: np.sqrt(np.diagonal(blocks, axis1=1, axis2=2).ravel()) for name, blocks in products.items()}
    scale = inputs[GATE] ** 0.6 / ((np.abs(weight[GATE]).max(0) + np.abs(weight[UP]).max(0)) / 2) ** 0.4
    behind = inputs[DOWN] ** 0.3
    scaled = {NORM: weight[NORM] / scale, GATE: weight[GATE] * scale, UP: weight[UP] * scale}
    scaled |= {UP_OF_DOWN: weight[UP_OF_DOWN] / behind[:, None], DOWN: weight[DOWN] * behind}
    tensors |= {f"{LAYERS}{name}.weight": bf16(values) for name, values in scaled.items()}
    (tmp_path / "model").mkdir()
    model, report = beside(MODEL, tensors, tmp_path / "model"), tmp_path / "report"
    words = ("--stats", stats, *jobs, "--samples", "1")
    said = quant("compare", "--model", model, "--reference", MODEL, *words, "-o", report)
    for entry in json.loads((report / "report.json").read_text())["layers"]:
        for place, exponents in entry["scales"].items():
            expected = {("gen", 2, "gate_up"): (0.6, 0.4), ("gen", 1, "down"): (0.3, 0)}
            alpha, beta = expected.get((entry["expert"], entry["layer"], place), (0, 0))
            assert exponents["alpha"] == pytest.approx(alpha, abs=0.01), (entry["expert"], entry["layer"], place)
            assert exponents["beta"] == pytest.approx(beta, abs=0.01), (entry["expert"], entry["layer"], place)
    assert "| gen | gate, up | 3 | 0 | 0 | 0 | 0 | 0 | 1 | 0 | 0 | 0 | 0 |" in said
    assert "| gen | down | 3 | 0 | 0 | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |" in said


@pytest.mark.parametrize(
    ("model", "output", "words"),
    [
        ("nothing", "report", "model.safetensors"),
        (MODEL, "nowhere/report", "No such file"),
        (MODEL, "report", "sample 1"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused_before_it_runs_and_leaves_no_folder(
    model: str | Path, output: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "prompts.txt").write_text("a red circle\n")
    size = "63x64" if words == "sample 1" else "64x64"
    told = ["--task", "t2i", "--prompts", tmp_path / "prompts.txt", "--size", size, "--steps", "2"]
    command = [QUANT, "compare", "--model", tmp_path / model, "--reference", MODEL, *told, "-o", tmp_path / output]
    said = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert (said.returncode, words in said.stderr) == (1, True), said.stderr
    assert "of 1 samples" not in said.stderr
    assert not (tmp_path / output).exists()
