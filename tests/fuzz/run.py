"""make fuzz: every target of this folder in turn with libFuzzer, from seeds and from what earlier runs found.

What was found worth keeping stays in build-fuzz/corpus/NAME; how many inputs were tried is added up in
docs/fuzzing.json and printed into docs/fuzzing.md. An input that ends a target is kept as
build-fuzz/found/NAME-crash-..., and this fails.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FUZZ = ROOT / "tests/fuzz"
BUILT = ROOT / "build-fuzz"
COUNTS = ROOT / "docs/fuzzing.json"
PAGE = ROOT / "docs/fuzzing.md"
BEGIN, END = "<!-- counts: begin -->\n", "<!-- counts: end -->\n"
# What a target's code is made for: the largest input worth making up, in bytes.
LARGEST_INPUT = {"checkpoint": 8192, "journal": 65536, "pieces": 256, "requests": 8192, "tokenizer": 8192}
DEMO = ROOT / "demo/lance-demo"
# An input allocates and frees thousands of times: whole traces of each, and much that is freed but kept, would be a
# tenth of the time. Run alone, without these options, an input that ends a target says more.
SANITIZERS = {"ASAN_OPTIONS": "malloc_context_size=4:quarantine_size_mb=16"}


def names() -> list[str]:
    return sorted(path.stem.removeprefix("fuzz_") for path in FUZZ.glob("fuzz_*.c"))


def seeds(name: str, folder: Path) -> None:
    """Whole and right inputs of a target, written into a folder: those of seeds/, and the repository's own files."""
    made: list[bytes] = [path.read_bytes() for path in sorted((FUZZ / "seeds" / name).glob("*"))]
    if name == "tokenizer":
        parts = ("vocab.json", "merges.txt", "tokenizer_config.json")
        made += [bytes([which]) + (FUZZ / "tokenizer" / part).read_bytes() for which, part in enumerate(parts)]
    if name == "checkpoint":
        beside = {"awq_meta.json": "lance-demo-awq", "nvfp4_meta.json": "lance-demo-nvfp4"}
        files = ("llm_config.json", "Qwen2.5-VL-ViT/config.json", "tokenizer_config.json", *beside)
        made += [bytes([i]) + (DEMO.parent / beside.get(f, "lance-demo") / f).read_bytes() for i, f in enumerate(files)]
        made.append(b'\x05{"metadata": {}, "weight_map": {"language_model.model.norm.weight": "model.safetensors"}}')
    if name == "requests":
        made += [path.read_bytes() for path in sorted((FUZZ / "seeds/safetensors").glob("*"))]
    if name == "pieces":
        made += [bytes([4, kind, piece, 0] * 3 + [1, kind, 0, 0]) for kind in range(5) for piece in range(3)]
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(made):
        (folder / f"seed-{number}").write_bytes(data)


def fuzz(name: str, seconds: int) -> tuple[int, bool]:
    """How many inputs were tried, and whether all were taken well."""
    corpus, given, found = BUILT / "corpus" / name, BUILT / "seeds" / name, BUILT / "found"
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(parents=True, exist_ok=True)
    seeds(name, given)
    dictionary = FUZZ / "dictionaries" / f"{name}.txt"
    command = [str(BUILT / f"tests/fuzz/fuzz_{name}"), f"-max_total_time={seconds}", "-print_final_stats=1",
               "-timeout=20", "-rss_limit_mb=3000", f"-max_len={LARGEST_INPUT.get(name, 4096)}",
               f"-artifact_prefix={found}/{name}-"]
    command += [f"-dict={dictionary}"] if dictionary.exists() else []
    log = BUILT / f"{name}.log"
    with log.open("w") as output:
        ended = subprocess.run([*command, str(corpus), str(given)], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT,
                               env=os.environ | SANITIZERS)
    counted = re.findall(r"stat::number_of_executed_units: (\d+)", log.read_text(errors="replace"))
    if ended.returncode:
        print(f"fuzz_{name} failed, see {log.relative_to(ROOT)} and {found.relative_to(ROOT)}", file=sys.stderr)
    return int(counted[-1]) if counted else 0, ended.returncode == 0


def write_page(counts: dict[str, dict[str, object]]) -> None:
    lines = ["| target | inputs | minutes | last run |\n", "|---|---|---|---|\n"]
    lines += [f"| `fuzz_{name}` | {count['inputs']:,} | {count['minutes']:.0f} | {count['last']} |\n"
              for name, count in sorted(counts.items())]
    text = PAGE.read_text(encoding="utf-8")
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END):]
    PAGE.write_text(before + "".join(lines) + after, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all targets together")
    parser.add_argument("targets", nargs="*", help="without fuzz_; default: all")
    arguments = parser.parse_args()
    chosen = arguments.targets or names()
    counts = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
    seconds = max(1, round(arguments.minutes * 60 / len(chosen)))
    failed = []
    for name in chosen:
        inputs, is_well = fuzz(name, seconds)
        before = counts.get(name, {"inputs": 0, "minutes": 0.0})
        counts[name] = {"inputs": before["inputs"] + inputs, "minutes": round(before["minutes"] + seconds / 60, 2),
                        "last": date.today().isoformat()}
        print(f"fuzz_{name}: {inputs:,} inputs in {seconds} s, {'taken well' if is_well else 'FAILED'}", flush=True)
        failed += [] if is_well else [name]
    COUNTS.write_text(json.dumps(counts, indent=1, sort_keys=True) + "\n")
    write_page(counts)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
