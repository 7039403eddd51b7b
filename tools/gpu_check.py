"""Checks and measures the CUDA backend on this machine's card: `make gpu-check`.

    python3 tools/gpu_check.py [--quick] [--sections NAME,...] [--resume] [--golden DIR]... [--programs DIR]
                               [--plugin FILE] [--models DIR] [--lance-source DIR] [--python FILE] [--out DIR]

Sections, in this order, so that the first minutes on a card answer the most; all but the last two by default:
  bench      lance-bench --backend cuda: products of few rows and attention of one row, which are what a token
             takes
  tasks      a picture and an answer at the size of Lance-3B, random NVFP4 weights (lance-bench --tasks)
  tasks-no-graphs  the same with kernels launched one by one (LANCED_CUDA_GRAPHS=off)
  bench-all  all of lance-bench --backend cuda, with and without cuBLASLt and cuDNN
  operators  every operator beside the CPU backend (the programs test_cuda_*; attention and products also
             without these libraries)
  goldens    the recorded results of the official code (check-golden --backend cuda)
  sanitizer  the operators once more under compute-sanitizer, where that is installed
  tasks-bf16   the same with bf16 weights
  tasks-video  a video, NVFP4 weights; minutes, so only when it is asked for
  peer       the official PyTorch pipeline (peer_pytorch.py, --lance-source) and lance-bench --tasks, the same
             bf16 weights and picture in one run; needs PyTorch in --python
Checkpoints with random weights are made by random-checkpoint in --models, which then keeps them for a later run, or in
a temporary folder: 9 GB for NVFP4, 17 GB for bf16. Writes CARD-DATE.json, with every line, and CARD-DATE.md,
a table, to --out (docs/gpu-results); CARD-DATE-SECTIONS when --sections names some. Both are written anew after every
program that has ended, so that a run that is cut off leaves what it had, marked as not finished. --resume goes on with
such a run of the same card, driver, commit and sections: sections that were done stay as they are, the one that was
cut off begins anew. CARD-DATE.log has every line of theirs from the moment it is said (of the first, which
tells the card's name, when it has ended): what a machine that is taken away in the midst of a program leaves; --resume
adds to it. Needs Python 3.10 and nothing else:
`make gpu-bundle` collects the programs with their libraries in build/gpu, which can be copied to a machine that has a
card and a driver.

--quick tries the tool itself, with few cases and tiny shapes; it measures nothing.
Exit status: 0 all passed, 1 something failed, 2 it could not be tried, 143 it was ended.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROGRAM_LIMIT_SECONDS = 3600
EMULATION_ALONE = ("test_cuda_cublas", "test_cuda_cudnn", "test_cuda_lost", "test_cuda_memory", "test_cuda_plugin")
QUICK_TESTS = ("test_cuda_elementwise", "test_cuda_guided_step")
SANITIZED_TESTS = tuple(f"test_cuda_{family}" for family in ("elementwise", "norm", "rope", "guided_step", "embed",
                                                             "linear", "attention", "conv", "resample"))
SECTIONS = ("bench", "tasks", "tasks-no-graphs", "bench-all", "operators", "goldens", "sanitizer", "tasks-bf16",
            "tasks-video", "peer")
FIRST_TASKS = ("tasks", "tasks-no-graphs")
# Of lance-bench's cases, what a token takes.
FIRST_CASES = ("few-", "gemv-", "attention-decode")
DEFAULT_SECTIONS = SECTIONS[:-2]
# What a library does when it is found, and our own kernels otherwise: program, variable that says "without", name.
LIBRARIES = (("test_cuda_linear", "LANCED_CUBLASLT", "cuBLASLt"), ("test_cuda_attention", "LANCED_CUDNN", "cuDNN"))
SANITIZER_TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")


class Unusable(Exception):
    """Nothing can be checked here; the message says why."""


class Seen:
    """What programs say, in a file as soon as they say it. Kept until it is known where the file is to be."""

    def __init__(self) -> None:
        self.waiting = b""
        self.path: Path | None = None

    def add(self, said: bytes) -> None:
        self.waiting += said
        if self.path:
            with self.path.open("ab") as file:
                file.write(self.waiting)
            self.waiting = b""

    def begin(self, path: Path, anew: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if anew:
            path.unlink(missing_ok=True)
        self.path = path
        self.add(b"")


SEEN = Seen()


def listen(terminal: int, end: float) -> Iterator[bytes]:
    """What is said on a terminal, or a pipe, until nobody has it open; TimeoutError when that is not by `end`."""
    while True:
        if not select.select([terminal], [], [], max(0.0, end - time.monotonic()))[0]:
            raise TimeoutError
        try:
            said = os.read(terminal, 65536)
        except OSError:  # how Linux tells the end
            return
        if not said:
            return
        yield said


def open_terminal() -> tuple[int, int]:
    """Our end and the programs': to a pipe, which is what is left where there are no terminals, they would say nothing
    until they have much to say."""
    try:
        ours, theirs = pty.openpty()
    except OSError:
        return os.pipe()
    tty.setraw(theirs)
    return ours, theirs


def run(command: list[str], environment: dict[str, str]) -> tuple[int, str, float]:
    """Exit status, output and seconds; 124 when it had to be ended, 127 when it could not be started."""
    started = time.monotonic()
    end = started + PROGRAM_LIMIT_SECONDS
    SEEN.add(f"$ {' '.join(command)}\n".encode())
    output = b""
    ours, theirs = open_terminal()
    try:
        with subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stdin=subprocess.DEVNULL,
                              stdout=theirs, stderr=theirs) as program:  # fmt: skip
            os.close(theirs)
            theirs = -1
            try:
                for said in listen(ours, end):
                    output += said
                    SEEN.add(said)
                status = program.wait(max(0.0, end - time.monotonic()))
            except (TimeoutError, subprocess.TimeoutExpired):
                program.kill()
                status, output = 124, output + f"\n(ended after {PROGRAM_LIMIT_SECONDS} s)\n".encode()
            except BaseException:
                program.kill()
                raise
    except OSError as error:
        status, output = 127, str(error).encode()
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)
    return status, output.decode(errors="replace"), time.monotonic() - started


def read_report(output: str) -> dict[str, Any]:
    """The JSON among what lance-bench said, with the rest, such as a library's notice, as "said". ValueError: none."""
    start = re.search(r"^\{", output, re.MULTILINE)
    if start is None:
        raise ValueError("no JSON")
    result: dict[str, Any]
    result, end = json.JSONDecoder().raw_decode(output, start.start())
    said = (output[:start.start()] + output[end:]).strip()
    return result | ({"said": said[-8000:]} if said else {})


