"""Safetensors files as dicts of dtype, shape and bytes, read and written without the library."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

Entry = tuple[str, list[int], bytes]
Numbers = np.ndarray[Any, np.dtype[np.float64]]


def read(path: Path) -> dict[str, Entry]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    start = 8 + length
    return {
        name: (
            entry["dtype"],
            entry["shape"],
            data[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]],
        )
        for name, entry in header.items()
    }


def write(path: Path, tensors: dict[str, Entry], metadata: dict[str, str] | None = None) -> Path:
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))
    return path


def numbers(entry: Entry) -> Numbers:
    kind, shape, data = entry
    if kind == "BF16":
        wide = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    else:
        wide = np.frombuffer(data, {"F32": np.float32, "U8": np.uint8, "I64": np.int64}[kind])
    return wide.reshape(shape).astype(np.float64)


def bf16(values: Numbers) -> Entry:
    """The nearest ones, the even one of two that are as near."""
    bits = values.astype(np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return "BF16", list(values.shape), rounded.tobytes()
