"""The CPU backend's instruction set: its limit, its name, and what results have to do with it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lanced_process import LANCED, REQUEST, Lanced

QUICK = REQUEST | {"num_inference_steps": 2}


def processor_flags() -> set[str]:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((set(line.split(":")[1].split()) for line in lines if line.startswith("flags")), set())


def test_the_limit_on_instructions_names_the_backend_and_a_processor_without_them_takes_its_best() -> None:
    with Lanced("--backend", "cpu", "--isa", "portable", "--lazy") as daemon, daemon.client() as client:
        assert client.stats()["backend"] == "cpu-portable"
    limit = {"LANCED_ISA": "avx512"}
    flags = processor_flags()
    best = "cpu-portable" if "avx2" not in flags else "cpu-avx512" if "avx512_vnni" in flags else "cpu-avx2"
    with Lanced("--backend", "cpu", "--lazy", environment=limit) as daemon, daemon.client() as client:
        assert client.stats()["backend"] == best


@pytest.mark.skipif("avx512_vnni" not in processor_flags(), reason="this processor has no AVX-512")
def test_avx2_and_avx512_make_the_same_picture_to_the_byte() -> None:
    pictures = []
    for isa in ("avx2", "avx512"):
        with Lanced("--backend", "cpu", "--isa", isa) as daemon, daemon.client() as client:
            assert client.stats()["backend"] == f"cpu-{isa}"
            pixels = client.generate("t2i", **QUICK).pixels
            assert pixels is not None
            pictures.append(pixels.tobytes())
    assert pictures[0] == pictures[1]


def test_a_limit_that_does_not_exist_is_refused_with_those_that_do() -> None:
    command = [LANCED, "--isa", "sse9", "--model", "/nowhere"]
    wrong = subprocess.run(command, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "--isa" in wrong.stderr and "portable, avx2 or avx512" in wrong.stderr