def parse_tap(name: str, status: int, output: str, seconds: float) -> dict[str, Any]:
    """Results of one cmocka program; a crash, or no test at all, is a failure."""
    tests = []
    for match in re.finditer(r"^(not )?ok \d+ ?-? ?(.*)$", output, re.MULTILINE):
        skipped = "# SKIP" in match[2]
        result = "skipped" if skipped else "failed" if match[1] else "passed"
        tests.append({"name": match[2].replace("# SKIP", "").strip(), "result": result})
    broken = not tests or (status != 0 and all(test["result"] != "failed" for test in tests))
    entry: dict[str, Any] = {"program": name, "seconds": round(seconds, 2), "tests": tests}
    if broken:
        tests.append({"name": f"(ended with status {status})", "result": "failed"})
    if any(test["result"] == "failed" for test in tests):
        entry["output"] = output[-8000:]
    return entry


def check_operators(programs: Path, environment: dict[str, str], quick: bool) -> Iterator[dict[str, Any]]:
    found = sorted(path for path in programs.glob("test_cuda_*")
                   if path.name not in EMULATION_ALONE and not path.suffix)
    if not found:
        raise Unusable(f"there are no programs test_cuda_* in {programs}; build them with 'make gpu-bundle'")
    wanted: list[tuple[Path, str, dict[str, str]]]
    wanted = [(path, path.name, {}) for path in found if not quick or path.name in QUICK_TESTS]
    wanted += [(path, f"{path.name} without {library}", {variable: ""})
               for program, variable, library in LIBRARIES for path, name, _ in wanted if name == program]
    for path, name, without in wanted:
        entry = parse_tap(name, *run([str(path)], environment | without | {"CMOCKA_MESSAGE_OUTPUT": "TAP"}))
        print(f"  {name}: {entry['seconds']} s", flush=True)
        yield entry


