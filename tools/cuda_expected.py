#!/usr/bin/env python3
"""What a token and a denoising step of Lance-3B in NVFP4 may take on cards that nobody here has, before and after the
backend was gone through by what is counted: bounds from the machine code (cuda_model.py), the emulated card
(cuda_counts.py) and the cards' published peak rates; and what the newer cards' own instructions would bring.

`make cuda-model` writes the tables of docs/cuda.md. A bound, not a measurement: it knows no latency beside that of a
launch, and takes shares of the peak on trust."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tools import cuda_counts, cuda_model  # noqa: E402

BEGIN, END = "<!-- written by make cuda-model: expected -->\n", "<!-- end of what is expected -->\n"


@dataclasses.dataclass(frozen=True)
class Card:
    """Published: multiprocessors, boost clock, memory, dense bf16 products with float32 sums; those of FP4 factors, and
    the instructions for products that our kernels do not use, where it has them."""

    multiprocessors: int
    ghz: float
    memory_gbs: float
    tflops: float
    fp4_tflops: float = 0
    instructions: str = ""


CARDS = {
    "A100 80 GB": Card(108, 1.41, 2039, 312),
    "L40": Card(142, 2.49, 864, 181),
    "RTX 4090": Card(128, 2.52, 1008, 165),
    "H100 SXM": Card(132, 1.76, 3350, 989, instructions="wgmma"),
    "B200": Card(148, 1.85, 8000, 2250, 9000, "tcgen05"),
    "RTX 5090": Card(170, 2.41, 1792, 209, 1676),
}
ISSUED = 0.75          # of the four instructions that a multiprocessor can start in a cycle
LAUNCH_SECONDS = 1e-6  # between two kernels of a graph that wait for each other
PRODUCTS, ATTENTION = 0.7, 0.6  # of the peak: cuBLASLt at 4,608 rows, cuDNN at 2,371 keys

LAYERS, HIDDEN, INNER, KEYS_WIDTH, VOCABULARY = 36, 2048, 11008, 256, 151936
WEIGHTS = LAYERS * HIDDEN * (2 * HIDDEN + 2 * KEYS_WIDTH + 3 * INNER)
CODED_BYTES = WEIGHTS * (1 / 2 + 2 / 16)  # on a card NVFP4's scales are bf16
ROWS, KEYS = 2 * 2304, 2371               # of a guided step of 768 x 768


@dataclasses.dataclass(frozen=True)
class Counted:
    """Instructions of a warp for 16 x 64 weights and up to 8 rows; kernels of a token and of a step."""

    tile: float
    token_kernels: int
    step_kernels: int


BEFORE = Counted(248, 364, 1600)


def token_seconds(card: Card, counted: Counted) -> tuple[float, float]:
    """Of one token, and of reading its weights alone."""
    instructions = WEIGHTS / (16 * 64) * counted.tile
    issue = instructions / (card.multiprocessors * 4 * card.ghz * 1e9 * ISSUED)
    reading, head = CODED_BYTES / (card.memory_gbs * 1e9), HIDDEN * VOCABULARY * 2 / (card.memory_gbs * 1e9)
    return max(issue, reading) + head + counted.token_kernels * LAUNCH_SECONDS, reading + head


def peak_seconds(card: Card, products_tflops: float) -> tuple[float, float]:
    """Of a step's products, and of its attention, at the peak."""
    return (2 * ROWS * WEIGHTS / (products_tflops * 1e12), 4 * ROWS * KEYS * HIDDEN * LAYERS / (card.tflops * 1e12))


def step_seconds(card: Card, counted: Counted, decodes: bool = True, products_tflops: float = 0) -> float:
    """Of a step with guidance. `decodes`: weights are written as bf16 first; `products_tflops`: of other products than
    those of bf16 factors."""
    products, attention = peak_seconds(card, products_tflops or card.tflops)
    swiglu, norms = 3 * 2 * ROWS * INNER * LAYERS, 3 * 2 * 2 * ROWS * HIDDEN * LAYERS
    weights = CODED_BYTES + 2 * WEIGHTS if decodes else CODED_BYTES
    memory = (swiglu + norms + weights) / (card.memory_gbs * 1e9)
    return products / PRODUCTS + attention / ATTENTION + memory + counted.step_kernels * LAUNCH_SECONDS


def expected(counted: Counted) -> list[str]:
    lines = ["| card | token, ms | before | reading alone | step of 768 x 768, ms | before | products and attention at "
             "the peak |", "| --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for name, card in CARDS.items():
        (token, reading), step = token_seconds(card, counted), step_seconds(card, counted)
        peak = sum(peak_seconds(card, card.tflops))
        lines.append(f"| {name} | {1e3 * token:.2f} | {1e3 * token_seconds(card, BEFORE)[0]:.2f} | {1e3 * reading:.2f} "
                     f"({100 * reading / token:.0f} %) | {1e3 * step:.1f} | {1e3 * step_seconds(card, BEFORE):.1f} | "
                     f"{1e3 * peak:.1f} ({100 * peak / step:.0f} %) |")
    return lines


def unused(counted: Counted) -> list[str]:
    """What instructions that our kernels do not use may bring."""
    lines = ["| card | step now, ms | products that read codes, by | step, ms | products of FP4 factors, step, ms | "
             "token now, ms | without instructions for decoding |",
             "| --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for name, card in CARDS.items():
        if not card.instructions and not card.fp4_tflops:
            continue
        codes = f"{1e3 * step_seconds(card, counted, False):.1f}" if card.instructions else "-"
        fp4 = f"{1e3 * step_seconds(card, counted, False, card.fp4_tflops):.1f}" if card.fp4_tflops else "-"
        undecoded = dataclasses.replace(counted, tile=0)
        lines.append(f"| {name} | {1e3 * step_seconds(card, counted):.1f} | {card.instructions or '-'} | {codes} | "
                     f"{fp4} | {1e3 * token_seconds(card, counted)[0]:.2f} | "
                     f"{1e3 * token_seconds(card, undecoded)[0]:.2f} |")
    return lines


def main() -> int:
    cuobjdump = cuda_model.find_cuobjdump()
    if not cuobjdump:
        print("cuda_expected.py: cuobjdump is not installed (make cuda-model gets it)", file=sys.stderr)
        return 2
    tile = cuda_model.instructions_of(cuda_model.PLUGIN, cuobjdump, cuda_model.COUNTS[0])
    pieces = cuda_counts.count(ROOT / "build")
    step, token = (pieces[piece.name]["kernels"] for piece in cuda_counts.PIECES)
    counted = Counted(round(tile), token, step)
    lines = [*cuda_counts.table(pieces), "", *expected(counted), "", *unused(counted)]
    before, _, rest = cuda_model.DOCUMENT.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    cuda_model.DOCUMENT.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n\n" + END + after)
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
