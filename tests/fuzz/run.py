"""make fuzz: every target of this folder in turn with libFuzzer, from seeds and from what earlier runs found.

What was found worth keeping stays in build-fuzz/corpus/NAME; how many inputs were tried is added up in
docs/fuzzing.json and printed into docs/fuzzing.md. An input that ends a target is kept as
build-fuzz/found/NAME-crash-..., and this fails.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FUZZ = ROOT / "tests/fuzz"
BUILT = ROOT / "build-fuzz"
COUNTS = ROOT / "docs/fuzzing.json"
PAGE = ROOT / "docs/fuzzing.md"
BEGIN, END = "<!-- counts: begin -->\n", "<!-- counts: end -->\n"
MODELS = BUILT / "models"
# What a target's code is made for: the largest input worth making up, in bytes. Twice as long an input often takes
# twice as long, and says no more.
LARGEST_INPUT = {"journal": 20480, "message": 1024, "pieces": 128, "picture": 2048, "pth": 3072, "requests": 1024}
LARGEST_INPUT |= {"recovery": 512, "rows": 512, "safetensors": 1024, "state": 1024}
ON_ONE_PROCESSOR = ("pieces",)  # its two threads wake each other all the time, which costs less there
SEEDS_OF = {"recovery": "rows"}
DEMO = ROOT / "demo"
# An input allocates and frees thousands of times: traces of each, and much that is freed but kept, would be a fifth of
# the time. Run alone, without these options, an input that ends a target says more.
SANITIZERS = {
    "ASAN_OPTIONS": "malloc_context_size=0:quarantine_size_mb=4:thread_local_quarantine_size_kb=256:"
    "allocator_release_to_os_interval_ms=-1"
}


def one_layer(source: Path, target: Path) -> None:
    """Weights in safetensors without all layers but the first, and with a hole for data: nobody looks at it."""
    with source.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    kept = {name: tensor for name, tensor in header.items() if not re.search(r"(layers|blocks)\.[1-9]", name)}
    end = 0
    for tensor in (tensor for name, tensor in kept.items() if name != "__metadata__"):
        begin, end = end, end + tensor["data_offsets"][1] - tensor["data_offsets"][0]
        tensor["data_offsets"] = [begin, end]
    text = json.dumps(kept, separators=(",", ":")).encode()
    with target.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def with_one_layer(file: Any) -> Any:
    """A configuration or meta file as it is for one layer; others as they are."""
    if "num_hidden_layers" in file:
        file["num_hidden_layers"] = 1
    for vit in (file, file.get("vision_config", {})):
        if "depth" in vit:
            vit |= {"depth": 1, "fullatt_block_indexes": [0]}
    if "per_weight" in file:
        file["per_weight"] = {k: v for k, v in file["per_weight"].items() if not re.search(r"layers\.[1-9]", k)}
    return file


def small_models() -> None:
    """The demo's models with one layer in the language model and in the ViT: opened in a quarter of the time."""
    for name in ("lance-demo", "lance-demo-awq", "lance-demo-nvfp4"):
        for source in sorted(path for path in (DEMO / name).rglob("*") if path.is_file()):
            target = MODELS / name / source.relative_to(DEMO / name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.suffix == ".safetensors":
                one_layer(source, target)
            elif source.suffix == ".json":
                target.write_text(json.dumps(with_one_layer(json.loads(source.read_bytes())), separators=(",", ":")))
            elif source.suffix == ".txt":
                target.write_bytes(source.read_bytes())


def names() -> list[str]:
    return sorted(path.stem.removeprefix("fuzz_") for path in FUZZ.glob("fuzz_*.c"))


def seeds(name: str, folder: Path, models: Path = DEMO) -> None:
    """Whole and right inputs of a target, written into a folder: those of seeds/, and the repository's own files."""
    made: list[bytes] = [path.read_bytes() for path in sorted((FUZZ / "seeds" / SEEDS_OF.get(name, name)).glob("*"))]
    if name == "tokenizer":
        parts = ("vocab.json", "merges.txt", "tokenizer_config.json")
        made += [bytes([which]) + (FUZZ / "tokenizer" / part).read_bytes() for which, part in enumerate(parts)]
    if name == "checkpoint":
        beside = {"awq_meta.json": "lance-demo-awq", "nvfp4_meta.json": "lance-demo-nvfp4"}
        files = ("llm_config.json", "Qwen2.5-VL-ViT/config.json", "tokenizer_config.json", *beside)
        made += [bytes([i]) + (models / beside.get(f, "lance-demo") / f).read_bytes() for i, f in enumerate(files)]
        made.append(b'\x05{"metadata": {}, "weight_map": {"language_model.model.norm.weight": "model.safetensors"}}')
    if name in ("requests", "message"):
        made += [path.read_bytes() for path in sorted((FUZZ / "seeds/safetensors").glob("*"))]
    if name == "message":
        lines = [line for path in (FUZZ / "seeds/requests").glob("*") for line in path.read_bytes().splitlines()]
        made += sorted(line for line in lines if b'"task"' in line)
    if name in ("rows", "recovery"):  # of each table its right values; then all of them together
        rows = [bytes([table] + [0] * columns) for table, columns in enumerate((19, 3, 3, 3, 4, 1))]
        made += [*rows, b"".join(rows)]
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
    seeds(name, given, MODELS)
    dictionary = FUZZ / "dictionaries" / f"{'requests' if name == 'message' else name}.txt"
    command = ["taskset", "-c", str(max(os.sched_getaffinity(0)))] if name in ON_ONE_PROCESSOR else []
    command += [str(BUILT / f"tests/fuzz/fuzz_{name}"), f"-max_total_time={seconds}", "-print_final_stats=1",
               "-timeout=20", "-rss_limit_mb=3000", f"-max_len={LARGEST_INPUT.get(name, 4096)}",
               f"-artifact_prefix={found}/{name}-"]
    command += [f"-dict={dictionary}"] if dictionary.exists() else []
    log = BUILT / f"{name}.log"
    with log.open("w") as output:
        ended = subprocess.run([*command, str(corpus), str(given)], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT,
                               env=os.environ | SANITIZERS | {"FUZZ_MODELS": str(MODELS)})
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


def count(name: str, inputs: int, minutes: float) -> None:
    """Add a run to the counts and to the page. Several runs of other targets may go on beside one another."""
    BUILT.mkdir(exist_ok=True)
    with (BUILT / "counts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        counts = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
        before = counts.get(name, {"inputs": 0, "minutes": 0.0})
        counts[name] = {"inputs": before["inputs"] + inputs, "minutes": round(before["minutes"] + minutes, 2),
                        "last": date.today().isoformat()}
        COUNTS.write_text(json.dumps(counts, indent=1, sort_keys=True) + "\n")
        write_page(counts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all targets together")
    parser.add_argument("targets", nargs="*", help="without fuzz_; default: all")
    arguments = parser.parse_args()
    chosen = arguments.targets or names()
    seconds = max(1, round(arguments.minutes * 60 / len(chosen)))
    failed = []
    if "checkpoint" in chosen:
        small_models()
    for name in chosen:
        begun = time.monotonic()
        inputs, is_well = fuzz(name, seconds)
        minutes = (time.monotonic() - begun) / 60
        count(name, inputs, minutes)
        how = "taken well" if is_well else "FAILED"
        print(f"fuzz_{name}: {inputs:,} inputs in {minutes:.1f} minutes, {how}", flush=True)
        failed += [] if is_well else [name]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
