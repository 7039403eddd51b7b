"""What the tasks of a job are: every row of the table, with every combination of what --set and --seeds go through."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import FarmError
from .table import Row, Table
from .workflow import Graph, find_input, typed

MOST_TASKS = 100_000
SEEDS = "seed"


@dataclass(frozen=True)
class Task:
    number: int  # from 1
    values: dict[str, Any]  # NODE.INPUT -> value
    labels: dict[str, str]  # by column, for names and pages
    line: int = 0  # of the table


@dataclass
class Columns:
    """What the command line says about columns."""

    maps: dict[str, str] = field(default_factory=dict)  # column -> NODE.INPUT
    labels: list[str] = field(default_factory=list)  # columns that only name files


def tasks_of(graph: Graph, table: Table | None, columns: Columns, sets: Sequence[str]) -> list[Task]:
    """FarmError for what names no input, or one twice, or comes to too many tasks."""
    targets = _targets(graph, table, columns)
    sweeps = dict(_sweep(graph, text) for text in sets)
    if len(sweeps) < len(sets):
        raise FarmError("--set (or --seeds) goes through one input twice")
    if twice := sweeps.keys() & set(targets.values()):
        raise FarmError(f"{sorted(twice)[0]} is both a column of the table and given with --set or --seeds")
    rows = table.rows if table else [Row(0, {})]
    count = len(rows)
    for values in sweeps.values():
        count *= len(values)
    if count > MOST_TASKS:
        raise FarmError(f"{count} tasks are more than {MOST_TASKS}; make several jobs")
    combinations = list(itertools.product(*sweeps.values()))
    tasks: list[Task] = []
    for row in rows:
        of_row = {target: _typed(graph, target, row.cells[column]) for column, target in targets.items()}
        for combination in combinations:
            swept = dict(zip(sweeps, combination, strict=True))
            labels = row.cells | {_short(name, sweeps): str(value) for name, value in swept.items()}
            tasks.append(Task(len(tasks) + 1, of_row | swept, labels, row.line))
    return tasks


def _targets(graph: Graph, table: Table | None, columns: Columns) -> dict[str, str]:
    """The input of each column of the table."""
    known = table.columns if table else []
    for column in [*columns.maps, *columns.labels]:
        if column not in known:
            raise FarmError(f'the table has no column "{column}"; it has {", ".join(known) or "none: give --table"}')
    targets: dict[str, str] = {}
    for column in known:
        if column in columns.labels:
            continue
        try:
            target = ".".join(find_input(graph, columns.maps.get(column, column)))
        except FarmError as error:
            raise FarmError(f'column "{column}": {error} (--map "{column}=NODE.INPUT" or --label "{column}")') from None
        if target in targets.values():
            raise FarmError(f'column "{column}" sets {target}, as another column does')
        targets[column] = target
    return targets


def _typed(graph: Graph, target: str, text: str) -> Any:
    key, name = find_input(graph, target)
    return typed(text, graph[key]["inputs"][name])


def _sweep(graph: Graph, text: str) -> tuple[str, list[Any]]:
    """NODE.INPUT=a..b, or =a,b,c with quotes as in CSV."""
    name, equals, listed = text.partition("=")
    if not equals:
        raise FarmError(f"--set {text}: is not NODE.INPUT=VALUES, such as 3.steps=10..12 or 3.width=256,512")
    target = ".".join(find_input(graph, name))
    if found := re.fullmatch(r"(\d{1,20})\.\.(\d{1,20})", listed):
        first, last = int(found[1]), int(found[2])
        if last < first or last - first >= MOST_TASKS:
            raise FarmError(f"--set {text}: {listed} is no range from low to high of up to {MOST_TASKS} numbers")
        return target, list(range(first, last + 1))
    try:
        values = next(csv.reader([listed], skipinitialspace=True), [])
    except csv.Error as error:
        raise FarmError(f"--set {text}: {error}") from None
    if not values or "" in values:
        raise FarmError(f"--set {text}: there is an empty value")
    return target, [_typed(graph, target, value) for value in values]


def _short(name: str, names: dict[str, Any]) -> str:
    """INPUT where it is the only one of its name, else NODE.INPUT."""
    last = name.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in names) == 1 else name


def resolved_file(name: str, folder: Path) -> Path:
    """A file that a workflow names, which has to be in the folder of inputs. FarmError."""
    if name.endswith("[output]") or name.endswith("[temp]"):
        raise FarmError(f'"{name}" is an output of ComfyUI: copy it into the folder of inputs')
    path = (folder / name.removesuffix(" [input]")).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise FarmError(f'"{name}" leads out of the folder of inputs')
    if not path.is_file():
        raise FarmError(f"{folder / name} is missing (--input-dir says where the workflow's files are)")
    return path
