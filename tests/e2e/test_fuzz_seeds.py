"""Every target of tests/fuzz over right inputs, inputs that once found a fault, and damaged copies of both."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DAMAGED = 60  # copies of each seed

_spec = importlib.util.spec_from_file_location("fuzz_run", ROOT / "tests/fuzz/run.py")
assert _spec and _spec.loader
fuzz_run = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fuzz_run)


@pytest.fixture(scope="module")
def built() -> Path:
    subprocess.run(["make", "-s", "fuzz-programs"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return ROOT / "build/tests/fuzz"


@pytest.mark.parametrize("name", fuzz_run.names())
def test_whatever_is_read_is_taken_or_refused_in_words(built: Path, tmp_path: Path, name: str) -> None:
    fuzz_run.seeds(name, tmp_path / "seeds")
    command = [str(built / f"fuzz_{name}"), "--damaged", str(DAMAGED), str(tmp_path / "seeds")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr[-2000:]
    inputs = int(ran.stdout.split()[-2])
    assert inputs >= 1 + DAMAGED
