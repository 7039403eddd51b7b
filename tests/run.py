"""Runs the tests and counts them: `make test`, `make test-deep`, or `python tests/run.py --only unit,golden`.

Stages of `make test`, which is everything that a user could miss:
  lint    ruff and mypy over all Python files
  unit    the C unit tests (cmocka), but for the CUDA backend's
  golden  the engine against results recorded from the official code
  python  the Python client, the nodes, and whole programs against each other (pytest)

Stages of `make test-deep`, which look at the same code more closely and take several times as long:
  clang   every C file once more through clang, warnings as errors
  nvcc    the CUDA backend through nvcc, for every kind of card; skipped where nvcc is missing
  card    whole jobs on the CUDA backend, whose kernels are emulated on the CPU; the rest of its unit tests in asan
  emulated  a few recorded results through those kernels, and how many of them a step and a token take
  asan    all other unit tests, built with the address and undefined-behaviour sanitizers
  tsan    those with threads of their own, built with the thread sanitizer; also the emulated card's, and what its
          kernels ask of memory
  python-deep  the tests of tests/e2e and tests/farm that are marked "deep", and the long forms of those marked
          "long_form"

`--all` runs both, one after the other, as .ci/run does. Programs that do not depend on each other run --jobs at a time.
Prints what failed and what was skipped, and closes with one line: "N passed, N failed, N skipped".
"""

from __future__ import annotations

import argparse
import os
import re
import resource
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
# Of the unit tests, those that take longest: they begin first, so that none of them runs alone at the end.
LONGEST_TESTS = (
    "test_server", "test_server_connections", "test_server_process", "test_job", "test_prefix_cache", "test_releases",
    "test_cuda_graph", "test_cuda_memory",
)
# Slow under the thread sanitizer, and what they test starts no thread (libav's own, in tests of videos, it cannot
# judge).
SINGLE_THREADED_TESTS = (
    "test_animation", "test_assemble", "test_damaged_media", "test_media", "test_picture", "test_pth", "test_releases",
    "test_tokenizer", "test_video_colours",
)
# Minutes under the thread sanitizer, and their only threads are those of the kernels, which test_kernels_*, test_vae,
# test_vit and test_sampler run as well.
TESTS_OF_WHOLE_JOBS = ("test_job", "test_latents", "test_prefix_cache", "test_resume", "test_stages")
# Whole jobs on the emulated card: minutes with a sanitizer, and each kernel has tests of its own.
CUDA_JOBS = ("test_cuda_stages", "test_cuda_tap")
# Of the emulated card's tests, those whose kernels share no memory between threads, or whose kernels others test.
CUDA_TESTS_WITHOUT_RACES = ("test_cuda_elementwise", "test_cuda_graph", "test_cuda_lost", "test_cuda_memory",
                            "test_cuda_model", "test_cuda_plugin")
# How long those tests that have a long form run in it.
LONG_FORMS = {"LANCED_STRESS_SECONDS": "60", "LANCED_LONG_LINE": "1"}
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


def names_of_unit_tests() -> list[str]:
    names = sorted(path.stem for path in (ROOT / "tests/unit").glob("test_*.c"))
    return [name for name in LONGEST_TESTS if name in names] + [name for name in names if name not in LONGEST_TESTS]


def is_cuda_test(name: str) -> bool:
    return name.startswith("test_cuda_")


def unit_tests(jobs: int, names: list[str], sanitizer: str = "") -> Count:
    """Builds and runs programs of tests/unit."""
    build = "build" + (f"-{sanitizer.replace(',', '-')}" if sanitizer else "")
    status, output = make(f"SAN={sanitizer}", *(f"{build}/tests/unit/{name}" for name in names), jobs=jobs)
    if status != 0:
        print(output[-8000:])
        return Count(failed=[f"{build}: does not build"])
    # The thread sanitizer of gcc 12 cannot place its memory where addresses are randomised over more than 28 bits.
    prefix = ["setarch", "-R"] if sanitizer == "thread" and run(["setarch", "-R", "true"])[0] == 0 else []

    def run_program(name: str) -> tuple[int, str, float]:
        started = time.monotonic()
        status, output = run([*prefix, f"{build}/tests/unit/{name}"], CMOCKA_MESSAGE_OUTPUT="TAP",
                             LSAN_OPTIONS="suppressions=tests/leaks_of_others.txt:print_suppressions=0",
                             UBSAN_OPTIONS="print_stacktrace=1", TSAN_OPTIONS="second_deadlock_stack=1")
        return status, output, time.monotonic() - started

    count = Count()
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        for name, (status, output, seconds) in zip(names, pool.map(run_program, names), strict=True):
            one = parse_tap(f"{name} ({sanitizer})" if sanitizer else name, status, output)
            print(f"  {name}: {one} ({seconds:.1f} s)", flush=True)
            count.add(one)
    return count