def check_sanitized(sanitizer: str, programs: Path, environment: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The operators under NVIDIA's checkers."""
    for tool in SANITIZER_TOOLS:
        for test in SANITIZED_TESTS:
            command = [sanitizer, "--tool", tool, "--error-exitcode", "9", str(programs / test)]
            status, output, seconds = run(command, environment | {"LANCED_TESTS_SMALL": "1"})
            entry: dict[str, Any] = {"program": test, "tool": tool, "passed": status == 0, "seconds": round(seconds, 2)}
            if status != 0:
                entry["output"] = output[-8000:]
            print(f"  {tool} {test}: {'passed' if status == 0 else 'FAILED'}", flush=True)
            yield entry


GOLDEN_LINE = re.compile(r"^(\S+)\s+(\S+)\s+(\S.*?)\s+(ok|FAILED)$")


def check_goldens(programs: Path, folders: list[Path], environment: dict[str, str],
                  only: str) -> Iterator[dict[str, Any]]:
    for folder in folders:
        command = [str(programs / "check-golden"), str(folder), "--backend", "cuda"]
        command += ["--only", only] if only else []
        status, output, seconds = run(command, environment)
        matches = [match for match in map(GOLDEN_LINE.match, output.splitlines()) if match]
        lines: list[dict[str, Any]] = [
            {"case": match[1], "stage": match[2], "value": match[3].strip(), "passed": match[4] == "ok"}
            for match in matches
        ]
        name = str(folder.relative_to(ROOT)) if folder.is_relative_to(ROOT) else folder.name
        entry: dict[str, Any] = {"golden": name, "status": status, "seconds": round(seconds, 2), "lines": lines}
        if status not in (0, 1) or not lines:
            entry["output"] = output[-8000:]
        passed = [line for line in lines if line["passed"]]
        print(f"  {name}: {len(passed)} of {len(lines)} passed, {seconds:.0f} s", flush=True)
        yield entry


def measure(programs: Path, environment: dict[str, str], quick: bool, only: str = "") -> dict[str, Any]:
    options = ["--tiny", "--seconds", "0.001", "--filter", "norm"] if quick else ["--seconds", "1", "--filter", only]
    command = [str(programs / "lance-bench"), "--backend", "cuda", "--json", *options]
    status, output, seconds = run(command, environment)
    try:
        result = read_report(output)
    except ValueError:
        return {"status": status, "output": output[-8000:], "cases": []}
    print(f"  {len(result['cases'])} cases, {seconds:.0f} s", flush=True)
    return result | {"status": status}


# What each section of whole tasks runs: the checkpoint's form, its folder, and options of lance-bench.
TASK_SECTIONS: dict[str, tuple[str, str, list[str]]] = {
    "tasks": ("nvfp4", "Lance-3B-NVFP4", ["--task", "t2i,x2t_image"]),
    "tasks-no-graphs": ("nvfp4", "Lance-3B-NVFP4", ["--task", "t2i,x2t_image"]),
    "tasks-bf16": ("bf16", "Lance_3B", ["--task", "t2i,x2t_image"]),
    "tasks-video": ("nvfp4", "Lance-3B-NVFP4", ["--task", "t2v", "--runs", "1"]),
    "peer": ("bf16", "Lance_3B", ["--task", "t2i"]),
}
QUICK_TASK = ["--image", "32x32", "--video", "32x32x5", "--picture", "56x56", "--steps", "1", "--tokens", "2"]
PROMISED_BYTES = 7e9  # of device memory, weights included, for a picture of 768 x 768 with NVFP4 weights
PROMISED_RATIO = 4    # times as fast as the official pipeline


@contextmanager
def watched_device_memory(result: dict[str, Any]) -> Iterator[None]:
    """While it lasts, note the most memory in use on the card, by whomever, as nvidia-smi sees it."""
    if not shutil.which("nvidia-smi"):
        yield
        return
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--loop-ms=200"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watcher:
        seen: list[int] = []

        def read() -> None:
            for line in watcher.stdout or ():
                if line.strip().isdigit():
                    seen.append(int(line))

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield
        finally:
            watcher.terminate()
            reader.join()
    result["device_used_before_mib"] = seen[0] if seen else None
    result["device_used_peak_mib"] = max(seen, default=None)


def make_checkpoint(programs: Path, environment: dict[str, str], models: Path, form: str, folder: str,
                    quick: bool) -> tuple[Path, float]:
    """The folder of a checkpoint in `models`, made if it is not there, and the seconds that took."""
    root = models / form
    if (root / "complete").exists():
        return root / folder, 0.0
    command = [str(programs / "random-checkpoint"), "--form", form, "-o", str(root)]
    status, output, seconds = run([*command, *(["--config", "tiny"] if quick else [])], environment)
    if status != 0:
        raise Unusable(f"random-checkpoint ended with status {status}: {output.strip()[-500:]}")
    (root / "complete").write_text("made whole\n")
    return root / folder, round(seconds, 2)


def task_checks(section: str, task: dict[str, Any], runs: int, quick: bool) -> list[dict[str, Any]]:
    name = f"{section} {task['task']}"
    checks = [(f"{name}: the result is finite", bool(task["finite"])),
              (f"{name}: memory within 5 % of what was promised",
               task["peak_bytes"] <= 1.05 * task["estimated_bytes"])]
    if runs > 1:
        checks.append((f"{name}: every run gives the same bytes", bool(task["same"])))
    if section == "tasks" and task["task"] == "t2i" and not quick:
        checks.append((f"{name}: at most {PROMISED_BYTES / 1e9:.0f} GB with the weights",
                       task["peak_with_weights_bytes"] <= PROMISED_BYTES))
    return [{"name": text, "passed": passed} for text, passed in checks]


def measure_peer(model: Path, ours: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """The official pipeline on the same checkpoint, prompt and size, and how many times as long it took."""
    command = [arguments.python, str(ROOT / "tools/peer_pytorch.py"), "--lance-source", arguments.lance_source,
               "--model", str(model), "--json"]
    command += ["--size", "32x32", "--steps", "1"] if arguments.quick else []
    command += ["--device", arguments.peer_device] if arguments.peer_device else []
    status, output, seconds = run(command, {})
    peer: dict[str, Any] = {"status": status, "seconds": round(seconds, 2)}
    try:
        peer |= json.loads(next(line for line in reversed(output.splitlines()) if line.startswith("{")))
        peer["ratio"] = peer["picture_seconds"] / ours["seconds"]
    except (ValueError, KeyError, StopIteration):
        peer["output"] = output[-8000:]
    return peer


def measure_tasks(section: str, programs: Path, environment: dict[str, str], models: Path,
                  arguments: argparse.Namespace) -> dict[str, Any]:
    form, folder, options = TASK_SECTIONS[section]
    if section == "tasks-no-graphs":
        environment = environment | {"LANCED_CUDA_GRAPHS": "off"}
    model, making = make_checkpoint(programs, environment, models, form, folder, arguments.quick)
    command = [str(programs / "lance-bench"), "--tasks", "--model", str(model), "--backend", "cuda", "--json", *options]
    entry: dict[str, Any] = {"checkpoint_seconds": making, "tasks": []}
    with watched_device_memory(entry):
        status, output, seconds = run([*command, *(QUICK_TASK if arguments.quick else [])], environment)
    entry |= {"status": status, "seconds": round(seconds, 2)}
    try:
        entry |= read_report(output)
    except ValueError:
        entry["output"] = output[-8000:]
    checks = [{"name": f"{section}: lance-bench --tasks ran", "passed": status == 0 and bool(entry["tasks"])}]
    for task in entry["tasks"]:
        checks += task_checks(section, task, entry["runs"], arguments.quick)
        print(f"  {section} {task['task']}, {task['what']}: {task['seconds']:.2f} s", flush=True)
    if section == "peer" and entry["tasks"]:
        peer = entry["peer"] = measure_peer(model, entry["tasks"][0], arguments)
        checks.append({"name": "peer: the official pipeline ran, and its result is finite",
                       "passed": "ratio" in peer and peer["finite"]})
        if "ratio" in peer:
            print(f"  official pipeline: {peer['picture_seconds']:.2f} s, {peer['ratio']:.2f} times as long")
            if not arguments.quick:
                checks.append({"name": f"peer: at least {PROMISED_RATIO} times as fast as the official pipeline",
                               "passed": peer["ratio"] >= PROMISED_RATIO})
    return entry | {"checks": checks}


def totals(report: dict[str, Any]) -> dict[str, int]:
    results = [test["result"] for program in report["operators"] for test in program["tests"]]
    results += ["passed" if line["passed"] else "failed" for golden in report["goldens"] for line in golden["lines"]]
    results += ["failed" for golden in report["goldens"] if golden["status"] not in (0, 1) or not golden["lines"]]
    results += ["passed" if entry["passed"] else "failed" for entry in report["sanitizer"]]
    results += ["failed" for bench in report["bench"] if bench["status"] != 0 or not bench["cases"]]
    results += ["passed" if check["passed"] else "failed" for entry in report["tasks"] for check in entry["checks"]]
    results += ["skipped" for _ in report["not_run"]]
    return {result: results.count(result) for result in ("passed", "failed", "skipped")}


def said(entry: dict[str, Any]) -> list[str]:
    """What a program said beside its numbers."""
    return ["It also said:", "", "```", entry["said"], "```", ""] if "said" in entry else []


def bench_table(bench: dict[str, Any]) -> list[str]:
    lines = [f"## {bench.get('backend', 'lance-bench')}", ""]
    if not bench["cases"]:
        return [*lines, f"lance-bench ended with status {bench['status']}:", "", "```", bench.get("output", ""), "```",
                ""]
    lines += [f"Largest bf16 product {bench['machine_gflops'] / 1000:.1f} TFLOP/s, copying "
              f"{bench['machine_copy_gbs']:.0f} GB/s (bytes read and written).", "",
              "| operator | shape | ms | rate | of it |", "|---|---|---|---|---|"]
    for case in bench["cases"]:
        rate = f"{case['gbs']:.0f} GB/s" if "gbs" in case else f"{case['gflops'] / 1000:.2f} TFLOP/s"
        lines.append(f"| {case['name']} | {case['shape']} | {case['ms']:.3f} | {rate} | {case['percent']:.0f} % |")
    return [*lines, "", *said(bench)]


def tasks_table(entry: dict[str, Any]) -> list[str]:
    lines = [f"## Whole tasks: {entry['section']}", ""]
    if entry["tasks"]:
        lines += [f"{entry['kind']}, {entry['backend']}; random weights, loaded in {entry['load_seconds']:.1f} s; "
                  f"{entry['weight_bytes'] / 1e9:.2f} GB of weights on the card.", "",
                  "| task | s | by stage | rate | peak MB | promised MB | with weights MB |",
                  "|---|---|---|---|---|---|---|"]
    for task in entry["tasks"]:
        stages = ", ".join(f"{stage['stage']} {stage['seconds']:.3f} s in {stage['steps']}"
                           for stage in task["stages"])
        rate = (f"{task['tokens_per_second']:.1f} tokens/s" if "tokens" in task else
                f"{task['steps_per_second']:.3f} steps/s")
        lines.append(f"| {task['task']}, {task['what']} | {task['seconds']:.2f} | {stages} | {rate} | "
                     f"{task['peak_bytes'] / 1e6:.1f} | {task['estimated_bytes'] / 1e6:.1f} | "
                     f"{task['peak_with_weights_bytes'] / 1e6:.1f} |")
    lines.append("")
    if entry.get("device_used_peak_mib") is not None:
        lines += [f"nvidia-smi: {entry['device_used_before_mib']} MiB in use before, {entry['device_used_peak_mib']} "
                  "MiB at the most, driver and libraries included.", ""]
    if "picture_seconds" in (peer := entry.get("peer", {})):
        stages = ", ".join(f"{stage['stage']} {stage['seconds']:.3f} s" for stage in peer["stages"])
        lines += [f"Official pipeline, same weights and picture: {peer['picture_seconds']:.2f} s ({stages}; "
                  f"{peer['what']}), {peer['ratio']:.2f} times as long.", ""]
    checks = [f"- {'passed' if check['passed'] else 'FAILED'}: {check['name']}" for check in entry["checks"]]
    return [*lines, *said(entry), *checks]


def table(report: dict[str, Any]) -> str:
    count = report["totals"]
    lines = [f"# {report['card']}, {report['date']}", "",
             f"{count['passed']} checks passed, {count['failed']} failed, {count['skipped']} skipped. "
             f"{'Tiny shapes: a try of the tool, no measurement. ' if report['quick'] else ''}"
             "Written by `make gpu-check`; every line is in the .json beside this file.", "",
             *([] if report["finished"] else ["**Not finished**: it was cut off, and what follows is not all.", ""]),
             *(f"- skipped: {what}" for what in report["not_run"]), *([""] if report["not_run"] else []),
             f"Driver {report['driver']}, commit {report['commit']}.", "",
             "## Operators beside the CPU backend", "",
             "| program | passed | failed | skipped | s |", "|---|---|---|---|---|"]
    for program in report["operators"]:
        results = [test["result"] for test in program["tests"]]
        lines.append(f"| {program['program']} | {results.count('passed')} | {results.count('failed')} | "
                     f"{results.count('skipped')} | {program['seconds']} |")
    lines += ["", "## Under compute-sanitizer", ""]
    if report["sanitizer"]:
        lines += ["| tool | program | |", "|---|---|---|"]
        lines += [f"| {entry['tool']} | {entry['program']} | {'passed' if entry['passed'] else 'FAILED'} |"
                  for entry in report["sanitizer"]]
    else:
        lines.append("Not run.")
    lines += ["", "## Beside the official code's results", "", "| case | passed | failed |", "|---|---|---|"]
    for golden in report["goldens"]:
        for case in dict.fromkeys(line["case"] for line in golden["lines"]):
            passed = [line["passed"] for line in golden["lines"] if line["case"] == case]
            lines.append(f"| {case} | {passed.count(True)} | {passed.count(False)} |")
    lines.append("")
    for golden in report["goldens"]:
        lines += [f"- failed: {line['case']} {line['stage']}: {line['value']}"
                  for line in golden["lines"] if not line["passed"]]
    for bench in report["bench"]:
        lines += ["", *bench_table(bench)]
    for entry in report["tasks"]:
        lines += ["", *tasks_table(entry)]
    return "\n".join(lines).rstrip() + "\n"


def first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        return done.stdout.partition("\n")[0].strip() or "?"
    except OSError:
        return "?"


def environment_for(programs: Path, plugin: Path) -> dict[str, str]:
    libraries = programs / "lib"
    paths = [str(libraries)] * libraries.is_dir() + [path for path in [os.environ.get("LD_LIBRARY_PATH")] if path]
    return {"LANCED_CUDA_PLUGIN": str(plugin)} | ({"LD_LIBRARY_PATH": ":".join(paths)} if paths else {})


@contextmanager
def folder_of_models(arguments: argparse.Namespace) -> Iterator[Path]:
    """--models, or a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="gpu-check-", dir=arguments.models) as temporary:
        yield Path(arguments.models or temporary)


def measure_task_section(section: str, programs: Path, environment: dict[str, str], models: Path,
                         arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    try:
        yield measure_tasks(section, programs, environment, models, arguments)
    except Unusable as why:  # what was measured before is worth keeping
        print(f"  {why}", flush=True)
        yield {"tasks": [], "checks": [{"name": f"{section}: {why}", "passed": False}]}


def read_sections(arguments: argparse.Namespace) -> list[str]:
    sections: list[str] = arguments.sections.split(",")
    if unknown := [section for section in sections if section not in SECTIONS]:
        raise Unusable(f"there is no section {unknown[0]}; there are {', '.join(SECTIONS)}")
    if "peer" in sections and not arguments.lance_source:
        raise Unusable("the section peer needs --lance-source, a checkout of bytedance/Lance")
    return sections


def measure_first(programs: Path, environment: dict[str, str], first: dict[str, Any],
                  quick: bool) -> Iterator[dict[str, Any]]:
    """What a token takes; `first` was measured already."""
    yield first
    for cases in () if quick else FIRST_CASES[1:]:
        yield measure(programs, environment, False, cases)


def measure_all(programs: Path, environment: dict[str, str], quick: bool) -> Iterator[dict[str, Any]]:
    """The whole benchmark, and parts of it with something else than what is done by itself."""
    yield (everything := measure(programs, environment, quick))
    if quick:
        return
    yield measure(programs, environment | {"LANCED_CUBLASLT": "", "LANCED_CUDNN": ""}, False)
    yield measure(programs, environment | {"LANCED_CUDNN": ""}, False, "attention")
    one_stream = measure(programs, environment | {"LANCED_CUDA_OVERLAP": "off"}, False, "linear")
    yield one_stream | {"backend": f"{everything.get('backend', 'cuda')}, weights decoded between products"}
    # at every number of rows: codes straight to the tensor cores, and decoded first
    for rows in ("100000", "16"):
        yield measure(programs, environment | {"LANCED_CUDA_SOME_ROWS": rows}, False, "some-")


def begin(backend: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """A new report; or, with --resume, the last one of the same card, build and sections, if it is not finished."""
    report: dict[str, Any] = {
        "card": backend.removeprefix("cuda:").partition(" with ")[0],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "quick": arguments.quick,
        "finished": False,
        "driver": first_line(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]),
        "commit": first_line(["git", "rev-parse", "--short", "HEAD"]),
        "done": [], "not_run": [], "operators": [], "goldens": [], "sanitizer": [], "bench": [], "tasks": [],
    }
    if not arguments.resume:
        return report
    of_any_day = report_path(report | {"date": "????-??-??"}, arguments)
    for path in sorted(of_any_day.parent.glob(f"{of_any_day.name}.json"), reverse=True):
        before: dict[str, Any] = json.loads(path.read_text())
        alike = all(before[name] == report[name] for name in ("card", "quick", "driver", "commit", "finished"))
        if alike and "done" in before:
            print(f"{path}: going on after {', '.join(before['done']) or 'nothing'}", flush=True)
            return before
    print("there is no unfinished report of this card, build and sections: all of it is run", flush=True)
    return report


def find_sanitizer(quick: bool) -> tuple[str, str]:
    """compute-sanitizer, or "" and why it is not run."""
    found = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    return ("", "--quick") if quick else (found or "", "" if found else "compute-sanitizer is missing")


def check_all(arguments: argparse.Namespace, save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Everything that was asked for. `save` is called with the report so far whenever a program has ended."""
    programs, plugin = Path(arguments.programs).resolve(), Path(arguments.plugin).resolve()
    if not plugin.exists():
        raise Unusable(f"there is no CUDA plugin {plugin}; build it with 'make gpu-bundle' where nvcc is")
    environment = environment_for(programs, plugin)
    sections = read_sections(arguments)
    print("benchmark", flush=True)
    first = measure(programs, environment, arguments.quick or "bench" not in sections, FIRST_CASES[0])
    if "backend" not in first:
        raise Unusable(f"the CUDA backend cannot be used: lance-bench ended with status "
                       f"{first['status']}: {first['output'].strip()}")
    report = begin(first["backend"], arguments)
    SEEN.begin(Path(f"{report_path(report, arguments)}.log"), anew=not arguments.resume)

    def fill(section: str, part: str, entries: Iterator[dict[str, Any]]) -> None:
        """A section, unless it was not asked for or done before; one that was cut off begins anew."""
        if section not in sections or section in report["done"]:
            return
        print(section, flush=True)
        report[part] = [entry for entry in report[part] if entry["section"] != section]
        for entry in entries:
            report[part].append(entry | {"section": section})
            save(report)
        report["done"].append(section)
        save(report)

    def fill_tasks(of: tuple[str, ...]) -> None:
        with folder_of_models(arguments) as models:
            for section in of:
                fill(section, "tasks", measure_task_section(section, programs, environment, models, arguments))

    fill("bench", "bench", measure_first(programs, environment, first, arguments.quick))
    fill_tasks(FIRST_TASKS)
    fill("bench-all", "bench", measure_all(programs, environment, arguments.quick))
    fill("operators", "operators", check_operators(programs, environment, arguments.quick))
    folders = [Path(folder).resolve() for folder in arguments.golden or [ROOT / "tests/golden/data"]]
    fill("goldens", "goldens", check_goldens(programs, folders, environment, arguments.only))
    sanitizer, why_not = find_sanitizer(arguments.quick)
    report["not_run"] = [f"sanitizer: {why_not}"] if why_not and "sanitizer" in sections else []
    fill("sanitizer", "sanitizer", check_sanitized(sanitizer, programs, environment) if sanitizer else iter(()))
    fill_tasks(tuple(section for section in TASK_SECTIONS if section not in FIRST_TASKS))
    report["finished"] = True
    save(report)
    return report


def report_path(report: dict[str, Any], arguments: argparse.Namespace) -> Path:
    """Without an ending. Parts that were asked for by name do not take the place of a whole report."""
    slug = re.sub(r"[^a-z0-9]+", "-", report["card"].lower()).strip("-")
    part = "" if arguments.sections == ",".join(DEFAULT_SECTIONS) else "-" + arguments.sections.replace(",", "-")
    return Path(arguments.out) / f"{slug}-{report['date']}{part}"


def write_report(report: dict[str, Any], arguments: argparse.Namespace) -> None:
    report["totals"] = totals(report)
    path = report_path(report, arguments)
    path.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{path}.json").write_text(json.dumps(report, indent=1) + "\n")
    Path(f"{path}.md").write_text(table(report))


def unpack_tokenizer() -> None:
    """The recorded cases' tokenizer is kept compressed; where there is no make, nothing else unpacks it."""
    for packed in (ROOT / "tests/golden/data/tiny/downloads/Lance_3B").glob("*.gz"):
        if not packed.with_suffix("").exists():
            packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))


