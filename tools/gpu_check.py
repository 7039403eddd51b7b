"""Checks and measures the CUDA backend on this machine's card: `make gpu-check`.

    python3 tools/gpu_check.py [--quick] [--sections NAME,...] [--golden DIR]... [--programs DIR] [--plugin FILE]
                               [--out DIR]

The benchmark (lance-bench --backend cuda) with and without cuBLASLt, every operator beside the CPU backend (the
programs test_cuda_*), the recorded results of the official code (check-golden --backend cuda), and the operators
once more under compute-sanitizer where that is installed. Writes CARD-DATE.json, with every line, and CARD-DATE.md,
a table, to --out (docs/gpu-results). Needs Python 3.10 and nothing else: `make gpu-bundle` collects the programs
with their libraries in build/gpu, which can be copied to a machine that has a card and a driver.

--quick tries the tool itself, with few cases and tiny shapes; it measures nothing.
Exit status: 0 all passed, 1 something failed, 2 it could not be tried.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROGRAM_LIMIT_SECONDS = 3600
QUICK_TESTS = ("test_cuda_elementwise", "test_cuda_guided_step")
SANITIZED_TESTS = tuple(f"test_cuda_{family}" for family in ("elementwise", "norm", "rope", "guided_step", "embed",
                                                             "linear", "attention", "conv", "resample"))
SECTIONS = ("bench", "operators", "goldens", "sanitizer")
SANITIZER_TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")


class Unusable(Exception):
    """Nothing can be checked here; the message says why."""


def run(command: list[str], environment: dict[str, str]) -> tuple[int, str, float]:
    """Exit status, output and seconds; 124 when it had to be ended."""
    started = time.monotonic()
    try:
        done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PROGRAM_LIMIT_SECONDS)
        status, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as expired:
        status, output = 124, (expired.stdout or b"") + f"\n(ended after {PROGRAM_LIMIT_SECONDS} s)\n".encode()
    return status, output.decode(errors="replace"), time.monotonic() - started


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


def check_operators(programs: Path, environment: dict[str, str], quick: bool) -> list[dict[str, Any]]:
    found = sorted(path for path in programs.glob("test_cuda_*")
                   if path.name != "test_cuda_plugin" and not path.suffix)
    if not found:
        raise Unusable(f"there are no programs test_cuda_* in {programs}; build them with 'make gpu-bundle'")
    results = []
    for path in found:
        if quick and path.name not in QUICK_TESTS:
            continue
        results.append(parse_tap(path.name, *run([str(path)], environment | {"CMOCKA_MESSAGE_OUTPUT": "TAP"})))
        print(f"  {path.name}: {results[-1]['seconds']} s", flush=True)
    return results


def check_sanitized(programs: Path, environment: dict[str, str]) -> list[dict[str, Any]]:
    """The operators under NVIDIA's checkers; empty where these are not installed."""
    sanitizer = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    results: list[dict[str, Any]] = []
    for tool in SANITIZER_TOOLS if sanitizer else ():
        for test in SANITIZED_TESTS:
            command = [str(sanitizer), "--tool", tool, "--error-exitcode", "9", str(programs / test)]
            status, output, seconds = run(command, environment | {"LANCED_TESTS_SMALL": "1"})
            results.append({"program": test, "tool": tool, "passed": status == 0, "seconds": round(seconds, 2)})
            if status != 0:
                results[-1]["output"] = output[-8000:]
            print(f"  {tool} {test}: {'passed' if status == 0 else 'FAILED'}", flush=True)
    return results


GOLDEN_LINE = re.compile(r"^(\S+)\s+(\S+)\s+(\S.*?)\s+(ok|FAILED)$")


def check_goldens(programs: Path, folders: list[Path], environment: dict[str, str], only: str) -> list[dict[str, Any]]:
    results = []
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
        results.append(entry)
        passed = [line for line in lines if line["passed"]]
        print(f"  {name}: {len(passed)} of {len(lines)} passed, {seconds:.0f} s", flush=True)
    return results


def measure(programs: Path, environment: dict[str, str], quick: bool) -> dict[str, Any]:
    options = ["--tiny", "--seconds", "0.001", "--filter", "norm"] if quick else ["--seconds", "1"]
    command = [str(programs / "lance-bench"), "--backend", "cuda", "--json", *options]
    status, output, seconds = run(command, environment)
    try:
        result: dict[str, Any] = json.loads(output[output.index("{"):])
    except ValueError:
        return {"status": status, "output": output[-8000:], "cases": []}
    print(f"  {len(result['cases'])} cases, {seconds:.0f} s", flush=True)
    return result | {"status": status}


