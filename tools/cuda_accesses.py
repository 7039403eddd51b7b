#!/usr/bin/env python3
"""What the kernels of the CUDA backend ask of memory, without a card: sectors of a request beside the fewest that its
bytes have room in, bytes that a block asks for beside those it needs, bank conflicts of shared memory.

The whole engine, with one layer of the decoder, runs at the real model's shapes over the emulated card (a dry run:
tests/cuda_emulation), of which the first launch of each kernel and grid runs some of its blocks, every access recorded:
a picture of 768 x 768, its step and its decoding, and an answer about a picture of 672 x 672 with the vision
transformer, without NVIDIA's libraries. `make cuda-model` builds what that needs, and writes the table of docs/cuda.md;
`--check` says what is over its ceiling, of a smaller picture
alone."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tools.cuda_model import kernel_name  # noqa: E402

DOCUMENT = ROOT / "docs/cuda.md"
BEGIN, END = "<!-- written by make cuda-model: accesses -->\n", "<!-- end of the accesses -->\n"
SECTOR = 32
MULTIPROCESSORS, MEMORY_BYTES = 132, 80 << 30  # of an H100, which decide how operators are cut up
FORMS = {"nvfp4": "Lance-3B-NVFP4", "awq-128": "Lance-3B-AWQ-INT4"}
BOTH = ("t2i,x2t_image", "--image", "768x768", "--picture", "672x672")
PICTURE = ("t2i", "--image", "256x256")
LOADING = ("pack_", "repack_", "widen_")  # kernels that run when a model is loaded, and never again

MOST_CONFLICTS = 1.10  # turns of the banks, of the least
# Known to take more, with what they may: rows of 80 are 160 bytes, so that copies of 128 bytes go across two of them.
CONFLICTS_OF = {"attention_kernel<80, 4, 1, true>": 1.20, "attention_kernel<80, 4, 2, true>": 1.20}


@dataclasses.dataclass(frozen=True)
class Instruction:
    at: int  # in the plugin
    shared: bool
    way: str
    bytes: int
    requests: int
    taken: int  # sectors, or turns of the banks
    least: int


@dataclasses.dataclass(frozen=True)
class Launch:
    """Of one kernel and grid, what the blocks that were looked at did."""

    kernel: str
    grid: tuple[int, int, int]
    threads: int
    blocks: int
    bytes_read: int
    bytes_written: int
    instructions: tuple[Instruction, ...]


def of_the_least(instructions: Iterable[Instruction]) -> float:
    every = list(instructions)
    least = sum(one.least for one in every)
    return sum(one.taken for one in every) / least if least else 1.0


def run(command: list[str], **environment: str) -> None:
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")


def names(plugin: Path) -> dict[int, str]:
    """Of the functions in the plugin, by where they lie."""
    listed = subprocess.run(["nm", "-C", "--defined-only", str(plugin)], capture_output=True, text=True, check=True)
    found = {}
    for line in listed.stdout.replace("(anonymous namespace)::", "").splitlines():
        place, kind, name = line.split(maxsplit=2)
        if kind in "tTwW":
            found[int(place, 16)] = kernel_name(name)
    return found


def lines_of(plugin: Path, places: list[int]) -> dict[int, str]:
    """file:line of instructions: where inlined functions come from, the innermost."""
    command = ["addr2line", "-e", str(plugin), *map(hex, places)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {place: line.rpartition("/")[2].partition(" ")[0] for place, line in zip(places, said, strict=True)}


def read(recorded: Iterable[dict[str, Any]], named: dict[int, str]) -> Iterator[Launch]:
    for launch in recorded:
        yield Launch(named.get(launch["kernel"], launch["name"]), tuple(launch["grid"]), launch["threads"],
                     launch["blocks"], launch["bytes_read"], launch["bytes_written"],
                     tuple(Instruction(**{field.name: one[field.name] for field in dataclasses.fields(Instruction)})
                           for one in launch["instructions"]))  # fmt: skip


def record(programs: Path, plugin: Path, forms: Iterable[str], tasks: tuple[str, ...]) -> list[Launch]:
    """Of every kernel and grid of these tasks, in these forms of weights."""
    launches: dict[tuple[str, tuple[int, int, int], int], Launch] = {}
    named = names(plugin)
    environment = {
        "LANCED_CUDA_PLUGIN": str(plugin),
        "LANCED_CUDNN": "",
        "LANCED_CUBLASLT": "",
        "LANCED_CUDA_GRAPHS": "off",
        "LANCED_EMULATION_DRY": "1",
        "LANCED_EMULATION_MULTIPROCESSORS": str(MULTIPROCESSORS),
        "LANCED_EMULATION_MEMORY": str(MEMORY_BYTES),
    }
    with tempfile.TemporaryDirectory(prefix="cuda-accesses-") as folder:
        run([str(programs / "random-checkpoint"), "--hollow", "--layers", "1", "--form", ",".join(forms), "-o", folder])
        if "x2t_image" not in tasks[0]:
            shutil.rmtree(Path(folder) / "Qwen2.5-VL-ViT")  # a third of what is read
        for form in forms:
            file = Path(folder) / "accesses.json"
            bench = [str(programs / "lance-bench"), "--tasks", "--model", str(Path(folder) / FORMS[form])]
            bench += ["--backend", "cuda", "--runs", "1", "--steps", "1", "--tokens", "2", "--task", *tasks]
            run(bench, **environment, LANCED_EMULATION_ACCESSES=str(file))
            for launch in read(json.loads(file.read_text()), named):
                launches.setdefault((launch.kernel, launch.grid, launch.threads), launch)
    return sorted(launches.values(), key=lambda launch: (launch.kernel, launch.grid))


def by_kernel(launches: Iterable[Launch]) -> dict[str, list[Launch]]:
    found: dict[str, list[Launch]] = {}
    for launch in launches:
        if not launch.kernel.startswith(LOADING):
            found.setdefault(launch.kernel, []).append(launch)
    return found


def of_card(launches: list[Launch], way: str) -> list[Instruction]:
    return [
        one
        for launch in launches
        for one in launch.instructions
        if not one.shared and (one.way == "write") == (way == "write")
    ]


def of_shared(launches: list[Launch]) -> list[Instruction]:
    return [one for launch in launches for one in launch.instructions if one.shared]


def faults(launches: Iterable[Launch], plugin: Path) -> list[str]:
    """What is over a ceiling, with the lines where it happens."""
    found = []
    for kernel, of_it in by_kernel(launches).items():
        shared, most = of_shared(of_it), CONFLICTS_OF.get(kernel, MOST_CONFLICTS)
        if of_the_least(shared) > most:
            places = lines_of(plugin, [one.at for one in shared if one.taken > most * one.least])
            found.append(
                f"{kernel}: its accesses of shared memory take {of_the_least(shared):.2f} times the turns that "
                f"they might, at most {most:.2f} are wanted: {', '.join(sorted(set(places.values())))}"
            )
    return found


def sectors(instructions: list[Instruction]) -> str:
    requests = sum(one.requests for one in instructions)
    if not requests:
        return "-"
    taken, least = (
        sum(values) / requests for values in ([one.taken for one in instructions], [one.least for one in instructions])
    )
    return f"{taken:.1f} ({least:.1f})"


def table(launches: Iterable[Launch]) -> list[str]:
    lines = [
        "| kernel | sectors a read (the least) | sectors a write (the least) | bytes asked for, of those needed |"
        " turns of the banks, of the least |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kernel, of_it in by_kernel(launches).items():
        reads, shared = of_card(of_it, "read"), of_shared(of_it)
        needed = sum(launch.bytes_read for launch in of_it)
        again = f"{SECTOR * sum(one.taken for one in reads) / needed:.2f}" if needed else "-"
        conflicts = f"{of_the_least(shared):.2f}" if shared else "-"
        lines.append(f"| `{kernel}` | {sectors(reads)} | {sectors(of_card(of_it, 'write'))} | {again} | {conflicts} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, default=ROOT / "build", help="where the programs are")
    parser.add_argument(
        "--plugin",
        type=Path,
        default=ROOT / "build-thread/tests/liblanced_cuda_accesses.so",
        help="the emulated card that records",
    )
    parser.add_argument("--check", action="store_true", help="only say what is over a ceiling; status 1 if anything is")
    arguments = parser.parse_args()
    forms, tasks = (["nvfp4"], PICTURE) if arguments.check else (list(FORMS), BOTH)
    launches = record(arguments.programs, arguments.plugin, forms, tasks)
    over = faults(launches, arguments.plugin)
    print("\n".join(over if arguments.check else [*table(launches), *over]))
    if not arguments.check:
        before, _, rest = DOCUMENT.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        DOCUMENT.write_text(before + BEGIN + "\n" + "\n".join(table(launches)) + "\n\n" + END + after)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
