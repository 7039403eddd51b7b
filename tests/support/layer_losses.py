"""What the outputs of each layer of a quantised model lose, worked out from its file and from statistics of inputs: of
the demo model, and of models with outliers planted into them.

tests/e2e/test_best_recipe.py asserts on it; as a program it prints what each ingredient of the recipe "best" is worth,
on two small models with outliers, the demo model and one of random weights:

    PYTHONPATH=protocol/python:tests/support .venv/bin/python -m layer_losses
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from lanced_process import BUILD, DEMO_MODEL
from quantised import quant
from safetensors_file import Entry, bf16, numbers, read, write
from safetensors_file import Numbers as Matrix

LAYERS = "language_model.model.layers."
LEVELS = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])
FORMS = {"awq, 128": ["awq-int4"], "awq, 64": ["awq-int4", "--group", "64"], "nvfp4": ["nvfp4"]}
INGREDIENTS = ("scaling", "down-through-up", "clipping", "four-or-six", "feedback", "refinement")


def e4m3(codes: Matrix) -> Matrix:
    exponent, mantissa = codes // 8, codes % 8
    return np.where(exponent > 0, (1 + mantissa / 8) * 2.0 ** (exponent - 7), mantissa / 8 * 2.0**-6)


def weights(tensors: dict[str, Entry], name: str) -> Matrix:
    """A matrix as what is in the file is worth."""
    packed = numbers(tensors[f"{name}.qweight"]).astype(np.uint8)
    codes = np.stack([packed & 15, packed >> 4], -1).reshape(len(packed), -1).astype(np.int64)
    if f"{name}.zeros" in tensors:
        scales, zeros = numbers(tensors[f"{name}.scales"]), numbers(tensors[f"{name}.zeros"])
        group = codes.shape[1] // scales.shape[1]
        return (codes - zeros.repeat(group, 1)) * scales.repeat(group, 1)
    return np.asarray(LEVELS[codes] * numbers(tensors[f"{name}.scales_bf16"]).repeat(16, 1))


def moments(statistics: dict[str, Entry], name: str) -> Matrix:
    upper = numbers(statistics[f"{name}.moments"])
    return np.asarray(upper + np.triu(upper, 1).transpose(0, 2, 1))


def share_lost(change: Matrix, whole: Matrix, products: Matrix) -> float:
    """E|change x|^2 / E|whole x|^2, as far as the products of inputs are known."""

    def energy(matrix: Matrix) -> float:
        blocks = matrix.reshape(len(matrix), -1, 128).transpose(1, 0, 2)
        return float(np.einsum("bri,bij,brj->", blocks, products, blocks))

    return energy(change) / energy(whole)


def losses(folder: Path, model: Path, statistics: dict[str, Entry], file: str) -> dict[str, float]:
    """Of every layer. What a norm or the rows of up were divided by is taken out of the columns behind."""
    made, source = read(folder / file), read(model / "model.safetensors")
    result = {}
    for name in (entry.removesuffix(".qweight") for entry in made if entry.endswith(".qweight")):
        before, after = numbers(source[f"{name}.weight"]), weights(made, name)
        layer, suffix = name.split(".")[3], "_moe_gen" if "_moe_gen" in name else ""
        kind = name.split(".")[-1].removesuffix("_moe_gen")
        products = f"{LAYERS}{layer}.mlp{suffix}.gate_proj" if kind == "up_proj" else name
        if kind in ("k_proj", "v_proj"):
            products = name.replace(kind, "q_proj")
        if kind == "up_proj":
            after *= ((before * before).sum(1) / (before * after).sum(1))[:, None]
        if kind == "down_proj":
            up = name.replace("down", "up")
            wanted, there = numbers(source[f"{up}.weight"]), weights(made, up)
            norm = f"{LAYERS}{layer}.post_attention_layernorm{suffix}.weight"
            there *= (numbers(made[norm]) / numbers(source[norm]))[None, :]
            after *= (wanted * there).sum(1) / (wanted * wanted).sum(1)
        elif kind != "o_proj":
            norm = f"{LAYERS}{layer}.{'post_attention' if 'mlp' in name else 'input'}_layernorm{suffix}.weight"
            after *= (numbers(made[norm]) / numbers(source[norm]))[None, :]
            if kind == "up_proj":
                after *= ((before * before).sum(1) / (before * after).sum(1))[:, None]
        result[name] = share_lost(after - before, before, moments(statistics, products))
    return result


def with_outliers(model: Path, to: Path) -> Path:
    """The same model, with channels that are 24 times as large behind each norm, and columns as much smaller."""
    to.mkdir()
    tensors = read(model / "model.safetensors")
    for name, (kind, shape, data) in tensors.items():
        values = numbers((kind, shape, data)) if kind == "BF16" else None
        if values is None or not name.startswith(LAYERS):
            continue
        if "layernorm" in name:
            values[[3, 77]] *= 24
        elif any(part in name for part in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")) and len(shape) == 2:
            values[:, [3, 77]] /= 24
        tensors[name] = bf16(values)
    return beside(model, tensors, to)


def beside(model: Path, tensors: dict[str, Entry], to: Path) -> Path:
    """Other weights with the rest of a model."""
    for file in model.iterdir():
        if file.name != "model.safetensors":
            (to / file.name).symlink_to(file)
    write(to / "model.safetensors", tensors)
    return to


def calibrated(model: Path, jobs: list[str | Path], folder: Path) -> Path:
    quant("calibrate", "--model", model, *jobs, "-o", folder / "stats.safetensors")
    return folder / "stats.safetensors"


def mean_loss(model: Path, statistics: Path, words: list[str], folder: Path) -> float:
    """The mean over layers of how far outputs are off, as a part of what they are."""
    quant("apply", "--model", model, "--stats", statistics, "--form", *words, "-o", folder)
    file = f"{words[0].split('-')[0]}_state_dict.safetensors"
    return float(np.mean(np.sqrt(list(losses(folder, model, read(statistics), file).values()))))


def ablation(form: str) -> list[tuple[str, list[str]]]:
    """Names of recipes, and the words that make them."""
    known = [name for name in INGREDIENTS if name != "four-or-six" or form == "nvfp4"]
    without = [(f"best without {name}", ["--without", name]) for name in known]
    nothing = ("none of them", ["--without", ",".join(INGREDIENTS)])
    return [("published", ["--recipe", "published"]), ("best", []), *without, nothing]


def main() -> None:
    parser = argparse.ArgumentParser(description="What each ingredient is worth on models with outliers.")
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), default=list(FORMS))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tiny: list[str | Path] = [BUILD / "random-checkpoint", "--config", "tiny", "--form", "bf16", "-o", folder]
        subprocess.run(tiny, check=True, stdout=subprocess.DEVNULL)
        (folder / "prompts.txt").write_text("a red circle\na large blue square on the left\n")
        jobs: list[str | Path] = ["--task", "t2i", "--prompts", folder / "prompts.txt"]
        jobs += ["--size", "64x64", "--steps", "6"]
        for source in (DEMO_MODEL, folder / "Lance_3B"):
            model = with_outliers(source, folder / f"{source.name}-outliers")
            statistics = calibrated(model, jobs, model)
            for form in args.forms:
                for number, (name, words) in enumerate(ablation(form)):
                    to = folder / f"{model.name}-{form}-{number}"
                    lost = mean_loss(model, statistics, [*FORMS[form], *words], to)
                    print(f"| {model.name} | {form} | {name} | {lost:.4f} |", flush=True)


if __name__ == "__main__":
    main()
