"""The CPU's operators on 64-bit ARM, built by a cross compiler and run under qemu: the bytes of x86's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lanced_process import BUILD, ROOT

EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
DIGESTS = BUILD / "tests/operator-digests"

pytestmark = [
    pytest.mark.deep,
    pytest.mark.skipif(shutil.which("aarch64-linux-gnu-gcc") is None, reason="there is no cross compiler for ARM"),
    pytest.mark.skipif(EMULATOR is None, reason="there is no emulator of an ARM processor"),
]


def digests(*command: str | Path) -> tuple[str, list[str]]:
    """The backend's name, and "OPERATOR HASH" of each operator."""
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return printed[0], printed[1:]


@pytest.fixture(scope="module")
def arm_program() -> Path:
    subprocess.run(["make", "-s", "-j2", f"BUILD={BUILD}", "arm64-digests"], cwd=ROOT, check=True)
    return BUILD / "arm64/operator-digests"


@pytest.mark.parametrize("processor", ["max", "cortex-a72"], ids=["with dot products", "without"])
def test_every_operator_gives_on_arm_the_bytes_that_it_gives_with_avx2(arm_program: Path, processor: str) -> None:
    name, wanted = digests(DIGESTS, "avx2")
    if name != "cpu-avx2":
        pytest.skip("this processor has no AVX2")
    assert EMULATOR
    name, found = digests(EMULATOR, "-cpu", processor, arm_program)
    assert name == "cpu-neon"
    assert len(found) > 100
    assert found == wanted


def test_a_limit_to_avx2_is_on_arm_no_limit_to_plain_c(arm_program: Path) -> None:
    assert EMULATOR
    for limit, wanted in (("avx2", "cpu-neon"), ("portable", "cpu-portable")):
        assert digests(EMULATOR, arm_program, limit)[0] == wanted