def unit(jobs: int) -> Count:
    return unit_tests(jobs, [name for name in names_of_unit_tests() if not is_cuda_test(name)])


def card(jobs: int) -> Count:
    return unit_tests(jobs, list(CUDA_JOBS))


def asan(jobs: int) -> Count:
    return unit_tests(jobs, [name for name in names_of_unit_tests() if name not in CUDA_JOBS], "address,undefined")


def accesses(plugin: str) -> Count:
    return one_check("tsan: conflicts in shared memory (tools/cuda_accesses.py)",
                     [sys.executable, "tools/cuda_accesses.py", "--check", "--plugin", plugin])


def tsan(jobs: int) -> Count:
    left_out = SINGLE_THREADED_TESTS + TESTS_OF_WHOLE_JOBS + CUDA_TESTS_WITHOUT_RACES + CUDA_JOBS
    # The same kernels' objects once more, with a recorder of their accesses in the sanitizer's place; one thread's work
    # for half a minute, beside the tests.
    plugin = "build-thread/tests/liblanced_cuda_accesses.so"
    count = one_check("tsan: the plugin that records accesses",
                      ["make", "--no-print-directory", f"-j{jobs}", "SAN=thread", plugin])
    with ThreadPoolExecutor(max_workers=1) as beside:
        recorded = None if count.failed else beside.submit(accesses, plugin)
        count.add(unit_tests(jobs, [name for name in names_of_unit_tests() if name not in left_out], "thread"))
        if recorded:
            count.add(recorded.result())
    return count


def lint(jobs: int) -> Count:
    del jobs
    count = one_check("ruff", [sys.executable, "-m", "ruff", "check", "."])
    count.add(one_check("mypy", [sys.executable, "-m", "mypy", "."]))
    return count


def clang(jobs: int) -> Count:
    # Its warnings need no optimisation, which takes most of the time.
    command = ["make", "--no-print-directory", f"-j{jobs}", "objects", "CC=clang", "CFLAGS=-O0", "BUILD=build-clang"]
    return one_check("clang", command)


def nvcc(jobs: int) -> Count:
    if not shutil.which(os.environ.get("NVCC", "nvcc")):
        return Count(skipped=["nvcc: liblanced_cuda.so (nvcc is not installed)"])
    plugin = "build/cuda/liblanced_cuda.so"  # not where lanced looks for it
    count = one_check("nvcc", ["make", "--no-print-directory", f"-j{jobs}", "cuda", f"CUDA_PLUGIN={plugin}"])
    if count.failed:
        return count
    status, output = run([sys.executable, "tools/cuda_model.py", "--install", "--check", "--plugin", plugin])
    if status == 2:
        count.skipped.append("nvcc: what its machine code holds (cuobjdump is not there, and cannot be installed)")
    elif status != 0:
        print(output)
        count.failed.append("nvcc: machine code over a ceiling (tools/cuda_model.py)")
    else:
        count.passed += 1
    return count


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
    count = count_golden("golden", *run(["make", "--no-print-directory", "check-golden", f"GOLDEN={GOLDEN_DATA}"]))
    for isa in ("amx-emulated", "avx512-bf16-emulated"):
        command = ["build/tests/check-golden", str(GOLDEN_DATA), "--precision", "bf16", "--isa", isa]
        count.add(count_golden(f"golden-{isa}", *run(command)))
    return count


