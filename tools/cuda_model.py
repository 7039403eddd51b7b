#!/usr/bin/env python3
"""What the machine code of the CUDA backend tells without a card: registers, what a multiprocessor holds of each
kernel, and the instructions of the loops that decide. It reads the built plugin with cuobjdump: what is shipped.

`make cuda-model` writes the table of docs/cuda.md; `--check` holds the ceilings, as a stage of the tests."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = ROOT / "build/liblanced_cuda.so"
TOOLS = ROOT / "build/cuda-tools"  # an environment with NVIDIA's programs from PyPI
DOCUMENT = ROOT / "docs/cuda.md"
BEGIN, END = "<!-- written by make cuda-model -->\n", "<!-- end of what make cuda-model writes -->\n"
REGISTERS = 65536  # of a multiprocessor; a warp takes them in pieces of 256
SHARED_PER_BLOCK = 1024  # that every block takes beside its own


@dataclasses.dataclass(frozen=True)
class Card:
    """Of one kind of card, by the tables of the CUDA programming guide: what a multiprocessor holds."""

    names: str
    warps: int
    blocks: int
    shared_bytes: int


CARDS = {
    "sm_80": Card("A100", 64, 32, 164 << 10),
    "sm_86": Card("RTX 30", 48, 16, 100 << 10),
    "sm_89": Card("L40, RTX 40", 48, 24, 100 << 10),
    "sm_90": Card("H100", 64, 32, 228 << 10),
    "sm_100": Card("B200", 64, 32, 228 << 10),
    "sm_120": Card("RTX 50", 48, 24, 100 << 10),
}
LOOPS_OF = "sm_90"  # whose instructions are counted

AWQ, MLX, NVFP4 = "(matrix_layout)1", "(matrix_layout)2", "(matrix_layout)3"
# The kernels of the real model that take its time, with what they do, and the bytes of dynamic shared memory that they
# are started with (attention.cu, product.cu, conv_product.cu, linear_some_rows.cu).
KERNELS = {
    f"four_bit_kernel<{NVFP4}, 4, 1, true>": ("product of 1 to 8 rows, NVFP4 (norm and SwiGLU in it)", 0),
    f"four_bit_kernel<{AWQ}, 1, 1, true>": ("the same, AWQ", 0),
    f"four_bit_kernel<{MLX}, 1, 1, true>": ("the same, MLX", 0),
    f"four_bit_kernel<{NVFP4}, 4, 2, true>": ("product of 9 to 16 rows, NVFP4", 0),
    f"some_rows_kernel<{NVFP4}, 4>": ("product of 17 to 128 rows, NVFP4", 4 * (64 * 128 + 2048 + 512 + 128)),
    f"some_rows_kernel<{AWQ}, 1>": ("the same, AWQ", 4 * (64 * 128 + 2048 + 2 * 128)),
    f"some_rows_kernel<{MLX}, 1>": ("the same, MLX", 4 * (64 * 128 + 2048 + 2 * 128)),
    "bf16_kernel<1>": ("product of 1 to 8 rows, bf16", 0),
    f"dequantise_kernel<{NVFP4}>": ("weights for products of more rows, NVFP4", 0),
    f"dequantise_kernel<{AWQ}>": ("the same, AWQ", 0),
    "attention_kernel<128, 1, 1, true>": ("attention of up to 16 rows", (16 + 2 * 64) * 136 * 2),
    "attention_kernel<128, 4, 1, true>": ("attention of up to 64 rows", (64 + 2 * 64) * 136 * 2),
    "attention_kernel<128, 4, 2, true>": ("attention of many rows", (128 + 2 * 64) * 136 * 2),
    "attention_kernel<80, 4, 2, true>": ("attention of the ViT", (128 + 2 * 64) * 88 * 2),
    "product_kernel<128, 128, 64, 32, 8>": ("product of many rows", 4 * 256 * 32 * 2),
    "conv_product<128, 8>": ("convolutions", 3 * 256 * 32 * 2),
    "norm_kernel<8, true>": ("rms norm of the language model", 0),
    "norm_kernel<1, true>": ("channel norm of the VAE", 0),
    "head_norm_rope_kernel<true>": ("head norm and rotary positions", 0),
    "each_kernel<swiglu_of, true>": ("SwiGLU", 0),
}


@dataclasses.dataclass(frozen=True)
class Count:
    """Instructions that matter: of a kernel's main loop, for one of the pieces of work in a turn of it; or, where
    `pieces` is 0, of all of it. `before`: as counted before the kernels were rewritten by these counts, 0 where there
    was none."""

    kernel: str
    of: str
    pieces: int
    most: int
    before: int = 0


COUNTS = (
    Count(f"four_bit_kernel<{NVFP4}, 4, 1, true>", "a tile of 16 x 64 weights", 4, 125, 248),
    Count(f"four_bit_kernel<{AWQ}, 1, 1, true>", "a tile of 16 x 64 weights", 4, 125, 255),
    Count(f"four_bit_kernel<{MLX}, 1, 1, true>", "a tile of 16 x 64 weights", 4, 140, 208),
    Count(f"some_rows_kernel<{NVFP4}, 4>", "32 products of 16 x 8 x 16 of a warp", 1, 380),
    Count(f"some_rows_kernel<{AWQ}, 1>", "32 products of 16 x 8 x 16 of a warp", 1, 300),
    Count(f"some_rows_kernel<{MLX}, 1>", "32 products of 16 x 8 x 16 of a warp", 1, 250),
    Count(f"dequantise_kernel<{NVFP4}>", "the whole kernel", 0, 450, 984),
    Count(f"dequantise_kernel<{AWQ}>", "the whole kernel", 0, 450),
    Count("attention_kernel<128, 1, 1, true>", "64 keys of a warp, within a segment", 1, 650, 4250),
    Count("attention_kernel<128, 4, 2, true>", "64 keys of a warp, with what only their last step does", 1, 1400, 1730),
)


@dataclasses.dataclass(frozen=True)
class Usage:
    registers: int
    stack_bytes: int
    shared_bytes: int  # static


def find_cuobjdump() -> str | None:
    in_tools = sorted(TOOLS.glob("lib/python*/site-packages/nvidia/*/bin/cuobjdump"))
    return shutil.which("cuobjdump") or (str(in_tools[0]) if in_tools else None)


def dump(cuobjdump: str, plugin: Path, *what: str) -> str:
    # nvdisasm lies beside cuobjdump and is looked for in PATH
    environment = os.environ | {"PATH": f"{Path(cuobjdump).parent}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(
        [cuobjdump, *what, str(plugin)], env=environment, capture_output=True, text=True, check=True
    )
    names = subprocess.run(["c++filt"], input=result.stdout, capture_output=True, text=True, check=True).stdout
    return names.replace("(anonymous namespace)::", "")


def kernel_name(signature: str) -> str:
    """`void name<...>(arguments)` without its result and arguments; the arguments of a template may have brackets."""
    depth = 0
    for at, character in enumerate(signature):
        depth += {"<": 1, ">": -1}.get(character, 0)
        if character == "(" and depth == 0:
            return signature[:at].removeprefix("void ").strip()
    return signature.removeprefix("void ").strip()


def usages(text: str) -> dict[str, dict[str, Usage]]:
    """Of every architecture, every kernel."""
    found: dict[str, dict[str, Usage]] = {}
    arch, kernel = "", ""
    for line in text.splitlines():
        if match := re.match(r"arch = (\w+)", line):
            arch = match[1]
        elif match := re.match(r" Function (.*):$", line):
            kernel = kernel_name(match[1])
        elif match := re.match(r"\s+REG:(\d+) STACK:(\d+) SHARED:(\d+)", line):
            found.setdefault(arch, {})[kernel] = Usage(*map(int, match.groups()))
    return found


def threads_of(text: str) -> dict[str, int]:
    """Threads of a block, of every kernel, from the PTX."""
    entries = re.finditer(r"\.entry (.*?)\n.*?\.maxntid (\d+), 1, 1", text, re.DOTALL)
    return {kernel_name(entry[1]): int(entry[2]) for entry in entries}


def bodies(text: str) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """Of every kernel its instructions, with their addresses."""
    for part in re.split(r"^\s*Function : ", text, flags=re.MULTILINE)[1:]:
        name, _, body = part.partition("\n")
        lines = re.findall(r"^\s*/\*([0-9a-f]{4,})\*/\s+(.*?);", body, re.MULTILINE)
        yield kernel_name(name), [(int(address, 16), code) for address, code in lines]


def main_loop(body: list[tuple[int, str]]) -> int:
    """Instructions from a branch's target to the branch: of the shortest loop that has at least half of the kernel's
    tensor-core instructions. What is done beside it (odd shapes, last steps, other segments) has loops of its own."""
    place = {address: number for number, (address, _) in enumerate(body)}
    products = [number for number, (_, code) in enumerate(body) if "HMMA" in code]
    loops = []
    for number, (_, code) in enumerate(body):
        target = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", code)
        first = place.get(int(target[1], 16), number) if target else number
        if first < number and 2 * sum(first <= product <= number for product in products) >= len(products):
            loops.append(number - first + 1)
    return min(loops, default=0)


def instructions(count: Count, code: dict[str, list[tuple[int, str]]]) -> float:
    body = code[count.kernel]
    return main_loop(body) / count.pieces if count.pieces else len(body)


def instructions_of(plugin: Path, cuobjdump: str, count: Count) -> float:
    return instructions(count, dict(bodies(dump(cuobjdump, plugin, "-sass", "-arch", LOOPS_OF))))


def blocks_held(card: Card, usage: Usage, threads: int, dynamic_bytes: int) -> int:
    warps = threads // 32
    registers_of_warp = -(-usage.registers * 32 // 256) * 256
    by_registers = REGISTERS // registers_of_warp // 4 * 4 // warps  # the four parts of a multiprocessor are alike
    by_shared = card.shared_bytes // (usage.shared_bytes + dynamic_bytes + SHARED_PER_BLOCK)
    return min(card.blocks, card.warps // warps, by_registers, by_shared)


def table(plugin: Path, cuobjdump: str) -> tuple[list[str], list[str]]:
    """The lines of the document, and what is over a ceiling."""
    of_arch = usages(dump(cuobjdump, plugin, "-res-usage"))
    threads = threads_of(dump(cuobjdump, plugin, "-ptx"))
    code = dict(bodies(dump(cuobjdump, plugin, "-sass", "-arch", LOOPS_OF)))
    faults = [
        f"{kernel} keeps {usage.stack_bytes} bytes of registers in memory on {arch}"
        for arch, kernels in of_arch.items()
        for kernel, usage in kernels.items()
        if usage.stack_bytes
    ]
    kernels_in_all = len(of_arch[LOOPS_OF])
    lines = [
        f"{kernels_in_all} kernels; none keeps registers in memory (spills) on any of the six kinds of card. Of those",
        "that take the real model's time: registers of a thread, and how many of its blocks (and warps) a",
        "multiprocessor holds.",
        "",
        "| kernel | what | threads | " + " | ".join(f"{arch} ({card.names})" for arch, card in CARDS.items()) + " |",
        "| --- | --- | --- |" + " --- |" * len(CARDS),
    ]
    if faults:
        lines[0] = f"{kernels_in_all} kernels; {len(faults)} times one keeps registers in memory (spills). Of those"
    for kernel, (what, dynamic_bytes) in KERNELS.items():
        cells = []
        for arch, card in CARDS.items():
            usage = of_arch[arch][kernel]
            blocks = blocks_held(card, usage, threads[kernel], dynamic_bytes)
            cells.append(f"{usage.registers}, {blocks} ({blocks * threads[kernel] // 32})")
        lines.append(f"| `{kernel}` | {what} | {threads[kernel]} | " + " | ".join(cells) + " |")
    lines += ["", f"Instructions ({LOOPS_OF}), with the ceilings that a test holds:", "",
              "| kernel | instructions of | before | counted | at most |",
              "| --- | --- | --- | --- | --- |"]  # fmt: skip
    for count in COUNTS:
        counted = instructions(count, code)
        lines.append(f"| `{count.kernel}` | {count.of} | {count.before or '-'} | {counted:.0f} | {count.most} |")
        if counted > count.most:
            faults.append(f"{count.kernel}: {counted:.0f} instructions for {count.of}, at most {count.most} are wanted")
    return lines, faults


def install_tools() -> bool:
    """NVIDIA's programs from PyPI, where no CUDA toolkit has them."""
    pip = [str(TOOLS / "bin/python"), "-m", "pip", "install", "-q", "nvidia-cuda-cuobjdump", "nvidia-cuda-nvdisasm"]
    return all(subprocess.run(step).returncode == 0 for step in ([sys.executable, "-m", "venv", str(TOOLS)], pip))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plugin", type=Path, default=PLUGIN)
    parser.add_argument("--check", action="store_true", help="only say what is over a ceiling; status 1 if anything is")
    parser.add_argument("--install", action="store_true", help="cuobjdump from PyPI, if there is none")
    arguments = parser.parse_args()
    if arguments.install and not find_cuobjdump() and not install_tools():
        return 2
    cuobjdump = find_cuobjdump()
    if not cuobjdump:
        print("cuda_model.py: cuobjdump is not installed (make cuda-model gets it)", file=sys.stderr)
        return 2
    lines, faults = table(arguments.plugin, cuobjdump)
    print("\n".join(faults if arguments.check else lines))
    if not arguments.check:
        before, _, rest = DOCUMENT.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        DOCUMENT.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n\n" + END + after)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
