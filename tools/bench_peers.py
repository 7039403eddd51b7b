"""Times lanced's CPU operators beside PyTorch's and llama.cpp's on this machine: `make bench-peers`.

The peers come from PyPI into an environment of their own (build/peers, or --environment): torch, and the sources of
llama-cpp-python, whose ggml alone is compiled (by cmake); --no-llama leaves that out. Rounds are interleaved: in each,
every form of lance-bench runs all its cases once, then every peer does, so that what else the machine does meets all of
them. The table has the medians of the rounds, and how fast ours is beside them.

--busy asks another question, of some operators: what a program that is busy on every core costs ours, and PyTorch.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TORCH = "torch==2.13.0"
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
OURS = {
    "avx2": ["--isa", "avx2", "--precision", "float32"],
    "avx512": ["--isa", "avx512", "--precision", "float32"],
    "bf16": ["--precision", "bf16"],
}
# What a case of lance-bench is compared with: rows, inputs, outputs for ggml; PyTorch takes all of operators.py's.
GGML_SHAPES = {
    "gemv-f32": (1, 2048, 11008, "f32"),
    "gemv-awq-g128": (1, 2048, 11008, "q4_0"),
    "gemv-awq-down": (1, 11008, 2048, "q4_0"),
    "gemv-awq-4-rows": (4, 2048, 11008, "q4_0"),
    "gemv-awq-16-rows": (16, 2048, 11008, "q4_0"),
    "linear-awq-prompt": (48, 2048, 11008, "q4_0"),
    "linear-awq-g128": (512, 2048, 11008, "q4_0"),
    "linear-awq-down": (512, 11008, 2048, "q4_0"),
}
BUSY_CASES = ("linear-f32", "linear-awq-g128", "attention-image", "conv-3x3x3-1024")  # of many turns on a core each
Times = dict[str, list[float]]  # milliseconds of each round, by case


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown processor")


def has_flag(flag: str) -> bool:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return any(line.startswith("flags") and flag in line.split() for line in lines)


def make_ggml_bench(folder: Path, python: Path) -> Path:
    """The program that times ggml, with the libraries it needs; compiled where it is not there yet."""
    program, libraries = folder / "ggml_bench", folder / "ggml/src"
    if program.exists():
        return program
    download = ["download", "-q", "--no-deps", "--no-binary", "llama-cpp-python", "-d", str(folder / "source")]
    if not list(folder.glob("source/*.tar.gz")):
        subprocess.run([python, "-m", "pip", *download, "llama-cpp-python"], check=True)
    archive = next(folder.glob("source/*.tar.gz"))
    shutil.unpack_archive(archive, folder / "source", filter="data")
    ggml = archive.with_name(archive.name.removesuffix(".tar.gz")) / "vendor/llama.cpp/ggml"
    (ggml / "ggml.pc.in").touch()  # the archive lacks it
    leave_out = ["-DGGML_BUILD_TESTS=OFF", "-DGGML_BUILD_EXAMPLES=OFF"]
    configure = ["cmake", "-S", str(ggml), "-B", str(folder / "ggml"), "-DCMAKE_BUILD_TYPE=Release", *leave_out]
    subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
    build = ["cmake", "--build", str(folder / "ggml"), "-j", str(os.cpu_count() or 1)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    compile_ = ["g++", "-O3", f"-I{ggml}/include", str(ROOT / "tools/peers/ggml_bench.cpp"), "-o", str(program)]
    compile_ += [f"-L{libraries}", "-lggml", "-lggml-cpu", "-lggml-base", f"-Wl,-rpath,{libraries}"]
    subprocess.run(compile_, check=True)
    return program


def prepare(folder: Path, with_llama: bool) -> tuple[Path, Path | None]:
    """The environment's Python, and the program that times ggml."""
    folder = folder.resolve()
    python = folder / "bin/python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "-q", TORCH, "numpy"], check=True)
    if not with_llama:
        return python, None
    try:
        return python, make_ggml_bench(folder, python)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"llama.cpp is left out: {error}", file=sys.stderr)
        return python, None


def note(times: Times, name: str, milliseconds: float) -> None:
    times.setdefault(name, []).append(milliseconds)


def run_ours(arguments: list[str], seconds: float, times: Times, limits: dict[str, float]) -> None:
    command = [str(ROOT / "build/lance-bench"), "--json", "--seconds", str(seconds), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise RuntimeError(ended.stderr.strip())
    answer: dict[str, Any] = json.loads(ended.stdout)
    limits["gflops"] = max(limits.get("gflops", 0.0), answer["machine_gflops"])
    limits["read"] = max(limits.get("read", 0.0), answer["machine_read_gbs"])
    for case in answer["cases"]:
        note(times, case["name"], case["ms"])
        limits[case["name"]] = case.get("gflops", case.get("gbs", 0.0)) * case["ms"]  # work: millions of it


def run_torch(
    python: Path, environment: dict[str, str], precision: str, threads: int, times: Times, cases: tuple[str, ...] = ()
) -> None:
    command = [str(python), str(ROOT / "tools/peers/operators.py"), precision, str(threads), *cases]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | environment).stdout
    for name, milliseconds in json.loads(answer).items():
        note(times, name, milliseconds)


def run_ggml(program: Path, threads: int, times: Times) -> None:
    """Its kernels for reordered weights, or the usual ones where those end with an illegal instruction."""
    for name, (rows, inputs, outputs, kind) in GGML_SHAPES.items():
        command = [str(value) for value in (program, threads, inputs, outputs, rows, kind)]
        for repack in (["repack"], []) if kind == "q4_0" else ([],):
            ended = subprocess.run([*command, *repack], capture_output=True, text=True, check=False)
            if ended.returncode == 0:
                note(times, name, float(ended.stdout))
                break


