"""`make demo`: starts a daemon of its own on a 4-bit form of the demo model and shows all seven tasks: pictures, edits,
clips, answers. Draws a contact sheet for each, has lancectl write the clips as mp4, and counts what is right.

    PYTHONPATH=protocol/python .venv/bin/python -m demo.demo [--model demo/lance-demo-nvfp4]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from demo.examples import TASKS, Example
from demo.measure import evaluation
from demo.private_daemon import private_daemon
from demo.score import Tally
from demo.score_table import FORMS, closing_table
from demo.shapes import scene_of_caption
from demo.sheets import draw_sheet
from demo.tasks import Order, Outcome, ask_all
from lanced_client import ModelInfo

ROOT = Path(__file__).resolve().parent.parent
# Beside the pictures of prompts.json: so many examples that a demo on two cores ends within half a minute.
COUNTS = {"image_edit": 8, "t2v": 4, "i2v": 4, "video_edit": 4, "x2t_image": 12, "x2t_video": 12}
SHEETS = {
    "t2i": ("contact-sheet.png", "text to image"),
    "image_edit": ("edits.png", "edits, before and after"),
    "t2v": ("t2v.png", "text to video"),
    "i2v": ("i2v.png", "image to video"),
    "video_edit": ("video-edits.png", "video edits, before and after"),
    "x2t_image": ("answers-pictures.png", "questions about pictures"),
    "x2t_video": ("answers-clips.png", "questions about clips"),
}


def picture_orders(path: Path) -> list[Order]:
    return [
        Order(Example("t2i", entry["prompt"], scene_of_caption(entry["prompt"])), entry["seed"])
        for entry in json.loads(path.read_text())
    ]


def write_clips(lancectl: Path, endpoint: str, outcomes: Sequence[Outcome], folder: Path) -> None:
    """As files, by lancectl, from the results that the daemon still has."""
    for number, outcome in enumerate(outcomes, 1):
        path = folder / f"{outcome.example.task}-{number}.mp4"
        command = [str(lancectl), "fetch", outcome.job, "-o", str(path), "--endpoint", endpoint, "--quiet"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def describe(model: ModelInfo | None, directory: Path) -> str:
    return f"{model.name} ({model.kind})" if model else directory.name


def draw_sheets(outcomes: dict[str, list[Outcome]], name: str, folder: Path) -> None:
    for task, done in outcomes.items():
        file, title = SHEETS[task]
        mean = sum(outcome.seconds for outcome in done) / len(done)
        draw_sheet(done, f"{title}: {name}, {mean:.2f} s each", folder / file)


def main() -> None:
    parser = argparse.ArgumentParser(description="Shows all seven tasks of the demo model with a daemon of its own.")
    parser.add_argument("--model", type=Path, default=ROOT / "demo/lance-demo-awq", help="a form of the demo model")
    parser.add_argument("--prompts", type=Path, default=ROOT / "demo/prompts.json")
    parser.add_argument("--lanced", type=Path, default=ROOT / "build/lanced")
    parser.add_argument("--lancectl", type=Path, default=ROOT / "build/lancectl")
    parser.add_argument("--out", type=Path, default=ROOT / "demo/out")
    args = parser.parse_args()
    started = time.monotonic()
    asked = picture_orders(args.prompts) + evaluation(COUNTS)
    sizes = json.loads((args.model / "demo.json").read_text())
    clips = args.out / "clips"
    clips.mkdir(parents=True, exist_ok=True)
    with private_daemon(args.lanced, args.model, args.out / "lanced.log") as client:
        model = client.load(args.model.name)
        name = describe(model, args.model)
        print(f"lanced has loaded {name} in {model.load_seconds:.2f} s; {len(asked)} things to do.", flush=True)
        if advice := client.stats().get("advice"):
            print(f"{advice}.", flush=True)
        outcomes = ask_all(client, asked, sizes, keep_clips=True)
        for task in ("t2v", "i2v", "video_edit"):
            write_clips(args.lancectl, client.endpoint, outcomes[task], clips)
    draw_sheets(outcomes, name, args.out)

    tallies = {task: Tally([outcome.marks for outcome in outcomes[task]]) for task in TASKS}
    form = next((form for form, folder in FORMS.items() if folder == args.model.name), args.model.name)
    print("\n".join(closing_table(tallies, form)))
    pictures = tallies["t2i"]
    right = sum(all(row[name] for name in ("colour", "place", "size")) for row in pictures.rows)
    print(f"Right colour, place and size: {right} of {pictures.count} pictures.")
    per_task = ", ".join(
        f"{task} {sum(outcome.seconds for outcome in done) / len(done):.2f}" for task, done in outcomes.items()
    )
    print(f"Seconds each: {per_task}. In all {time.monotonic() - started:.0f} s.")
    print(f"Look at {args.out}: {', '.join(file for file, _ in SHEETS.values())}, clips/*.mp4")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ninterrupted")
