"""`make demo-scores`: scores every weight form on every task and writes demo/scores.md and demo/scores.json.

    PYTHONPATH=protocol/python .venv/bin/python -m demo.measure [--pictures 60] [--clips 20] [--questions 60]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path

from demo.examples import QUESTION_TASKS, TASKS, examples, is_clip
from demo.private_daemon import private_daemon
from demo.score import Tally
from demo.score_table import FOLDER, FORMS, MEASURED, document, percent_of
from demo.tasks import Order, ask_all, orders

SEED = 20261  # that of the official code's scores


def evaluation(counts: dict[str, int], seed: int = SEED) -> list[Order]:
    """The first so many examples of every task that the evaluation in demo/train has."""
    drawn = [examples(task, count, random.Random(seed)) for task, count in counts.items()]
    return [order for of_task in drawn for order in orders(of_task, seed)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Scores every weight form of the demo model on every task.")
    parser.add_argument("--pictures", type=int, default=60, help="of t2i and image_edit")
    parser.add_argument("--clips", type=int, default=20, help="of t2v, i2v and video_edit")
    parser.add_argument("--questions", type=int, default=60, help="of x2t_image and x2t_video")
    parser.add_argument("--lanced", type=Path, default=FOLDER.parent / "build/lanced")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for scores.md and scores.json")
    args = parser.parse_args()
    counts = {task: args.clips if is_clip(task) else args.pictures for task in TASKS}
    counts |= dict.fromkeys(QUESTION_TASKS, args.questions)
    asked = evaluation(counts)
    logs = FOLDER / "out"
    logs.mkdir(parents=True, exist_ok=True)
    tallies: dict[str, dict[str, Tally]] = {}
    for form, name in FORMS.items():
        model = FOLDER / name
        sizes = json.loads((model / "demo.json").read_text())
        print(f"{form}: {len(asked)} items", flush=True)
        with private_daemon(args.lanced, model, logs / f"lanced-{form}.log") as client:
            client.load(model.name)
            outcomes = ask_all(client, asked, sizes)
        tallies[form] = {task: Tally([outcome.marks for outcome in outcomes[task]]) for task in TASKS}
    text = document(tallies, SEED)
    (args.out / "scores.md").write_text(text)
    numbers = {form: {task: percent_of(tally) for task, tally in tasks.items()} for form, tasks in tallies.items()}
    (args.out / MEASURED.name).write_text(json.dumps({"seed": SEED, "forms": numbers}, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ninterrupted")
