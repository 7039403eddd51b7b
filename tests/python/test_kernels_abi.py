"""The number by which lanced tells a CUDA plugin of its own version, KERNELS_ABI, is raised with what the two share.

What they share is what kernels/cuda/cuda_kernels.h and the headers that it includes declare. Here stands the SHA-256 of
these declarations, without comments and white space, as they were when the number was last raised."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FACE = "kernels/cuda/cuda_kernels.h"
RECORDED_ABI = 8
RECORDED_DECLARATIONS = "63eaa4891fd8ee9519af16af9959dfc2f999cd08a23919b08da696c950795297"


def headers_of(path: str, found: list[str] | None = None) -> list[str]:
    """`path` and all headers of ours that it includes, each once."""
    found = [] if found is None else found
    if path not in found:
        found.append(path)
        for included in re.findall(r'^#include "(.*?)"', (ROOT / path).read_text(), re.M):
            headers_of(included, found)
    return found


def declarations(text: str) -> str:
    """What the compiler sees of a header, apart from KERNELS_ABI itself: no comments, white space folded."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    text = re.sub(r"^#define KERNELS_ABI .*$", "", text, flags=re.M)
    return " ".join(text.split())


def digest(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(map(declarations, texts)).encode()).hexdigest()


def stated_abi() -> int:
    stated = re.search(r"^#define KERNELS_ABI (\d+)u$", (ROOT / FACE).read_text(), re.M)
    assert stated
    return int(stated[1])


def test_the_number_is_raised_with_what_program_and_plugin_share() -> None:
    now = digest([(ROOT / path).read_text() for path in headers_of(FACE)])
    assert now == RECORDED_DECLARATIONS, (
        f"{', '.join(headers_of(FACE))}: what lanced and the CUDA plugin share has changed. "
        f"Raise KERNELS_ABI in {FACE} (and RECORDED_ABI here), and record RECORDED_DECLARATIONS = {now!r}"
    )
    assert stated_abi() == RECORDED_ABI, f"KERNELS_ABI was raised: record it here with RECORDED_DECLARATIONS = {now!r}"


def test_every_header_of_the_operators_counts() -> None:
    assert {"kernels/kernels.h", "kernels/formats/weights.h", "base/error.h"} <= set(headers_of(FACE))


def test_a_changed_layout_is_noticed_and_a_changed_comment_is_not() -> None:
    text = (ROOT / "kernels/kernels.h").read_text()
    assert digest([text.replace("/* Transfers; n counts elements.", "/* Transfers; n is how many.")]) == digest([text])
    silu = re.search(r"^    void \(\*silu\).*\n", text, re.M)
    add = re.search(r"^    void \(\*add\)\(.*\n", text, re.M)
    assert silu and add
    swapped = text.replace(silu[0], "").replace(add[0], add[0] + silu[0])
    assert digest([swapped]) != digest([text])
    assert digest([text.replace("int rows, act *y, bool add)", "int rows, act *y)")]) != digest([text])
    assert digest([text.replace("size_t act_bytes;", "uint32_t act_bytes;")]) != digest([text])
