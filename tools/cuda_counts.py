#!/usr/bin/env python3
"""What a denoising step and a token ask of a card, counted without one: the whole engine at the real model's size over
the emulated card of the tests, which counts and does nothing else (tests/cuda_emulation, a dry run), with the emulated
cuBLASLt and cuDNN. The decoder's weights are holes in their file; the vision transformer and the VAE, which have no
part in it, are small. The run takes a quarter of a minute of processor time, nearly all of it for loading weights.

The emulated card counts anew whenever the host waits for graphs: once a step and once a token. What lies between the
last two of them is one. `--check` says what is over its ceiling. It needs build/lance-bench, build/random-checkpoint
and, in build/tests, the emulated plugin and both emulated libraries."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MULTIPROCESSORS, MEMORY_BYTES = 132, 80 << 30  # of an H100, which decide how operators are cut up


STEPS, TOKENS = 5, 6  # the first runs plainly; by the last, every graph has been recorded
TASKS = ("--task", "t2i,x2t_image", "--image", "768x768", "--picture", "672x672", "--steps", str(STEPS), "--tokens",
         str(TOKENS))  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Piece:
    """A piece of work, whose place is where its last one ends in the list of counts."""

    name: str
    place: int
    most_kernels: int
    most_nodes_set: int = 0


PIECES = (
    Piece("a step of 768 x 768 with guidance", STEPS - 2, 1200),
    Piece("a token after a picture of 672 x 672", STEPS - 1 + TOKENS - 2, 250),
)
COLUMNS = {
    "kernels": "kernels",
    "graph_launches": "graphs launched",
    "nodes_set": "nodes set anew",
    "events": "events",
    "syncs": "waits of the host",
    "bytes_to_card": "bytes to the card",
    "bytes_to_host": "bytes to the host",
}


def run(command: list[str], **environment: str) -> None:
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")


def difference(more: dict[str, Any], less: dict[str, Any]) -> dict[str, Any]:
    return {name: difference(value, less.get(name, {})) if isinstance(value, dict) else value - less.get(name, 0)
            for name, value in more.items()}


def of_pieces(counts: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """From what was counted at each wait for graphs, and at the end."""
    if len(counts) != STEPS - 1 + TOKENS - 1 + 1:
        raise SystemExit(f"the emulated card counted {len(counts) - 1} waits for graphs, not one for each of "
                         f"{STEPS - 1} steps and {TOKENS - 1} tokens")
    return {piece.name: difference(counts[piece.place], counts[piece.place - 1]) for piece in PIECES}


def count(build: Path) -> dict[str, dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="cuda-counts-") as folder:
        run([str(build / "random-checkpoint"), "--hollow", "--config", "lance-3b-decoder", "--form", "nvfp4", "-o",
             folder])
        file = Path(folder) / "counts.json"
        run([str(build / "lance-bench"), "--tasks", "--model", str(Path(folder) / "Lance-3B-NVFP4"), "--backend",
             "cuda", "--runs", "1", *TASKS],
            LANCED_CUDA_PLUGIN=str(build / "tests/liblanced_cuda_emulated.so"),
            LANCED_CUDNN=str(build / "tests/cudnn/libcudnn.so.9"),
            LANCED_CUBLASLT=str(build / "tests/cublaslt/libcublasLt.so.12"),
            LANCED_EMULATION_DRY="1", LANCED_EMULATION_COUNTS=str(file),
            LANCED_EMULATION_MULTIPROCESSORS=str(MULTIPROCESSORS), LANCED_EMULATION_MEMORY=str(MEMORY_BYTES))
        return of_pieces(json.loads(file.read_text()))


def table(counted: dict[str, dict[str, Any]]) -> list[str]:
    most = {piece.name: piece.most_kernels for piece in PIECES}
    lines = ["| of Lance-3B in NVFP4 | " + " | ".join(COLUMNS.values()) + " | kernels at most |",
             "| --- |" + " --- |" * (len(COLUMNS) + 1)]  # fmt: skip
    for name, of in counted.items():
        lines.append(f"| {name} | " + " | ".join(f"{of[column]:,}" for column in COLUMNS) + f" | {most[name]:,} |")
    return lines


def faults(counted: dict[str, dict[str, Any]]) -> list[str]:
    ceilings = [(piece.name, column, most) for piece in PIECES
                for column, most in (("kernels", piece.most_kernels), ("nodes_set", piece.most_nodes_set))]  # fmt: skip
    return [f"{name}: {counted[name][column]} {COLUMNS[column]}, at most {most} are wanted"
            for name, column, most in ceilings if counted[name][column] > most]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="where the programs are")
    parser.add_argument("--check", action="store_true", help="only say what is over a ceiling; status 1 if anything is")
    parser.add_argument("--kernels", action="store_true", help="also how often each kernel is launched")
    arguments = parser.parse_args()
    counted = count(arguments.build)
    over = faults(counted)
    print("\n".join(over if arguments.check else table(counted)))
    for name, of in counted.items() if arguments.kernels else ():
        print(f"\n{name}:")
        for kernel, number in sorted(of["of"].items(), key=lambda item: -item[1]):
            print(f"  {number:6} {kernel}" if number else "", end="\n" if number else "")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
