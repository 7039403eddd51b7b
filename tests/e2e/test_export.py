"""lance-quant export: folders for other programs, read here by lanced and compared with the release."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lanced_process import DEMO_MODEL as MODEL
from quantised import QUANT, quant, two_of_each
from safetensors_file import Entry, read, write

LAYERS = "language_model.model.layers."
Matrix = np.ndarray[Any, np.dtype[np.float32]]


def ran(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in (QUANT, *words)], capture_output=True, text=True, check=False)


def export(form: str, to: Path, *words: str, vae: bool = True) -> Path:
    """As a folder that lanced opens: with the ViT, which an export for MLX has, and the VAE where it can draw."""
    quant("export", "--model", MODEL, "--form", form, *words, "-o", to)
    for name in ("Qwen2.5-VL-ViT", "Wan2.2_VAE.pth")[form == "mlx" : 2 if vae else 1]:
        (to / name).symlink_to(MODEL / name)
    return to


def wide(entry: Entry) -> Matrix:
    kind, shape, data = entry
    assert kind == "BF16"
    return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)


def affine(tensors: dict[str, Entry], stem: str, bits: int) -> tuple[Matrix, Matrix]:
    """A matrix as MLX reads it, and the step of each weight."""
    words = np.frombuffer(tensors[f"{stem}.weight"][2], np.uint32).reshape(tensors[f"{stem}.weight"][1])
    codes = np.stack([words >> shift & (1 << bits) - 1 for shift in range(0, 32, bits)], -1).reshape(len(words), -1)
    scales, biases = wide(tensors[f"{stem}.scales"]), wide(tensors[f"{stem}.biases"])
    group = codes.shape[1] // scales.shape[1]
    step = scales.repeat(group, 1)
    return (codes * step + biases.repeat(group, 1)).astype(np.float32), np.abs(step)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str | Path]]:
    return two_of_each(tmp_path_factory.mktemp("jobs"))


def compared(model: Path, words: list[str | Path], report: Path, reference: Path = MODEL) -> dict[str, Any]:
    quant("compare", "--model", model, "--reference", reference, *words, "-o", report)
    (told,) = json.loads((report / "report.json").read_text())["tasks"]
    return dict(told)


@pytest.mark.parametrize(("group", "bits"), [(64, 4), (128, 4), (64, 8)])
def test_every_weight_of_an_mlx_export_is_within_half_a_step_of_the_releases(
    group: int, bits: int, tmp_path: Path
) -> None:
    made = read(export("mlx", tmp_path / "mlx", "--group", str(group), "--bits", str(bits)) / "model.safetensors")
    source = read(MODEL / "model.safetensors")
    config = json.loads((tmp_path / "mlx/config.json").read_text())
    assert config["quantization"] == {"group_size": group, "bits": bits, "mode": "affine"}
    assert {"embed_tokens.scales", "lm_head.biases", "layers.3.mlp_moe_gen.down_proj.weight"} <= made.keys()
    assert {"vae_in_proj.vae2llm.weight", "time_embedder.proj_out.bias", "norm_moe_gen.weight"} <= made.keys()
    stems = [name.removesuffix(".scales") for name in made if name.endswith(".scales")]
    assert len(stems) == 58
    for stem in stems:
        official = f"language_model.{stem}" if stem == "lm_head" else f"language_model.model.{stem}"
        values, step = affine(made, stem, bits)
        change = np.abs(values - wide(source[f"{official}.weight"]))
        assert (change <= 0.51 * step + 0.005 * np.abs(values)).mean() > 0.99, stem
        assert (change <= 1.1 * step + 0.005 * np.abs(values).max()).all(), stem  # numbers of a group are bf16


def test_an_mlx_export_opens_and_in_8_bits_is_near_the_release(
    jobs: dict[str, list[str | Path]], tmp_path: Path
) -> None:
    model = export("mlx", tmp_path / "mlx", "--bits", "8")
    assert ": mlx-int8-g64\n" in quant("check", model)
    assert compared(model, jobs["t2i"], tmp_path / "drawn")["latent_error"] < 0.03
    assert compared(model, jobs["x2t_image"], tmp_path / "answered")["token_agreement"] == 1


@pytest.mark.parametrize(("bits", "size"), [("4", "4.534 bits each"), ("8", "8.5")])
def test_check_looks_at_every_scale_and_offset_of_an_mlx_export(bits: str, size: str, tmp_path: Path) -> None:
    model = export("mlx", tmp_path / "mlx", "--bits", bits)
    good = quant("check", model)
    assert "quantised layers: 58" in good and f"788736 weights,  {size}" in good
    for part in ("scales", "biases"):
        tensors = read(model / "model.safetensors")
        name = f"layers.1.mlp.up_proj.{part}"
        kind, shape, data = tensors[name]
        tensors[name] = (kind, shape, data[:-2] + b"\xc0\x7f")
        write(model / "model.safetensors", tensors)
        bad = ran("check", model)
        assert (bad.returncode, f"{name}: 1 of 768 are no numbers" in bad.stdout) == (1, True), bad.stdout


def test_an_mlx_export_has_the_vit_with_its_patches_in_mlx_order(tmp_path: Path) -> None:
    made = read(export("mlx", tmp_path / "mlx") / "vit.safetensors")
    source = read(MODEL / "Qwen2.5-VL-ViT/vit.safetensors")
    assert made.keys() == source.keys()
    patches = "patch_embed.proj.weight"
    assert {name: made[name] for name in made if name != patches} == {
        name: source[name] for name in source if name != patches
    }
    assert made[patches][1] == [128, 2, 14, 14, 3]
    assert np.array_equal(wide(made[patches]), wide(source[patches]).transpose(0, 2, 3, 4, 1))
    alone = tmp_path / "release/Lance_3B"
    alone.mkdir(parents=True)
    for file in MODEL.iterdir():
        if file.name != "Qwen2.5-VL-ViT":
            (alone / file.name).symlink_to(file)
    said = ran("export", "--model", alone, "--form", "mlx", "-o", tmp_path / "without")
    assert said.returncode == 0
    assert "want vit.safetensors" in said.stderr
    assert not (tmp_path / "without/vit.safetensors").exists()


def test_an_export_for_mlx_lm_loses_the_head_norms_only_when_told_to(
    jobs: dict[str, list[str | Path]], tmp_path: Path
) -> None:
    refused = ran("export", "--model", MODEL, "--form", "mlx-und", "-o", tmp_path / "und")
    assert refused.returncode == 1
    assert "--drop-qk-norm makes the folder all the same" in refused.stderr
    assert list(tmp_path.iterdir()) == []
    model = export("mlx-und", tmp_path / "und", "--drop-qk-norm", "--bits", "8", vae=False)
    names = read(model / "model.safetensors").keys()
    assert {"model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.bias", "lm_head.scales"} <= names
    assert not [name for name in names if "q_norm" in name or "_moe_gen" in name or "vae2llm" in name]
    assert json.loads((model / "config.json").read_text())["architectures"] == ["Qwen2ForCausalLM"]
    said = quant("check", model)
    assert ": mlx-int8-g64\n" in said
    assert "the weights have no q_norm and k_norm" in said
    assert "tasks: x2t_image x2t_video\n" in said
    dense = export("hf-und", tmp_path / "dense", "--drop-qk-norm", vae=False)
    (dense / "llm_config.json").symlink_to(MODEL / "llm_config.json")  # transformers' Qwen2 has no rotary axes
    assert compared(model, jobs["x2t_image"], tmp_path / "answered", dense)["token_agreement"] == 1


def test_an_export_for_transformers_is_qwen3_with_biases(jobs: dict[str, list[str | Path]], tmp_path: Path) -> None:
    model = export("hf-und", tmp_path / "und", vae=False)
    config = json.loads((model / "config.json").read_text())
    assert (config["architectures"], config["attention_bias"], config["head_dim"]) == (["Qwen3ForCausalLM"], True, 32)
    tensors = read(model / "model.safetensors")
    source = read(MODEL / "model.safetensors")
    for layer in range(4):
        assert not any(tensors[f"model.layers.{layer}.self_attn.o_proj.bias"][2])
        norm = "self_attn.q_norm.weight"
        assert tensors[f"model.layers.{layer}.{norm}"] == source[f"{LAYERS}{layer}.{norm}"]
    (model / "llm_config.json").symlink_to(MODEL / "llm_config.json")
    assert compared(model, jobs["x2t_image"], tmp_path / "answered")["token_agreement"] == 1


TRANSFORMERS_PYTHON = os.environ.get("TRANSFORMERS_PYTHON", sys.executable)
TEN_TEXTS = (
    "a red circle on the left on a blue background",
    "a small green triangle moves from left to right",
    "what colour is the square?",
    "turn the circle into a square",
    "the square moves right",
    "change the background to yellow",
    "Look at the image carefully and answer the question.",
    "Describe the video.",
    "a large purple square at the bottom, and nothing else at all; 12 of 345",
    "<|im_start|>user\nwhat shape is it?<|im_end|>\n<|im_start|>assistant\nA circle.<|im_end|>",
)


def has_transformers() -> bool:
    command = [TRANSFORMERS_PYTHON, "-c", "import torch, transformers"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def expected_by_the_engine(model: Path, words: list[str | Path], folder: Path) -> dict[Path, float]:
    """The ten texts, as files, and the perplexity of each."""
    folder.mkdir(exist_ok=True)
    told = {}
    for number, text in enumerate(TEN_TEXTS):
        file, report = folder / f"{number}.txt", folder / f"report-{number}"
        file.write_text(text)
        words_of_text = [*words, "--samples", "1", "--text", file]
        quant("compare", "--model", model, "--reference", MODEL, *words_of_text, "-o", report)
        told[file] = json.loads((report / "report.json").read_text())["text"]["perplexity"]
    return told


def expected_by_transformers(folder: Path, texts: list[Path], *words: str | Path) -> list[float]:
    script = Path(__file__).resolve().parents[1] / "support/read_with_transformers.py"
    command = [TRANSFORMERS_PYTHON, script, folder, *texts, *words]
    said = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    return list(json.loads(said.stdout))


@pytest.mark.deep
def test_transformers_expects_ten_texts_as_the_engine_does(jobs: dict[str, list[str | Path]], tmp_path: Path) -> None:
    if not has_transformers():
        pytest.skip("no torch and transformers: TRANSFORMERS_PYTHON names an interpreter that has them")
    model = export("hf-und", tmp_path / "und", vae=False)
    ours = expected_by_the_engine(MODEL, jobs["x2t_image"], tmp_path)
    assert list(ours.values()) == pytest.approx(expected_by_transformers(model, list(ours)), rel=1e-4)


@pytest.mark.deep
@pytest.mark.parametrize("form", ["awq-int4", "nvfp4"])
def test_the_published_toolkits_runtime_expects_ten_texts_as_the_engine_does(
    form: str, jobs: dict[str, list[str | Path]], tmp_path: Path
) -> None:
    if not has_transformers() or "LANCE_QUANT" not in os.environ:
        pytest.skip("LANCE_QUANT names no checkout of lance-quant, or TRANSFORMERS_PYTHON no torch and transformers")
    runtime = Path(os.environ["LANCE_QUANT"]) / "scripts/run_quant_eval.py"
    stats, model = tmp_path / "stats.safetensors", tmp_path / "made"
    quant("calibrate", "--model", MODEL, *jobs["x2t_image"], "-o", stats)
    quant("apply", "--model", MODEL, "--stats", stats, "--form", form, "-o", model)
    for file in MODEL.iterdir():
        if file.name != "model.safetensors":
            (model / file.name).symlink_to(file)
    ours = expected_by_the_engine(model, jobs["x2t_image"], tmp_path)
    unquantised = expected_by_the_engine(MODEL, jobs["x2t_image"], tmp_path / "unquantised")
    und = export("hf-und", tmp_path / "und", vae=False)
    theirs = expected_by_transformers(und, list(ours), "--quantised", model, "--runtime", runtime)
    assert list(ours.values()) == pytest.approx(theirs, rel=1e-4)
    assert list(unquantised.values()) != pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize(
    ("words", "status", "why"),
    [
        (("--form", "gguf"), 2, "must be mlx, mlx-und or hf-und"),
        (("--form", "mlx", "--drop-qk-norm"), 2, "is for mlx-und and hf-und"),
        (("--form", "mlx", "--group", "96"), 2, "must be 32, 64 or 128"),
        (("--form", "hf-und", "--bits", "8"), 2, "are for mlx and mlx-und"),
        (("--form", "mlx", "--model", str(MODEL.parent / "lance-demo-awq")), 1, "is quantised already"),
    ],
)
def test_an_export_that_cannot_be_made_is_refused_in_words(
    words: tuple[str, ...], status: int, why: str, tmp_path: Path
) -> None:
    said = ran("export", "--model", MODEL, *words, "-o", tmp_path / "made")
    assert (said.returncode, why in said.stderr) == (status, True), said.stderr
    assert list(tmp_path.iterdir()) == []


def nvfp4_of_mlx(source: Path, model: Path, twin: Path) -> None:
    """An export in bf16 as mlx-lm quantises it in the mode nvfp4; and what it stands for, in float32."""
    exponents, mantissas = np.divmod(np.arange(127), 8)
    scales = np.where(exponents > 0, (1 + mantissas / 8) * 2.0 ** (exponents - 7), mantissas / 8 * 2.0**-6)
    levels = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    made: dict[str, Entry] = {}
    stands_for: dict[str, Entry] = {}
    for name, entry in read(source / "model.safetensors").items():
        if len(entry[1]) != 2:
            made[name] = stands_for[name] = entry
            continue
        groups = wide(entry).reshape(entry[1][0], -1, 16).astype(np.float64)
        wanted = np.abs(groups).max(-1) / 6
        chosen = np.abs(wanted[..., None] - scales).argmin(-1)
        sizes = np.abs(groups) / np.maximum(scales[chosen], 1e-30)[..., None]
        codes = np.abs(sizes[..., None] - levels).argmin(-1) + 8 * (groups < 0)
        whole = np.where(codes > 7, -levels[codes % 8], levels[codes % 8]) * scales[chosen][..., None]
        packed = codes.reshape(entry[1][0], -1, 8).astype(np.uint32) << np.arange(0, 32, 4, dtype=np.uint32)
        words, stem = packed.sum(-1, dtype=np.uint32), name.removesuffix(".weight")
        made[name] = ("U32", list(words.shape), words.tobytes())
        made[f"{stem}.scales"] = ("U8", list(chosen.shape), chosen.astype(np.uint8).tobytes())
        stands_for[name] = ("F32", entry[1], whole.astype(np.float32).tobytes())
    for folder, tensors in ((model, made), (twin, stands_for)):
        folder.mkdir()
        write(folder / "model.safetensors", tensors)
        for file in source.iterdir():
            if file.name not in ("model.safetensors", "config.json"):
                (folder / file.name).symlink_to(file.resolve())
    config = json.loads((MODEL / "llm_config.json").read_text())
    quantization = {"group_size": 16, "bits": 4, "mode": "nvfp4"}
    (model / "config.json").write_text(json.dumps(config | {"quantization": quantization}))
    (twin / "llm_config.json").symlink_to(MODEL / "llm_config.json")


def test_mlxs_nvfp4_computes_as_the_weights_it_stands_for(jobs: dict[str, list[str | Path]], tmp_path: Path) -> None:
    source = export("hf-und", tmp_path / "source", "--drop-qk-norm", vae=False)
    model, twin = tmp_path / "model", tmp_path / "twin"
    nvfp4_of_mlx(source, model, twin)
    assert ": mlx-nvfp4\n" in quant("check", model)
    assert compared(model, jobs["x2t_image"], tmp_path / "report", twin)["token_agreement"] == 1
