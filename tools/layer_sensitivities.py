"""How far results are off with each linear layer alone in 4 bits: what `lance-quant apply --form mixed --sensitivities`
gives bits by. What a layer's own outputs lose does not tell that well.

    python3 tools/layer_sensitivities.py --model models/Lance_3B --stats stats.safetensors --quant build/lance-quant \
        -o sensitivities.json --task t2i --prompts prompts.txt --samples 4 --steps 8

What follows -o are jobs, as `lance-quant compare` takes them, of tasks that draw: they run once for each layer. In a
copy of the release's weights, which lies beside the result meanwhile, each layer in turn is what 4 bits (AWQ, groups of
128, nothing scaled) make of it. Called again after it was cut off, it goes on. Needs numpy.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np

WEIGHTS = "model.safetensors"
Codes = np.ndarray[Any, np.dtype[np.uint8]]


class Tensors:
    """A safetensors file, whose tensors are read and overwritten where they lie."""

    def __init__(self, path: Path, mode: str = "rb") -> None:
        self.file: IO[bytes] = path.open(mode)
        (length,) = struct.unpack("<Q", self.file.read(8))
        self.start = 8 + length
        self.entries: dict[str, Any] = json.loads(self.file.read(length))

    def data(self, name: str) -> bytes:
        first, end = self.entries[name]["data_offsets"]
        self.file.seek(self.start + first)
        return self.file.read(end - first)

    def overwrite(self, name: str, data: bytes) -> None:
        first, end = self.entries[name]["data_offsets"]
        assert len(data) == end - first, name
        self.file.seek(self.start + first)
        self.file.write(data)
        self.file.flush()


def rounded(quantised: Tensors, layer: str, dtype: str) -> bytes:
    """A layer's weights as its codes have them, in the release's dtype."""
    packed: Codes = np.frombuffer(quantised.data(f"{layer}.qweight"), np.uint8)
    scales = (np.frombuffer(quantised.data(f"{layer}.scales"), np.uint16).astype(np.uint32) << 16).view(np.float32)
    zeros: Codes = np.frombuffer(quantised.data(f"{layer}.zeros"), np.uint8)
    codes = np.stack([packed & 15, packed >> 4], -1).reshape(len(scales), -1).astype(np.float32)
    values = ((codes - zeros[:, None]) * scales[:, None]).ravel().astype(np.float32)
    if dtype == "F32":
        return values.tobytes()
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16).tobytes()


def run(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def latents_off(quant: Path, model: Path, reference: Path, jobs: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report"
        run(quant, "compare", "--model", model, "--reference", reference, *jobs, "-o", report)
        tasks = json.loads((report / "report.json").read_text())["tasks"]
    return float(np.mean([task["latent_error"] for task in tasks]))


def quantise(quant: Path, model: Path, stats: Path, to: Path) -> Tensors:
    if not to.exists():
        nothing_scaled = ("--without", "scaling,down-through-up")
        run(quant, "apply", "--model", model, "--stats", stats, "--form", "awq-int4", *nothing_scaled, "-o", to)
    return Tensors(to / "awq_state_dict.safetensors")


def measure(quant: Path, model: Path, stats: Path, to: Path, jobs: list[str]) -> dict[str, float]:
    work = to.with_suffix(".partial")
    work.mkdir(exist_ok=True)
    quantised = quantise(quant, model, stats, work / "awq")
    known = work / "known.json"
    found: dict[str, float] = json.loads(known.read_text()) if known.exists() else {}
    changed = work / "changed"
    shutil.rmtree(changed, ignore_errors=True)
    changed.mkdir()
    for file in model.resolve().iterdir():
        if file.name == WEIGHTS:
            shutil.copyfile(file, changed / WEIGHTS)
        else:
            (changed / file.name).symlink_to(file)
    tensors = Tensors(changed / WEIGHTS, "r+b")
    layers = sorted(name.removesuffix(".qweight") for name in quantised.entries if name.endswith(".qweight"))
    for number, layer in enumerate(layers):
        if layer in found:
            continue
        name = f"{layer}.weight"
        whole = tensors.data(name)
        tensors.overwrite(name, rounded(quantised, layer, tensors.entries[name]["dtype"]))
        found[layer] = latents_off(quant, changed, model, jobs)
        tensors.overwrite(name, whole)
        known.write_text(json.dumps(found))
        print(f"{number + 1} of {len(layers)}: {layer}: {found[layer]:.4f}", flush=True)
    shutil.rmtree(work)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="How far results are off with each layer alone in 4 bits.")
    parser.add_argument("--model", type=Path, required=True, help=f"a release in bf16 or float32, in one {WEIGHTS}")
    parser.add_argument("--stats", type=Path, required=True, help="of lance-quant calibrate")
    parser.add_argument("--quant", type=Path, default=Path("lance-quant"), help="the program")
    parser.add_argument("-o", dest="output", type=Path, required=True)
    args, jobs = parser.parse_known_args()
    found = measure(args.quant, args.model, args.stats, args.output, jobs)
    args.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
