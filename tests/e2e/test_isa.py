"""The CPU backend's instruction set: its limit, its name, and what results have to do with it."""

from __future__ import annotations

import math
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from lanced_process import DEMO_MODEL, LANCED, REQUEST, Lanced

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


@pytest.mark.parametrize("isa", ["amx", "avx512-bf16"])
def test_bf16_is_near_float32_and_its_bytes_depend_on_neither_threads_nor_batch(isa: str) -> None:
    with Lanced("--backend", "cpu") as daemon, daemon.client() as client:
        wanted = client.generate("t2i", **QUICK).pixels
    bf16 = ("--backend", "cpu", "--precision", "bf16", "--isa", f"{isa}-emulated")
    with Lanced(*bf16, "--threads", "1") as daemon, daemon.client() as client:
        assert client.stats()["backend"] == f"cpu-{isa.removesuffix('-bf16')}-bf16-emulated"
        first = client.generate("t2i", **QUICK).pixels
    with Lanced(*bf16, "--threads", "2") as daemon, daemon.client() as client:
        both = client.generate("t2i", **QUICK, batch_size=2).pixels
    assert wanted is not None and first is not None and both is not None
    assert first.tobytes() == both[: len(first)].tobytes()
    error = float(np.mean((first.astype(np.float64) - wanted.astype(np.float64)) ** 2))
    assert 10 * math.log10(255**2 / error) > 35


@pytest.mark.parametrize(("isa", "flag"), [("amx", "amx_bf16"), ("avx512-bf16", "avx512_bf16")])
def test_instructions_for_bf16_make_the_picture_of_their_emulation(isa: str, flag: str) -> None:
    if flag not in processor_flags():
        pytest.skip(f"this processor has no {flag}")
    pictures = []
    for name in (isa, f"{isa}-emulated"):
        with Lanced("--backend", "cpu", "--precision", "bf16", "--isa", name) as daemon, daemon.client() as client:
            pixels = client.generate("t2i", **QUICK).pixels
            assert pixels is not None
            pictures.append(pixels.tobytes())
    assert pictures[0] == pictures[1]


@pytest.mark.skipif("amx_bf16" not in processor_flags(), reason="this processor has no AMX")
def test_who_has_not_chosen_a_precision_is_told_what_bf16_would_bring(tmp_path: Path) -> None:
    with Lanced("--backend", "cpu", "--lazy") as daemon, daemon.client() as client:
        told = client.stats()["advice"]
        assert re.search(r"bf16.* [0-9]+\.[0-9] times as fast.*--precision auto", told)
        assert told in daemon.lancectl("status").stdout
        assert told in daemon.log.read_text()
    for chosen in ("float32", "auto"):
        with Lanced("--backend", "cpu", "--lazy", "--precision", chosen) as daemon, daemon.client() as client:
            assert "advice" not in client.stats()
    picture = tmp_path / "a.png"
    command: list[str | Path] = [LANCED.with_name("lancectl"), "t2i", "a red square", "--size", "64x64"]
    command += ["--steps", "1", "-o", picture]
    command += ["--endpoint", f"ipc://{tmp_path}/none.ipc", "--model", DEMO_MODEL, "--precision", "auto"]
    subprocess.run(command, check=True, capture_output=True)
    assert b"cpu-amx-bf16" in picture.read_bytes()


def test_bf16_beyond_the_limit_is_refused_and_auto_takes_float32() -> None:
    arguments = ("--backend", "cpu", "--isa", "avx2", "--lazy")
    with Lanced(*arguments, "--precision", "auto") as daemon, daemon.client() as client:
        assert "bf16" not in client.stats()["backend"]
    command: list[str | Path] = [LANCED, *arguments, "--precision", "bf16", "--model", DEMO_MODEL]
    wrong = subprocess.run(command, capture_output=True, text=True, check=False)
    assert wrong.returncode != 0
    assert "AMX or AVX512-BF16" in wrong.stderr


def test_a_limit_that_does_not_exist_is_refused_with_those_that_do() -> None:
    command: list[str | Path] = [LANCED, "--isa", "sse9", "--model", "/nowhere"]
    wrong = subprocess.run(command, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "--isa" in wrong.stderr and "avx512-bf16 or amx" in wrong.stderr