def main() -> int:
    parser = argparse.ArgumentParser(description="Checks and measures the CUDA backend on this machine's card.")
    parser.add_argument("--quick", action="store_true", help="try the tool itself: few cases, tiny shapes")
    parser.add_argument("--sections", default=",".join(DEFAULT_SECTIONS),
                        help="which parts: %(default)s; also tasks-video and peer")
    parser.add_argument("--resume", action="store_true",
                        help="go on with what a run that was cut off has not done of these sections")
    parser.add_argument("--golden", action="append", metavar="DIR", help="recorded results; may be repeated")
    parser.add_argument("--only", default="", help="only golden cases whose name has this in it")
    parser.add_argument("--programs", default=str(ROOT / "build/gpu"), help="where the programs are (build/gpu)")
    parser.add_argument("--plugin", default=str(ROOT / "build/gpu/liblanced_cuda.so"), help="the CUDA plugin")
    parser.add_argument("--models", help="an existing folder to make checkpoints in and keep them")
    parser.add_argument("--lance-source", metavar="DIR", help="a checkout of bytedance/Lance, for the section peer")
    parser.add_argument("--python", default=sys.executable, help="a Python with PyTorch, for the section peer")
    parser.add_argument("--peer-device", help="what the official pipeline runs on (default: the card)")
    parser.add_argument("--out", default=str(ROOT / "docs/gpu-results"), help="where the report goes")
    arguments = parser.parse_args()
    unpack_tokenizer()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the program that runs, and takes checkpoints away
    try:
        report = check_all(arguments, lambda so_far: write_report(so_far, arguments))
    except Unusable as why:
        print(f"gpu-check: {why}", file=sys.stderr)
        return 2
    count = report["totals"]
    print(f"{report_path(report, arguments)}.md: {count['passed']} passed, {count['failed']} failed, "
          f"{count['skipped']} skipped")
    if count["skipped"] and not count["passed"] and not count["failed"]:
        print("gpu-check: nothing of this could be tried here", file=sys.stderr)
        return 2
    return 1 if count["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
