"""The scores side by side: what was just counted, what `make demo-scores` measured, what the official code reaches."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from demo.examples import TASKS
from demo.score import ATTRIBUTES, Tally, standard_error

FOLDER = Path(__file__).resolve().parent
# The forms of the language model's weights, by the folder that has them.
FORMS = {
    "bf16": "lance-demo",
    "awq-128": "lance-demo-awq",
    "awq-64": "lance-demo-awq64",
    "nvfp4": "lance-demo-nvfp4",
}
MEASURED = FOLDER / "scores.json"
Percent = Mapping[str, float]  # of one task: attribute or topic, "asked", "all"; and the "count" of items


def read_official() -> dict[str, Percent]:
    tasks: dict[str, dict[str, float]] = json.loads((FOLDER / "official_scores.json").read_text())["tasks"]
    for percent in tasks.values():
        # Every item of a generation task was asked for the same attributes, every topic of questions equally often.
        attributes = [value for name, value in percent.items() if name not in ("count", "all")]
        percent["asked"] = sum(attributes) / len(attributes)
    return dict(tasks)


def read_measured() -> dict[str, dict[str, Percent]]:
    """By form and task; empty where nothing has been measured."""
    forms: dict[str, dict[str, Percent]] = json.loads(MEASURED.read_text())["forms"] if MEASURED.exists() else {}
    return forms


def percent_of(tally: Tally) -> dict[str, float]:
    return {"count": tally.count} | {name: round(value, 1) for name, value in tally.percent().items()}


def closing_table(tallies: Mapping[str, Tally], form: str) -> list[str]:
    """Lines for the terminal."""
    measured, official = read_measured(), read_official()
    columns = [name for name in FORMS if name in measured]
    counts = sorted({int(percent["count"]) for tasks in measured.values() for percent in tasks.values()}, reverse=True)
    title = "longer runs: asked/all right, %" if columns else ""
    lines = [
        f"{'':11} {f'{form}, now':>20}   {title:{9 * len(columns)}} official code",
        f"{'task':11} {'asked right':>12} {'all':>7}   {''.join(f'{name:>8} ' for name in columns)}{'bf16':>10}",
    ]
    for task in TASKS:
        if task not in tallies:
            continue
        tally = tallies[task]
        marks = [mark for row in tally.rows for mark in row.values()]
        cells = [f"{percent['asked']:3.0f}/{percent['all']:<3.0f}" for percent in (measured[c][task] for c in columns)]
        reference = f"{official[task]['asked']:3.0f}/{official[task]['all']:<3.0f}"
        now = f"{f'{sum(marks)} of {len(marks)}':>12} {f'{tally.all_right()}/{tally.count}':>7}"
        lines.append(f"{task:11} {now}   {''.join(f'{cell:>8} ' for cell in cells)}{reference:>10}")
    lines.append(
        "asked: colours, places, sizes, shapes, motions, answers that are right; all: items with everything right."
    )
    if counts:
        lines.append(
            f"Longer runs have {counts[0]} items a task, clips {counts[-1]} (demo/scores.md). So few swing by many "
            "points, and the fewer now by more."
        )
    return lines


def difference(rows: Sequence[bool], reference: Sequence[bool]) -> tuple[float, float]:
    """Mean difference in points of marks of the same items in the same order, and its standard error."""
    gaps = [100 * (int(a) - int(b)) for a, b in zip(rows, reference, strict=True)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / max(1, len(gaps) - 1)
    return mean, math.sqrt(variance / len(gaps))


def markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def score_lines(tallies: Mapping[str, Mapping[str, Tally]]) -> list[str]:
    """The scores, a row a task and form, in markdown."""
    official = read_official()
    head = ["task", "n", "form", *ATTRIBUTES, "asked", "all"]
    lines = [markdown_row(head), markdown_row(["---"] * len(head))]

    def add(task: str, form: str, percent: Percent) -> None:
        cells = [f"{percent[name]:.0f}" if name in percent else "" for name in ATTRIBUTES]
        totals = [f"{percent['asked']:.1f}", f"{percent['all']:.1f}"]
        lines.append(markdown_row([task, f"{percent['count']:.0f}", form, *cells, *totals]))

    for task in TASKS:
        for form, tasks in tallies.items():
            add(task, form, percent_of(tasks[task]))
        add(task, "official code, bf16", official[task])
    return lines


def difference_lines(tallies: Mapping[str, Mapping[str, Tally]], reference: str = "bf16") -> list[str]:
    """How far the other forms are from bf16 on the same items: of everything asked, of the items with all right."""
    forms = [form for form in tallies if form != reference]
    head = ["task", *(f"{form}: {what}" for form in forms for what in ("asked", "all"))]
    lines = [markdown_row(head), markdown_row(["---"] * len(head))]
    for task in (*TASKS, "everything"):
        cells = [task]
        for form in forms:
            for flatten in (marks_asked, marks_all):
                mine = flatten(tallies[form], task)
                cells.append("{:+.1f} ± {:.1f}".format(*difference(mine, flatten(tallies[reference], task))))
        lines.append(markdown_row(cells))
    return lines


def tallies_of(tasks: Mapping[str, Tally], task: str) -> list[Tally]:
    return list(tasks.values()) if task == "everything" else [tasks[task]]


def marks_asked(tasks: Mapping[str, Tally], task: str) -> list[bool]:
    return [mark for tally in tallies_of(tasks, task) for row in tally.rows for mark in row.values()]


def marks_all(tasks: Mapping[str, Tally], task: str) -> list[bool]:
    return [all(row.values()) for tally in tallies_of(tasks, task) for row in tally.rows]


def document(tallies: Mapping[str, Mapping[str, Tally]], seed: int) -> str:
    """demo/scores.md"""
    bf16 = tallies["bf16"]
    errors = [f"{task} {standard_error(bf16[task].percent()['all'], bf16[task].count):.0f}" for task in TASKS]
    introduction = f"""\
# Scores of the demo model in lanced

Written by `make demo-scores`, as measured: percent right, read back with pixel statistics (`shapes.py`); clips in
their middle frame, and their motion between the first and the last. Prompts, sources and noise are those of
`demo/train/evaluate.py --count 60 --seed {seed}`, which gave the numbers of the official code
(`official_scores.json`); only the latents of sources are sampled with other noise.

**asked** is the share of all attributes asked for that are right, topics of questions included; **all** is the share of
items with every attribute right, in edits also those that should stay.
"""
    comparison = f"""
One standard error of **all** of bf16, in points: {", ".join(errors)}.

## Against bf16

Points more or less than bf16 has on the same items with the same noise, ± one standard error of that difference. (In
**asked** the attributes of one item are counted as if they were independent.)
"""
    return "\n".join([introduction, *score_lines(tallies), comparison, *difference_lines(tallies), ""])
