"""Writes distances.json: how far the official code's own bf16 runs are from its float32 runs, tensor by tensor.

    python tests/golden/make_distances.py GOLDEN > tests/golden/data/distances.json

GOLDEN is the full recording (README.md beside the data says what it is). For every case recorded in both modes, and
every floating-point tensor both have with the same shape: the relative error |bf16 - f32| / |f32|; for pictures as
bytes the PSNR in dB. A backend that computes in bf16 may be 1.5 times as far from float32 as that
(check-golden --backend cuda).
"""

from __future__ import annotations

import json
import math
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

TYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8"), "F16": np.dtype("<f2"),
                                   "BF16": np.dtype("<u2"), "U8": np.dtype("u1")}


def read_tensors(path: Path) -> dict[str, npt.NDArray[np.float64]]:
    """The floating-point and byte tensors of a safetensors file, as float64."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    tensors: dict[str, npt.NDArray[np.float64]] = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name == "__metadata__" or entry["dtype"] not in TYPES:
            continue
        first, last = entry["data_offsets"]
        raw = data[8 + length + first : 8 + length + last]
        values = np.frombuffer(raw, TYPES[entry["dtype"]])
        if entry["dtype"] == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        tensors[name] = values.astype(np.float64).reshape(entry["shape"])
    return tensors


def distance(name: str, here: npt.NDArray[np.float64], there: npt.NDArray[np.float64]) -> float | None:
    """Relative error, or PSNR of bytes; None where the two are the same, as the schedule is."""
    squares = float(((here - there) ** 2).sum())
    if squares == 0.0:
        return None
    value = (10.0 * math.log10(255.0**2 * here.size / squares) if name.endswith("u8")
             else math.sqrt(squares) / (math.sqrt(float((there**2).sum())) + 1e-30))
    return float(f"{value:.3g}")


def main() -> None:
    cases = Path(sys.argv[1]) / "cases"
    distances: dict[str, dict[str, float]] = {}
    for path in sorted(cases.glob("*.bf16.safetensors")):
        case = path.name.removesuffix(".bf16.safetensors")
        twin = cases / f"{case}.f32.safetensors"
        if not twin.exists():
            continue
        here, there = read_tensors(path), read_tensors(twin)
        found = {name: distance(name, here[name], there[name]) for name in here
                 if name in there and here[name].shape == there[name].shape}
        distances[case] = {name: value for name, value in found.items() if value is not None}
    lines = [f" {json.dumps(case)}: {json.dumps(values)}" for case, values in distances.items()]
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    main()
