"""`make quant-report`: makes every quantised form of the demo model anew and compares each, and the files that the
published scripts made, with bf16 on jobs that calibration has not seen: demo/out/quant/report.md and report.json.

    .venv/bin/python -m demo.quant_report [--forms awq-128,int8] [--ablation] [--samples 24]
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from demo.examples import GENERATION_TASKS, QUESTION_TASKS, TASKS, Example, examples, is_clip, shoot
from demo.shapes import Pixels
from tools.quant_plots import draw

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "demo/lance-demo"
CALIBRATION_SEED, UNSEEN_SEED = 1, 20261
CALIBRATED = {"t2i": 14, "image_edit": 8, "t2v": 5, "i2v": 5, "video_edit": 4, "x2t_image": 12, "x2t_video": 12}
INGREDIENTS = ("scaling", "down-through-up", "clipping", "four-or-six", "feedback", "refinement")


@dataclass(frozen=True)
class Form:
    words: tuple[str, ...]  # of lance-quant apply
    published: str = ""  # the folder that the published scripts made
    by_results: bool = False  # layers get their bits by what results lose with each alone in 4 bits


FORMS = {
    "awq-128": Form(("--form", "awq-int4"), "lance-demo-awq"),
    "awq-64": Form(("--form", "awq-int4", "--group", "64"), "lance-demo-awq64"),
    "nvfp4": Form(("--form", "nvfp4"), "lance-demo-nvfp4"),
    "int8": Form(("--form", "int8")),
    "mixed-5": Form(("--form", "mixed", "--budget", "5")),
    "mixed-5 by results": Form(("--form", "mixed", "--budget", "5"), by_results=True),
}


def save_source(lancectl: Path, frames: Pixels, to: Path) -> Path:
    """A picture as PNG, a clip as its frames' Y4M: what is read is what was drawn, but for the clip's colours."""
    if len(frames) == 1:
        Image.fromarray(frames[0]).save(to.with_suffix(".png"))
        return to.with_suffix(".png")
    with tempfile.TemporaryDirectory() as folder:
        for i, frame in enumerate(frames):
            Image.fromarray(frame).save(Path(folder) / f"{i:03}.png")
        stills = sorted(str(path) for path in Path(folder).iterdir())
        command = [lancectl, "clip", *stills, "--fps", "12", "-o", to.with_suffix(".mp4")]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    return to.with_suffix(".mp4")


def entry(lancectl: Path, example: Example, to: Path) -> Any:
    """One entry of an example file of the official form."""
    if example.source is None:
        return example.prompt
    frames = shoot(example.task, example.source)
    path = save_source(lancectl, frames[:1] if example.task == "i2v" else frames, to)
    kind = "image" if path.suffix == ".png" else "video"
    return {
        "interleave_array": [str(path), example.prompt],
        "element_dtype_array": [kind, "text"],
        "istarget_in_interleave": [0, 0],
    }


def example_file(lancectl: Path, task: str, count: int, seed: int, folder: Path) -> Path:
    drawn = examples(task, count, random.Random(f"{task} {seed}"))
    name = f"{task}-{seed}"
    entries = {f"{i:03}": entry(lancectl, one, folder / f"{name}-{i:03}") for i, one in enumerate(drawn)}
    (folder / f"{name}.json").write_text(json.dumps(entries))
    return folder / f"{name}.json"


def jobs(task: str, file: Path) -> list[str]:
    """Options of calibrate and compare: the size that the model was trained on."""
    sizes = json.loads((MODEL / "demo.json").read_text())
    size = sizes["video" if is_clip(task) else "image"]
    words = ["--task", task, "--examples", str(file)]
    if task not in ("t2i", "t2v"):
        words += ["--resolution", f"{size['height']}x{size['width']}/{size['vit']}x{size['vit']}"]
    if task in ("t2i", "t2v"):
        words += ["--size", f"{size['width']}x{size['height']}"]
    if task in ("t2v", "i2v"):
        words += ["--frames", str(size["frames"])]
    return words


class Report:
    def __init__(self, build: Path, folder: Path, samples: int, tasks: Sequence[str]) -> None:
        self.quant, self.lancectl, self.folder = build / "lance-quant", build / "lancectl", folder
        self.samples, self.tasks = samples, tasks
        self.rows: list[dict[str, Any]] = []

    def run(self, *words: str | Path) -> None:
        said = subprocess.run([str(word) for word in (self.quant, *words)], capture_output=True, text=True, check=False)
        if said.returncode != 0:
            sys.exit(f"lance-quant {words[0]}: {said.stderr}")

    def calibrate(self) -> Path:
        stats = self.folder / "stats.safetensors"
        if stats.exists():
            return stats
        parts = []
        for task in TASKS:
            file = example_file(self.lancectl, task, CALIBRATED[task], CALIBRATION_SEED, self.folder)
            parts.append(self.folder / f"stats-{task}.safetensors")
            print(f"calibrating: {task}", flush=True)
            self.run("calibrate", "--model", MODEL, *jobs(task, file), "-o", parts[-1])
        self.run("merge", *parts, "-o", stats)
        return stats

    def sensitivities(self, stats: Path) -> Path:
        """Of each layer, by pictures that calibration has seen."""
        file = self.folder / "sensitivities.json"
        if not file.exists():
            print("drawing with each layer alone in 4 bits", flush=True)
            command: list[str | Path] = [sys.executable, ROOT / "tools/layer_sensitivities.py", "--model", MODEL]
            command += ["--stats", stats, "--quant", self.quant, "-o", file, "--samples", "8"]
            seen = jobs("t2i", self.folder / f"t2i-{CALIBRATION_SEED}.json")
            subprocess.run([str(word) for word in (*command, *seen)], check=True, stdout=subprocess.DEVNULL)
        return file

    def make(self, name: str, words: Sequence[str], stats: Path) -> Path:
        model = self.folder / name
        shutil.rmtree(model, ignore_errors=True)
        self.run("apply", "--model", MODEL, "--stats", stats, *words, "-o", model)
        for file in MODEL.iterdir():
            if file.name != "model.safetensors":
                (model / file.name).symlink_to(file)
        return model

    def compare(self, name: str, model: Path, stats: Path) -> dict[str, Any]:
        row: dict[str, Any] = {"name": name}
        for task in self.tasks:
            count = self.samples if task in ("t2i", *QUESTION_TASKS) else max(self.samples // 3, 1)
            file = self.folder / f"{task}-{UNSEEN_SEED}.json"
            if not file.exists():
                example_file(self.lancectl, task, count, UNSEEN_SEED, self.folder)
            report = self.folder / f"{name}-{task}"
            shutil.rmtree(report, ignore_errors=True)
            layers = ("--stats", stats) if task == self.tasks[0] else ()
            options = jobs(task, file)
            self.run("compare", "--model", model, "--reference", MODEL, *options, *layers, "-o", report)
            told = json.loads((report / "report.json").read_text())
            row[task] = told["tasks"][0]
            row.setdefault("layers", told.get("layers"))
        self.rows.append(row)
        print(row_text(row, self.tasks), flush=True)
        return row

    def write(self) -> None:
        (self.folder / "report.json").write_text(json.dumps(self.rows, indent=1))
        lines = [header(self.tasks), *(row_text(row, self.tasks) for row in self.rows)]
        (self.folder / "report.md").write_text("\n".join(lines) + "\n")


def header(tasks: Sequence[str]) -> str:
    drawn, said = "latents, PSNR, SSIM, fine", "tokens, exact, perplexity's increase"
    names = [f"{task}: {drawn if task in GENERATION_TASKS else said}" for task in tasks]
    return f"| | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}"


def row_text(row: dict[str, Any], tasks: Sequence[str]) -> str:
    cells = []
    for task in tasks:
        told = row[task]
        if task in GENERATION_TASKS:
            likeness = f"{told['psnr_db']:.1f}, {told['ssim']:.4f}, {told['fine_energy']:.3f}"
            cells.append(f"{told['latent_error']:.4f}, {likeness}")
        else:
            increase = told["perplexity"] / told["reference_perplexity"] - 1
            cells.append(f"{told['token_agreement']:.3f}, {told['same_answers']:.2f}, {100 * increase:.3f} %")
    return f"| {row['name']} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes and compares every quantised form of the demo model.")
    parser.add_argument("--forms", default=",".join(FORMS), help="comma-separated: " + ", ".join(FORMS))
    parser.add_argument("--tasks", default=",".join(TASKS), help="comma-separated")
    parser.add_argument("--samples", type=int, default=24, help="of t2i and questions; a third of it of the others")
    parser.add_argument("--ablation", action="store_true", help="each form without each ingredient, too; t2i alone")
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--out", type=Path, default=ROOT / "demo/out/quant")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    tasks = ["t2i"] if args.ablation else args.tasks.split(",")
    report = Report(args.build, args.out, args.samples, tasks)
    stats = report.calibrate()
    for name in args.forms.split(","):
        form = FORMS[name]
        if form.published:
            report.compare(f"{name}, published", MODEL.parent / form.published, stats)
        words = (*form.words, "--sensitivities", str(report.sensitivities(stats))) if form.by_results else form.words
        report.compare(name, report.make(name, words, stats), stats)
        for without in INGREDIENTS if args.ablation else ():
            if without != "four-or-six" or name == "nvfp4":
                model = report.make(f"{name} without {without}", (*words, "--without", without), stats)
                report.compare(model.name, model, stats)
        report.write()
    if not draw(report.rows, report.folder / "layers.svg"):
        print("no plots: matplotlib is not installed", flush=True)
    print(f"{report.folder / 'report.md'}")


if __name__ == "__main__":
    main()
