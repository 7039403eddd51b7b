"""tools/cuda_accesses.py: what it makes of recorded accesses, and what it calls a fault."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools import cuda_accesses  # noqa: E402


def instruction(shared: bool, way: str, taken: int, least: int) -> dict[str, Any]:
    return {"at": 16, "shared": shared, "way": way, "bytes": 4, "requests": 10, "lanes": 320, "taken": taken,
            "least": least}  # fmt: skip


def launch(kernel: int, name: str, *instructions: dict[str, Any]) -> dict[str, Any]:
    return {"kernel": kernel, "name": name, "grid": [4, 1, 1], "threads": 128, "blocks": 3, "bytes_read": 640,
            "bytes_written": 0, "instructions": list(instructions)}  # fmt: skip


def test_sectors_and_turns_stand_beside_the_least_by_the_kernels_own_name() -> None:
    recorded = [launch(64, "norm", instruction(False, "read", 40, 20), instruction(True, "write", 11, 10)),
                launch(64, "norm", instruction(False, "write", 10, 10)),
                launch(80, "pack_codes", instruction(False, "read", 99, 1))]  # fmt: skip
    lines = cuda_accesses.table(cuda_accesses.read(recorded, {64: "norm_kernel<8, true>"}))
    assert lines[2:] == ["| `norm_kernel<8, true>` | 4.0 (2.0) | 1.0 (1.0) | 1.00 | 1.10 |"]


def test_conflicts_are_a_fault_with_their_line_and_sectors_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_accesses, "lines_of", lambda plugin, places: dict.fromkeys(places, "norm.cu:34"))
    worse = launch(64, "norm", instruction(True, "write", 12, 10), instruction(False, "read", 90, 10))
    (fault,) = cuda_accesses.faults(cuda_accesses.read([worse], {}), Path("plugin"))
    assert fault.startswith("norm: ") and "1.20 times" in fault and fault.endswith("norm.cu:34")
    good = launch(64, "norm", instruction(True, "write", 11, 10))
    assert not cuda_accesses.faults(cuda_accesses.read([good], {}), Path("plugin"))