def middle(times: Times, name: str) -> float | None:
    return statistics.median(times[name]) if name in times else None


def cell(milliseconds: float | None, digits: int = 3) -> str:
    return "–" if milliseconds is None else f"{milliseconds:.{digits}g}"


def ratio(peer: float | None, ours: float | None) -> str:
    return "–" if peer is None or ours is None else f"{peer / ours:.2f}"


def share(limits: dict[str, float], name: str, milliseconds: float | None) -> str:
    if milliseconds is None or name not in limits:
        return "–"
    limit = limits["read" if name.startswith("gemv") else "gflops"]
    return f"{100 * limits[name] / milliseconds / limit:.0f} %" if limit else "–"


def print_table(columns: dict[str, Times], limits: dict[str, dict[str, float]]) -> None:
    peers = [name for name in columns if name not in OURS]
    ours = [name for name in columns if name in OURS]
    heads = [f"{name} ms (of its limit)" for name in ours] + [f"{name} ms" for name in peers] + ["ours / peer"]
    print("| operator | " + " | ".join(heads) + " |\n|---|" + "---|" * len(heads))
    names = [name for name in columns[ours[0]] if any(name in columns[peer] for peer in peers)]
    best = "avx512" if "avx512" in ours else "avx2"
    pairs = {"torch-float32-avx2": "avx2", "torch-float32": best, "torch-bf16": "bf16"}
    for name in names:
        row = []
        for form in ours:
            value = middle(columns[form], name)
            row.append(f"{cell(value)} ({share(limits[form], name, value)})")
        row += [cell(middle(columns[peer], name)) for peer in peers]
        shown = [
            f"{ratio(middle(columns[peer], name), middle(columns[pairs.get(peer, best)], name))} ({peer})"
            for peer in peers
            if name in columns[peer] and pairs.get(peer, best) in ours
        ]
        print(f"| {name} | " + " | ".join(row) + " | " + ", ".join(shown) + " |")


def compare_when_busy(python: Path, rounds: int, seconds: float, threads: int) -> None:
    """In each round both alone, then both beside the busy loops."""
    alone: dict[str, Times] = {"ours": {}, "torch": {}}
    beside: dict[str, Times] = {"ours": {}, "torch": {}}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        for columns, loops in ((alone, 0), (beside, os.cpu_count() or 1)):
            others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
            try:
                for case in BUSY_CASES:
                    arguments = [*OURS["avx2"], "--threads", str(threads), "--filter", case]
                    run_ours(arguments, seconds, columns["ours"], {})
                run_torch(python, AVX2, "float32", threads, columns["torch"], BUSY_CASES)
            finally:
                for other in others:
                    other.kill()
                    other.wait()
    print(f"{processor()}, {threads} threads, a busy loop for each core; medians of {rounds} interleaved rounds.\n")
    print("| operator | ours ms | beside | torch ms | beside | slower: ours | torch | ours / torch |")
    print("|---|" + "---|" * 7)
    for case in BUSY_CASES:
        ours, ours_beside, torch, torch_beside = (
            statistics.median(columns[who][case]) for who in ("ours", "torch") for columns in (alone, beside)
        )
        lost, torch_lost = ours_beside / ours, torch_beside / torch
        print(
            f"| {case} | {ours:.1f} | {ours_beside:.1f} | {torch:.1f} | {torch_beside:.1f} | "
            f"{lost:.2f} | {torch_lost:.2f} | {lost / torch_lost:.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, default=ROOT / "build/peers", help="where the peers are installed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.2, help="for each of our cases in each round")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--no-llama", action="store_true")
    parser.add_argument("--busy", action="store_true", help="what busy loops on every core cost ours and PyTorch")
    args = parser.parse_args()
    python, ggml = prepare(args.environment, not (args.no_llama or args.busy))
    threads = args.threads
    if args.busy:
        compare_when_busy(python, args.rounds, args.seconds, threads)
        return
    forms = {"avx2": has_flag("avx2"), "avx512": has_flag("avx512_vnni"), "bf16": has_flag("avx512_bf16")}
    columns: dict[str, Times] = {name: {} for name, there in forms.items() if there}
    limits: dict[str, dict[str, float]] = {name: {} for name in columns}
    torch: dict[str, tuple[dict[str, str], str]] = {"torch-float32-avx2": (AVX2, "float32")}
    torch["torch-float32"] = ({}, "float32")
    if forms["bf16"]:  # elsewhere PyTorch computes it in scalars, for minutes a product
        torch["torch-bf16"] = ({}, "bf16")
    columns |= {name: {} for name in torch} | ({"llama.cpp": {}} if ggml else {})
    for number in range(args.rounds):
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr, flush=True)
        for form in limits:
            run_ours([*OURS[form], "--threads", str(threads)], args.seconds, columns[form], limits[form])
        for name, (environment, precision) in torch.items():
            run_torch(python, environment, precision, threads, columns[name])
        if ggml:
            run_ggml(ggml, threads, columns["llama.cpp"])
    print(f"{processor()}, {threads} threads; medians of {args.rounds} interleaved rounds.")
    for form, of in limits.items():
        print(f"Limits beside {form}: {of['gflops']:.0f} GFLOP/s of multiply-adds, {of['read']:.1f} GB/s read.")
    print()
    print_table(columns, limits)


if __name__ == "__main__":
    main()