def totals(report: dict[str, Any]) -> dict[str, int]:
    results = [test["result"] for program in report["operators"] for test in program["tests"]]
    results += ["passed" if line["passed"] else "failed" for golden in report["goldens"] for line in golden["lines"]]
    results += ["failed" for golden in report["goldens"] if golden["status"] not in (0, 1) or not golden["lines"]]
    results += ["passed" if entry["passed"] else "failed" for entry in report["sanitizer"]]
    results += ["failed" for bench in report["bench"] if bench["status"] != 0 or not bench["cases"]]
    return {result: results.count(result) for result in ("passed", "failed", "skipped")}


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
    return [*lines, ""]


def table(report: dict[str, Any]) -> str:
    count = report["totals"]
    lines = [f"# {report['card']}, {report['date']}", "",
             f"{count['passed']} checks passed, {count['failed']} failed, {count['skipped']} skipped. "
             f"{'Tiny shapes: a try of the tool, no measurement. ' if report['quick'] else ''}"
             "Written by `make gpu-check`; every line is in the .json beside this file.", "",
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


def check_all(arguments: argparse.Namespace) -> dict[str, Any]:
    programs, plugin = Path(arguments.programs).resolve(), Path(arguments.plugin).resolve()
    if not plugin.exists():
        raise Unusable(f"there is no CUDA plugin {plugin}; build it with 'make gpu-bundle' where nvcc is")
    environment = environment_for(programs, plugin)
    sections = arguments.sections.split(",")
    if unknown := [section for section in sections if section not in SECTIONS]:
        raise Unusable(f"there is no section {unknown[0]}; there are {', '.join(SECTIONS)}")
    print("benchmark", flush=True)
    bench = [measure(programs, environment, arguments.quick or "bench" not in sections)]
    if "backend" not in bench[0]:
        raise Unusable(f"the CUDA backend cannot be used: lance-bench ended with status "
                       f"{bench[0]['status']}: {bench[0]['output'].strip()}")
    card = bench[0]["backend"].removeprefix("cuda:").partition(" with ")[0]
    operators: list[dict[str, Any]] = []
    goldens: list[dict[str, Any]] = []
    sanitizer: list[dict[str, Any]] = []
    if "bench" not in sections:
        bench = []
    elif not arguments.quick:
        bench.append(measure(programs, environment | {"LANCED_CUBLASLT": ""}, False))
    if "operators" in sections:
        print("operators", flush=True)
        operators = check_operators(programs, environment, arguments.quick)
    if "goldens" in sections:
        print("results of the official code", flush=True)
        folders = [Path(folder).resolve() for folder in arguments.golden or [ROOT / "tests/golden/data"]]
        goldens = check_goldens(programs, folders, environment, arguments.only)
    if "sanitizer" in sections and not arguments.quick:
        sanitizer = check_sanitized(programs, environment)
    report: dict[str, Any] = {
        "card": card,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "quick": arguments.quick,
        "driver": first_line(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]),
        "commit": first_line(["git", "rev-parse", "--short", "HEAD"]),
        "operators": operators, "goldens": goldens, "sanitizer": sanitizer, "bench": bench,
    }
    return report | {"totals": totals(report)}


def main() -> int:
    parser = argparse.ArgumentParser(description="Checks and measures the CUDA backend on this machine's card.")
    parser.add_argument("--quick", action="store_true", help="try the tool itself: few cases, tiny shapes")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="which parts: %(default)s")
    parser.add_argument("--golden", action="append", metavar="DIR", help="recorded results; may be repeated")
    parser.add_argument("--only", default="", help="only golden cases whose name has this in it")
    parser.add_argument("--programs", default=str(ROOT / "build/gpu"), help="where the programs are (build/gpu)")
    parser.add_argument("--plugin", default=str(ROOT / "build/gpu/liblanced_cuda.so"), help="the CUDA plugin")
    parser.add_argument("--out", default=str(ROOT / "docs/gpu-results"), help="where the report goes")
    arguments = parser.parse_args()
    try:
        report = check_all(arguments)
    except Unusable as why:
        print(f"gpu-check: {why}", file=sys.stderr)
        return 2
    slug = re.sub(r"[^a-z0-9]+", "-", report["card"].lower()).strip("-")
    out = Path(arguments.out) / f"{slug}-{report['date']}"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    out.with_suffix(".md").write_text(table(report))
    count = report["totals"]
    print(f"{out.with_suffix('.md')}: {count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped")
    return 1 if count["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
