#!/usr/bin/env python3
"""What a token and a denoising step of Lance-3B in NVFP4 may take on cards that nobody here has: bounds from what the
machine code and the emulated card count (cuda_model.py, cuda_counts.py) and the cards' published peak rates.

    python3 tools/cuda_expected.py --tile N --token-kernels N --step-kernels N

A bound, not a measurement: it knows no latency beside that of a launch, and takes shares of the peak on trust."""

from __future__ import annotations

import argparse
import dataclasses


@dataclasses.dataclass(frozen=True)
class Card:
    """Published: multiprocessors, boost clock, memory, dense bf16 products with float32 sums."""

    multiprocessors: int
    ghz: float
    memory_gbs: float
    tflops: float


CARDS = {
    "A100 80 GB": Card(108, 1.41, 2039, 312),
    "L40": Card(142, 2.49, 864, 181),
    "RTX 4090": Card(128, 2.52, 1008, 165),
    "H100 SXM": Card(132, 1.76, 3350, 989),
    "B200": Card(148, 1.85, 8000, 2250),
    "RTX 5090": Card(170, 2.41, 1792, 209),
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


def token_seconds(card: Card, counted: Counted) -> tuple[float, float]:
    """Of one token, and of reading its weights alone."""
    instructions = WEIGHTS / (16 * 64) * counted.tile
    issue = instructions / (card.multiprocessors * 4 * card.ghz * 1e9 * ISSUED)
    reading, head = CODED_BYTES / (card.memory_gbs * 1e9), HIDDEN * VOCABULARY * 2 / (card.memory_gbs * 1e9)
    return max(issue, reading) + head + counted.token_kernels * LAUNCH_SECONDS, reading + head


def step_seconds(card: Card, counted: Counted) -> tuple[float, float]:
    """Of a step with guidance, and of its products and attention at the peak."""
    products = 2 * ROWS * WEIGHTS / (card.tflops * 1e12)
    attention = 4 * ROWS * KEYS * HIDDEN * LAYERS / (card.tflops * 1e12)
    swiglu, norms = 3 * 2 * ROWS * INNER * LAYERS, 3 * 2 * 2 * ROWS * HIDDEN * LAYERS
    decoding = CODED_BYTES + 2 * WEIGHTS
    memory = (swiglu + norms + decoding) / (card.memory_gbs * 1e9)
    return (products / PRODUCTS + attention / ATTENTION + memory + counted.step_kernels * LAUNCH_SECONDS,
            products + attention)


def table(counted: Counted) -> list[str]:
    lines = ["| card | token, ms | reading alone | step of 768 x 768, ms | products and attention at the peak |",
             "| --- | --- | --- | --- | --- |"]  # fmt: skip
    for name, card in CARDS.items():
        (token, reading), (step, peak) = token_seconds(card, counted), step_seconds(card, counted)
        lines.append(f"| {name} | {1e3 * token:.2f} | {1e3 * reading:.2f} ({100 * reading / token:.0f} %) | "
                     f"{1e3 * step:.1f} | {1e3 * peak:.1f} ({100 * peak / step:.0f} %) |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tile", type=float, required=True, help="instructions, as make cuda-model counts them")
    parser.add_argument("--token-kernels", type=int, required=True, help="as tools/cuda_counts.py counts them")
    parser.add_argument("--step-kernels", type=int, required=True, help="the same")
    arguments = parser.parse_args()
    print("\n".join(table(Counted(arguments.tile, arguments.token_kernels, arguments.step_kernels))))


if __name__ == "__main__":
    main()
