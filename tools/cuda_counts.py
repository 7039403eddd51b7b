#!/usr/bin/env python3
"""What a denoising step and a token ask of a card, counted without one: the whole engine at the real model's size over
the emulated card of the tests, which counts and does nothing else (tests/cuda_emulation, a dry run), with the emulated
cuBLASLt and cuDNN. The weights are holes in their files; a run takes half a minute of processor time, most of it for
loading them.

A step is what one step more adds to a picture's counts, a token what one token more adds to an answer's. `--check` says
what is over its ceiling. It needs build/lance-bench, build/random-checkpoint and, in build/tests, the emulated plugin
and both emulated libraries."""

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


@dataclasses.dataclass(frozen=True)
class Piece:
    """A piece of work: a task of lance-bench, and the option whose number says how often it does it."""

    name: str
    task: str
    options: tuple[str, ...]
    counted: str
    times: int  # by then every graph has been recorded; steps: of 5 and of 6 each has guidance, of 7 the last has none
    most_kernels: int


PIECES = (
    Piece("a step of 768 x 768 with guidance", "t2i", ("--image", "768x768"), "--steps", 5, 1200),
    Piece("a token after a picture of 672 x 672", "x2t_image", ("--picture", "672x672"), "--tokens", 24, 250),
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


def counts(build: Path, model: Path, piece: Piece, times: int) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        run([str(build / "lance-bench"), "--tasks", "--model", str(model), "--backend", "cuda", "--runs", "1", "--task",
             piece.task, *piece.options, piece.counted, str(times)],
            LANCED_CUDA_PLUGIN=str(build / "tests/liblanced_cuda_emulated.so"),
            LANCED_CUDNN=str(build / "tests/cudnn/libcudnn.so.9"),
            LANCED_CUBLASLT=str(build / "tests/cublaslt/libcublasLt.so.12"),
            LANCED_EMULATION_DRY="1", LANCED_EMULATION_COUNTS=file.name,
            LANCED_EMULATION_MULTIPROCESSORS=str(MULTIPROCESSORS), LANCED_EMULATION_MEMORY=str(MEMORY_BYTES))
        result: dict[str, Any] = json.loads(Path(file.name).read_text())
        return result


def difference(more: dict[str, Any], less: dict[str, Any]) -> dict[str, Any]:
    return {name: difference(value, less.get(name, {})) if isinstance(value, dict) else value - less.get(name, 0)
            for name, value in more.items()}


def count(build: Path, pieces: tuple[Piece, ...] = PIECES) -> dict[str, dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="cuda-counts-") as folder:
        run([str(build / "random-checkpoint"), "--hollow", "--form", "nvfp4", "-o", folder])
        model = Path(folder) / "Lance-3B-NVFP4"
        return {
            piece.name: difference(*(counts(build, model, piece, piece.times + more) for more in (1, 0)))
            for piece in pieces
        }


def table(counted: dict[str, dict[str, Any]]) -> list[str]:
    most = {piece.name: piece.most_kernels for piece in PIECES}
    lines = ["| of Lance-3B in NVFP4 | " + " | ".join(COLUMNS.values()) + " | kernels at most |",
             "| --- |" + " --- |" * (len(COLUMNS) + 1)]  # fmt: skip
    for name, of in counted.items():
        lines.append(f"| {name} | " + " | ".join(f"{of[column]:,}" for column in COLUMNS) + f" | {most[name]:,} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="where the programs are")
    parser.add_argument("--check", action="store_true", help="only say what is over a ceiling; status 1 if anything is")
    parser.add_argument("--kernels", action="store_true", help="also how often each kernel is launched")
    arguments = parser.parse_args()
    counted = count(arguments.build)
    faults = [f"{piece.name}: {counted[piece.name]['kernels']} kernels, at most {piece.most_kernels} are wanted"
              for piece in PIECES if counted[piece.name]["kernels"] > piece.most_kernels]  # fmt: skip
    print("\n".join(faults if arguments.check else table(counted)))
    for name, of in counted.items() if arguments.kernels else ():
        print(f"\n{name}:")
        for kernel, number in sorted(of["of"].items(), key=lambda item: -item[1]):
            print(f"  {number:6} {kernel}" if number else "", end="\n" if number else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
