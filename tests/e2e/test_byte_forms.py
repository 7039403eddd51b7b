"""Forms whose codes are bytes: lance-quant's own int8, and the toolkit's 5-bit AWQ, made here as its script does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lanced_process import DEMO_MODEL as MODEL
from layer_losses import LAYERS, weights
from quantised import QUANT, quant, two_of_each
from safetensors_file import Entry, read, write

Matrix = np.ndarray[Any, np.dtype[np.float32]]
TOOL = Path(__file__).resolve().parents[2] / "tools/layer_sensitivities.py"
EARLY, OTHER = f"{LAYERS}0.mlp_moe_gen.up_proj", f"{LAYERS}1.self_attn.v_proj"


def bf16(values: Matrix) -> np.ndarray[Any, np.dtype[np.uint16]]:
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def wide(bits: bytes) -> Matrix:
    return (np.frombuffer(bits, np.uint16).astype(np.uint32) << 16).view(np.float32)


def beside(folder: Path, leave: str) -> None:
    """All other files of the demo model."""
    for file in MODEL.iterdir():
        if file.name != leave:
            (folder / file.name).symlink_to(file)


def five_bit(model: Path, group: int, folder: Path, twin: Path) -> None:
    """As awq_apply_5bit.py of the published toolkit rounds and writes without statistics; and what it stands for."""
    made: dict[str, Entry] = {}
    stands_for: dict[str, Entry] = {}
    entries = {}
    for name, (kind, shape, data) in read(model / "model.safetensors").items():
        if not re.search(r"^language_model.*_proj(_moe_gen)?\.weight$", name):
            made[name] = stands_for[name] = (kind, shape, data)
            continue
        of_groups = wide(data).reshape(shape[0], -1, group)
        low, high = of_groups.min(-1), of_groups.max(-1)
        scales = np.maximum((high - low) / np.float32(31), np.float32(1e-8))
        zeros = np.clip(np.rint(-low / scales), 0, 31)
        codes = np.clip(np.rint(of_groups / scales[..., None] + zeros[..., None]), 0, 31).astype(np.uint8)
        linear, groups = name.removesuffix(".weight"), list(scales.shape)
        made[f"{linear}.qweight"] = ("U8", shape, codes.tobytes())
        made[f"{linear}.scales"] = ("BF16", groups, bf16(scales).tobytes())
        made[f"{linear}.zeros"] = ("U8", groups, zeros.astype(np.uint8).tobytes())
        whole = (codes.astype(np.float32) - zeros[..., None].astype(np.float32)) * wide(bf16(scales).tobytes()).reshape(
            *groups, 1
        )
        stands_for[name] = ("F32", shape, whole.astype(np.float32).tobytes())
        entries[name] = {"shape": shape, "n_bit": 5, "group_size": group, "scheme": "asym_int5_grouped_minmax"}
    write(folder / "awq_state_dict.safetensors", made)
    meta = {"n_bit": 5, "group_size": group, "scheme": "asym_int5_grouped_awq_uint8_storage", "per_weight": entries}
    (folder / "awq_meta.json").write_text(json.dumps(meta))
    write(twin / "model.safetensors", stands_for)
    for each in (folder, twin):
        beside(each, "model.safetensors")


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    each = two_of_each(tmp_path_factory.mktemp("jobs"))
    return [*each["t2i"], *each["x2t_image"]]


def compared(model: Path, reference: Path, jobs: list[str | Path], report: Path) -> tuple[dict[str, Any], ...]:
    quant("compare", "--model", model, "--reference", reference, *jobs, "-o", report)
    return tuple(json.loads((report / "report.json").read_text())["tasks"])


@pytest.mark.parametrize("group", [64, 128])
def test_five_bit_weights_compute_as_those_they_stand_for(group: int, jobs: list[str | Path], tmp_path: Path) -> None:
    model, twin = tmp_path / "model", tmp_path / "twin"
    model.mkdir()
    twin.mkdir()
    five_bit(MODEL, group, model, twin)
    checked = quant("check", model)
    assert f": awq-int5-g{group}\n" in checked and "quantised layers: 56" in checked
    bits = (786432 * (8 + 24 / group) + 2304 * 16) / 788736  # of the linear layers; of norms and biases
    assert f"understanding              788736 weights, {bits:6.3f} bits each" in checked
    drawn, answered = compared(model, twin, jobs, tmp_path / "report")
    assert drawn["latent_error"] < 1e-4
    assert answered["token_agreement"] == 1


@pytest.fixture(scope="module")
def int8(jobs: list[str | Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    stats = folder / "stats.safetensors"
    quant("calibrate", "--model", MODEL, *jobs, "-o", stats)
    quant("apply", "--model", MODEL, "--stats", stats, "--form", "int8", "-o", folder / "model")
    beside(folder / "model", "model.safetensors")
    return folder / "model"


def test_int8_is_near_bf16(int8: Path, jobs: list[str | Path], tmp_path: Path) -> None:
    drawn, answered = compared(int8, MODEL, jobs, tmp_path / "report")
    assert drawn["latent_error"] < 0.03
    assert answered["token_agreement"] == 1


def test_check_counts_an_int8_folder_and_names_what_does_not_fit(int8: Path, tmp_path: Path) -> None:
    said = quant("check", int8)
    assert ": int8-g128\n" in said
    assert "quantised layers: 56" in said
    assert re.search(r"understanding +\d+ weights, +8\.1\d\d bits", said)
    (tmp_path / "model").mkdir()
    tensors = read(int8 / "int8_state_dict.safetensors")
    name = next(name for name in tensors if name.endswith(".scales"))
    kind, shape, data = tensors[name]
    tensors[name] = (kind, shape, b"\x00\xff" + data[2:])
    write(tmp_path / "model/int8_state_dict.safetensors", tensors)
    for file in int8.iterdir():
        if file.name != "int8_state_dict.safetensors":
            (tmp_path / "model" / file.name).symlink_to(file.resolve())
    command = [QUANT, "check", tmp_path / "model"]
    wrong = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert f"{name.removesuffix('.scales')}: 1 of" in wrong.stdout


def test_a_mixed_folder_keeps_its_budget_and_comes_nearer_the_more_bits_it_has(
    jobs: list[str | Path], tmp_path: Path
) -> None:
    stats = tmp_path / "stats.safetensors"
    quant("calibrate", "--model", MODEL, *jobs, "-o", stats)
    errors = {}
    for budget in (4.5, 6.5):
        model = tmp_path / str(budget)
        quant("apply", "--model", MODEL, "--stats", stats, "--form", "mixed", "--budget", str(budget), "-o", model)
        beside(model, "model.safetensors")
        said = quant("check", model)
        assert ": mixed\n" in said
        parts = re.findall(r"(?:understanding|generation) +(\d+) weights, +([0-9.]+) bits", said)
        assert len(parts) == 2  # the linear layers; the rest is as it was
        bits = sum(int(weights) * float(each) for weights, each in parts) / sum(int(weights) for weights, _ in parts)
        assert budget - 0.5 < bits <= budget + 0.05
        errors[budget] = compared(model, MODEL, jobs, tmp_path / f"report-{budget}")[0]["latent_error"]
    assert errors[6.5] < 0.8 * errors[4.5]


def test_a_mix_gives_its_bits_where_results_are_said_to_suffer(jobs: list[str | Path], tmp_path: Path) -> None:
    stats, file = tmp_path / "stats.safetensors", tmp_path / "file.json"
    quant("calibrate", "--model", MODEL, *jobs[: jobs.index("x2t_image") - 1], "--steps", "2", "-o", stats)
    layers = [name.removesuffix(".weight") for name in read(MODEL / "model.safetensors") if "_proj" in name]
    layers = sorted(name for name in layers if not name.endswith(".bias"))
    said = {layer: 0.02 if "down_proj" in layer else 1e-5 for layer in layers}
    words = ("--model", MODEL, "--stats", stats, "--form", "mixed", "--sensitivities", file)
    file.write_text(json.dumps(said))
    quant("apply", *words, "-o", tmp_path / "made")
    made = read(tmp_path / "made/mixed_state_dict.safetensors")
    larger = {layer for layer in layers if made[f"{layer}.qweight"][0] == "I8"}
    assert larger
    assert all("down_proj" in layer for layer in larger)
    first = f"{LAYERS}0.self_attn.q_proj"
    for text, why in (
        (json.dumps(said | {first: -1}), f"no number from 0 on for {first}"),
        (json.dumps({layer: 1 for layer in layers if layer != first}), f"no number from 0 on for {first}"),
        ("{", "file.json"),
    ):
        file.write_text(text)
        command = [str(word) for word in (QUANT, "apply", *words, "-o", tmp_path / "wrong")]
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (refused.returncode, why in refused.stderr) == (1, True), refused.stderr
    awq = ["--form", "awq-int4", "--sensitivities", file, "-o", tmp_path / "wrong"]
    command = [str(word) for word in (QUANT, "apply", "--model", MODEL, "--stats", stats, *awq)]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (refused.returncode, "--sensitivities: is for mixed" in refused.stderr) == (2, True)


def test_the_sensitivity_of_a_layer_is_what_results_are_off_by_with_it_alone_in_4_bits(
    jobs: list[str | Path], tmp_path: Path
) -> None:
    stats = tmp_path / "stats.safetensors"
    quant("calibrate", "--model", MODEL, *jobs, "-o", stats)
    drawn: list[str | Path] = [*jobs[: jobs.index("x2t_image") - 1], "--samples", "1", "--steps", "2"]
    to = tmp_path / "found.json"
    command = [sys.executable, TOOL, "--model", MODEL, "--stats", stats, "--quant", QUANT, "-o", to, *drawn]
    work = to.with_suffix(".partial")
    work.mkdir()
    layers = [name.removesuffix(".weight") for name in read(MODEL / "model.safetensors") if "_proj" in name]
    known = {name: 0.125 for name in layers if not name.endswith(".bias") and name not in (EARLY, OTHER)}
    (work / "known.json").write_text(json.dumps(known))  # of an earlier run, which was cut off
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    found = json.loads(to.read_text())
    assert {name: off for name, off in found.items() if name not in (EARLY, OTHER)} == known
    assert not work.exists()
    tensors, awq = read(MODEL / "model.safetensors"), tmp_path / "awq"
    plain = ("--form", "awq-int4", "--without", "scaling,down-through-up")
    quant("apply", "--model", MODEL, "--stats", stats, *plain, "-o", awq)
    values = weights(read(awq / "awq_state_dict.safetensors"), EARLY).astype(np.float32)
    tensors[f"{EARLY}.weight"] = ("BF16", list(values.shape), bf16(values).tobytes())
    (tmp_path / "alone").mkdir()
    write(tmp_path / "alone/model.safetensors", tensors)
    beside(tmp_path / "alone", "model.safetensors")
    assert found[EARLY] == compared(tmp_path / "alone", MODEL, drawn, tmp_path / "report")[0]["latent_error"]
    assert found[EARLY] > found[OTHER] > 0


def test_the_published_recipe_has_no_int8(tmp_path: Path) -> None:
    words = ("--model", MODEL, "--stats", "stats", "--form", "int8", "--recipe", "published", "-o", tmp_path / "made")
    command = [str(word) for word in (QUANT, "apply", *words)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (said.returncode, "published is of awq-int4 and nvfp4" in said.stderr) == (2, True)