def emulated(jobs: int) -> Count:
    plugin = "build/tests/liblanced_cuda_emulated.so"
    counting = ("build/lance-bench", "build/random-checkpoint", "build/tests/cudnn/libcudnn.so.9",
                "build/tests/cublaslt/libcublasLt.so.12")
    status, output = run(["make", "--no-print-directory", f"-j{jobs}", "build/tests/check-golden", plugin, *counting])
    if status != 0:
        print(output)
        return Count(failed=["emulated: make ended with an error"])

    def check(case: str) -> Count:
        return count_golden(f"emulated-{case}",
                            *run(["build/tests/check-golden", str(GOLDEN_DATA), "--only", case, "--backend", "cuda"],
                                 LANCED_CUDA_PLUGIN=str(ROOT / plugin), LANCED_EMULATION_STREAMS="early"))

    count = Count()
    with ThreadPoolExecutor(max_workers=jobs) as pool:  # one thread of the machine each
        cases = [pool.submit(check, case) for case in EMULATED_CASES]
        counts = pool.submit(one_check, "emulated: kernels of a step or a token over a ceiling (tools/cuda_counts.py)",
                             [sys.executable, "tools/cuda_counts.py", "--check"])
        for one in (*cases, counts):
            count.add(one.result())
    return count


def pytest(stage: str, workers: int, folders: list[str], marked: str, **environment: str) -> Count:
    """The tests of these folders whose marks fit; pytest's own report is build/STAGE.xml. Most of these tests wait for
    something more than they compute: one worker more than there are processors is right. 0: none besides pytest."""
    count = Count()
    report = ROOT / f"build/{stage}.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-c", "tests/pytest.ini", "-q", "-rf", f"--junitxml={report}"]
    command += ["-n", str(workers), "--dist", "loadfile"]  # the tests of a file stay together, on one worker
    status, output = run([*command, "-m", marked, *folders], **environment)
    print(output)
    if not report.exists():
        return Count(failed=[f"{stage}: pytest ended with status {status}"])
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
        count.failed.append(f"{stage}: pytest ended with status {status}")
    return count


def python_tests(jobs: int) -> Count:
    count = pytest("python", jobs + 1, ["tests/python", "tests/e2e", "tests/farm"], "not deep")
    if os.environ.get("COMFYUI"):
        count.add(pytest("comfyui", 0, ["tests/comfyui"], "not deep"))
    else:
        count.skipped.append("tests/comfyui: all (no COMFYUI given; make test-comfyui COMFYUI=DIR runs them)")
    return count


def python_deep(jobs: int) -> Count:
    folders = ["tests/e2e", "tests/farm"]
    return pytest("python-deep", jobs + 1, folders, "deep or long_form", **(LONG_FORMS | os.environ))


def processor_seconds() -> float:
    """What the processes took that this one started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def group_by_reason(skipped: list[str]) -> dict[str, list[str]]:
    """"name (reason)" of every skipped test, by reason."""
    groups: dict[str, list[str]] = {}
    for entry in skipped:
        name, _, reason = entry.partition(" (")
        groups.setdefault(f"({reason}", []).append(name)
    return groups


STAGES: dict[str, Callable[[int], Count]] = {"lint": lint, "unit": unit, "golden": golden, "python": python_tests}
DEEP_STAGES: dict[str, Callable[[int], Count]] = {
    "clang": clang,
    "nvcc": nvcc,
    "card": card,
    "emulated": emulated,
    "asan": asan,
    "tsan": tsan,
    "python-deep": python_deep,
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs the tests and checks of make test.")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--deep", action="store_true", help="those of make test-deep instead")
    choice.add_argument("--all", action="store_true", help="both")
    choice.add_argument("--only", metavar="STAGES", help=f"some of {','.join(STAGES | DEEP_STAGES)}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2, help="compilers and programs at a time")
    arguments = parser.parse_args()
    known = STAGES | DEEP_STAGES
    stages = list(known if arguments.all else DEEP_STAGES if arguments.deep else STAGES)
    if arguments.only:
        stages = arguments.only.split(",")
    if unknown := [stage for stage in stages if stage not in known]:
        parser.error(f"no stage {unknown[0]}; there are {', '.join(known)}")

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
        before, processor_before = time.monotonic(), processor_seconds()
        count = known[stage](arguments.jobs)
        seconds, processor = time.monotonic() - before, processor_seconds() - processor_before
        print(f"== {stage}: {count} in {seconds:.0f} s ({processor:.0f} s of processor time)", flush=True)
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
