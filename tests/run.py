"""Runs every test and check, and counts them: `make test`, or `python tests/run.py --only unit,golden`.

Stages, in this order:
  lint    ruff and mypy over all Python files
  clang   every C file once more through clang, warnings as errors
  nvcc    the CUDA backend through nvcc, for every kind of card; skipped where nvcc is missing
  unit    the C unit tests (cmocka)
  asan    the same, built with the address and undefined-behaviour sanitizers
  tsan    those with threads of their own, built with the thread sanitizer; also the emulated card's
  golden  the engine against results recorded from the official code
  emulated  a few of them through the CUDA backend's kernels, emulated on the CPU
  python  the Python client, the nodes, and whole programs against each other (pytest)

Prints what failed and what was skipped, and closes with one line: "N passed, N failed, N skipped".
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GOLDEN_DATA = Path("tests/golden/data")
STAGE_LIMIT_SECONDS = 1800
# Slow under the thread sanitizer, and what they test starts no thread (libav's own, in test_media, it cannot judge).
SINGLE_THREADED_TESTS = ("test_assemble", "test_media", "test_picture", "test_pth", "test_releases", "test_tokenizer")
# Minutes under the thread sanitizer, and their only threads are those of the kernels, as test_job's are.
ENGINE_TESTS_LIKE_TEST_JOB = ("test_latents", "test_prefix_cache")
# Of the emulated card's tests, those whose kernels share no memory between threads, or whose kernels others test.
CUDA_TESTS_WITHOUT_RACES = ("test_cuda_elementwise", "test_cuda_graph", "test_cuda_lost", "test_cuda_memory",
                            "test_cuda_model", "test_cuda_plugin")
# The quickest recorded cases that together go through every part: the ViT, a prefix, denoising, the VAE, an answer.
EMULATED_CASES = ("t2i_nocfg.f32", "t2i_a.awq_g64.f32", "x2t_image_a.f32")


@dataclass
class Count:
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def add(self, other: Count) -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def __str__(self) -> str:
        return f"{self.passed} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"


def run(command: list[str], **environment: str) -> tuple[int, str]:
    """Exit status and output of a command run in the repository root; a program that hangs is ended and says so."""
    try:
        done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=STAGE_LIMIT_SECONDS)
    except subprocess.TimeoutExpired as expired:
        output = (expired.stdout or b"").decode(errors="replace")
        return 124, f"{output}\n(ended after {STAGE_LIMIT_SECONDS} s)"
    return done.returncode, done.stdout.decode(errors="replace")


def one_check(name: str, command: list[str]) -> Count:
    """A command that passes or fails as a whole."""
    status, output = run(command)
    if status == 0:
        return Count(passed=1)
    print(output)
    return Count(failed=[name])


def make(*arguments: str, jobs: int) -> tuple[int, str]:
    return run(["make", "--no-print-directory", f"-j{jobs}", *arguments])


def parse_tap(program: str, status: int, output: str) -> Count:
    """Counts of a cmocka program that reported in TAP. A crash, or a program without tests, is a failure."""
    count = Count()
    for line in output.splitlines():
        if match := re.match(r"(not )?ok \d+ ?(.*)", line):
            name = match[2].lstrip("-# ").strip()
            if "# SKIP" in line:
                count.skipped.append(f"{program}: {name.removeprefix('SKIP').strip()}")
            elif match[1]:
                count.failed.append(f"{program}: {name}")
            else:
                count.passed += 1
    if status != 0 and not count.failed:
        count.failed.append(f"{program}: ended with status {status}")
    if status == 0 and count.passed + len(count.skipped) == 0:
        count.failed.append(f"{program}: ran no test")
    if count.failed:
        print(output[-8000:])
    return count


def unit_tests(jobs: int, sanitizer: str = "", leave_out: tuple[str, ...] = ()) -> Count:
    """Builds and runs tests/unit."""
    names = sorted(path.stem for path in (ROOT / "tests/unit").glob("test_*.c"))
    names = [name for name in names if name not in leave_out]
    build = "build" + (f"-{sanitizer.replace(',', '-')}" if sanitizer else "")
    programs = [f"{build}/tests/unit/{name}" for name in names]
    status, output = make(f"SAN={sanitizer}", *programs, jobs=jobs)
    if status != 0:
        print(output[-8000:])
        return Count(failed=[f"{build}: does not build"])
    # The thread sanitizer of gcc 12 cannot place its memory where addresses are randomised over more than 28 bits.
    prefix = ["setarch", "-R"] if sanitizer == "thread" and run(["setarch", "-R", "true"])[0] == 0 else []
    count = Count()
    for name, program in zip(names, programs, strict=True):
        started = time.monotonic()
        status, output = run([*prefix, f"./{program}"], CMOCKA_MESSAGE_OUTPUT="TAP",
                             LSAN_OPTIONS="suppressions=tests/leaks_of_others.txt:print_suppressions=0",
                             UBSAN_OPTIONS="print_stacktrace=1", TSAN_OPTIONS="second_deadlock_stack=1")
        one = parse_tap(f"{name} ({sanitizer})" if sanitizer else name, status, output)
        print(f"  {name}: {one} ({time.monotonic() - started:.1f} s)", flush=True)
        count.add(one)
    return count


def lint(jobs: int) -> Count:
    del jobs
    count = one_check("ruff", [sys.executable, "-m", "ruff", "check", "."])
    count.add(one_check("mypy", [sys.executable, "-m", "mypy", "."]))
    return count


def clang(jobs: int) -> Count:
    return one_check("clang", ["make", "--no-print-directory", f"-j{jobs}", "objects", "CC=clang", "BUILD=build-clang"])


def nvcc(jobs: int) -> Count:
    if not shutil.which(os.environ.get("NVCC", "nvcc")):
        return Count(skipped=["nvcc: liblanced_cuda.so (nvcc is not installed)"])
    return one_check("nvcc", ["make", "--no-print-directory", f"-j{jobs}", "cuda",
                              "CUDA_PLUGIN=build/cuda/liblanced_cuda.so"])  # not where lanced looks for it


def count_golden(stage: str, status: int, output: str) -> Count:
    """What check-golden printed; every line of it goes to build/STAGE.txt."""
    (ROOT / f"build/{stage}.txt").write_text(output)
    print(f"  every line is in build/{stage}.txt")
    match = re.search(r"^(\d+) passed, (\d+) failed", output, re.MULTILINE)
    if not match:
        return Count(failed=[f"{stage}: check-golden ended with status {status} and no count"])
    failed = [" ".join(line.split()) for line in output.splitlines() if re.search(r"\bFAIL", line)][: int(match[2])]
    count = Count(passed=int(match[1]), failed=[f"{stage}: {line}" for line in failed])
    count.failed += [f"{stage}: see build/{stage}.txt"] * (int(match[2]) - len(failed))
    if status != 0 and not count.failed:
        count.failed.append(f"{stage}: check-golden ended with status {status}")
    return count


def golden(jobs: int) -> Count:
    del jobs
    return count_golden("golden", *run(["make", "--no-print-directory", "check-golden", f"GOLDEN={GOLDEN_DATA}"]))


def emulated(jobs: int) -> Count:
    plugin = "build/tests/liblanced_cuda_emulated.so"
    status, output = run(["make", "--no-print-directory", f"-j{jobs}", "build/tests/check-golden", plugin])
    if status != 0:
        print(output)
        return Count(failed=["emulated: make ended with an error"])
    def check(case: str) -> Count:
        return count_golden(f"emulated-{case}",
                            *run(["build/tests/check-golden", str(GOLDEN_DATA), "--only", case, "--backend", "cuda"],
                                 LANCED_CUDA_PLUGIN=str(ROOT / plugin), LANCED_EMULATION_STREAMS="early"))

    count = Count()
    with ThreadPoolExecutor(max_workers=jobs) as pool:  # one thread of the machine each
        for one in pool.map(check, EMULATED_CASES):
            count.add(one)
    return count


def python_tests(jobs: int) -> Count:
    del jobs
    folders = ["tests/python", "tests/e2e"]
    count = Count()
    if os.environ.get("COMFYUI"):
        folders.append("tests/comfyui")
    else:
        count.skipped.append("tests/comfyui: all (no COMFYUI given; make test-comfyui COMFYUI=DIR runs them)")
    report = ROOT / "build/pytest.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-c", "tests/pytest.ini", "-q", "-rf", f"--junitxml={report}"]
    status, output = run([*command, *folders])
    print(output)
    if not report.exists():
        return Count(failed=[f"pytest: ended with status {status}"])
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}: {case.get('name')}"
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            count.failed.append(name)
        elif skip is not None:
            count.skipped.append(f"{name} ({skip.get('message')})")
        else:
            count.passed += 1
    if status != 0 and not count.failed:
        count.failed.append(f"pytest: ended with status {status}")
    return count


def group_by_reason(skipped: list[str]) -> dict[str, list[str]]:
    """"name (reason)" of every skipped test, by reason."""
    groups: dict[str, list[str]] = {}
    for entry in skipped:
        name, _, reason = entry.partition(" (")
        groups.setdefault(f"({reason}", []).append(name)
    return groups


STAGES: dict[str, Callable[[int], Count]] = {
    "lint": lint,
    "clang": clang,
    "nvcc": nvcc,
    "unit": unit_tests,
    "asan": lambda jobs: unit_tests(jobs, "address,undefined"),
    "tsan": lambda jobs: unit_tests(
        jobs, "thread", SINGLE_THREADED_TESTS + ENGINE_TESTS_LIKE_TEST_JOB + CUDA_TESTS_WITHOUT_RACES),
    "golden": golden,
    "emulated": emulated,
    "python": python_tests,
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs every test and check.")
    parser.add_argument("--only", default=",".join(STAGES), help="stages, with commas between them: %(default)s")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2, help="compilers at a time")
    arguments = parser.parse_args()
    stages = arguments.only.split(",")
    if unknown := [stage for stage in stages if stage not in STAGES]:
        parser.error(f"no stage {unknown[0]}; there are {', '.join(STAGES)}")

    started = time.monotonic()
    total = Count()
    print("== build", flush=True)
    status, output = make("all", jobs=arguments.jobs)
    if status != 0:
        print(output)
        total.failed.append("build: make all")
        stages = []
    for stage in stages:
        print(f"== {stage}", flush=True)
        before = time.monotonic()
        count = STAGES[stage](arguments.jobs)
        print(f"== {stage}: {count} in {time.monotonic() - before:.0f} s", flush=True)
        total.add(count)

    for reason, names in group_by_reason(total.skipped).items():
        print(f"skipped: {len(names)} of {names[0].split(':')[0]} {reason}")
    for name in total.failed:
        print(f"failed: {name}")
    print(f"All stages took {time.monotonic() - started:.0f} s.")
    print(total, flush=True)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
