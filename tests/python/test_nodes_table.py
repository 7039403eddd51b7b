"""protocol/nodes.json, what each node asks of the daemon, beside the nodes themselves, read from their source."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TABLE: dict[str, Any] = json.loads((ROOT / "protocol/nodes.json").read_text())["nodes"]
PARAMETERS: list[dict[str, Any]] = json.loads((ROOT / "protocol/parameters.json").read_text())["parameters"]
TENSORS = {"source", "latents", "noise"}
RANGE = ("minimum", "maximum", "multiple_of", "choices", "default")
# What an input says other than its parameter, by node and input ("*": of every node), and why.
OTHERWISE: dict[tuple[str, str], dict[str, Any]] = {
    # Without a source there is nothing to take a size from, which 0 would mean.
    ("LancedTextToImage", "width"): {"minimum": 16},
    ("LancedTextToImage", "height"): {"minimum": 16},
    ("LancedTextToVideo", "width"): {"minimum": 16, "default": 848},
    ("LancedTextToVideo", "height"): {"minimum": 16, "default": 480},
    ("*", "seed"): {"default": 0},  # as in ComfyUI
    ("LancedAskImage", "question"): {"default": "Describe the image in detail."},
    ("LancedAskVideo", "question"): {"default": "Describe the video in detail."},
    # Ranges of ComfyUI's own samplers, so that their graphs fit; the daemon refuses what is of no use.
    ("LancedSampler", "denoise"): {"minimum": 0.0},
    ("LancedSampler", "start_at_step"): {"maximum": 10000},
    ("LancedSampler", "end_at_step"): {"minimum": 0},
}


def node_classes() -> dict[str, ast.ClassDef]:
    """Every class of comfyui_nodes/ that is a node, by its id, which is its name."""
    return {
        statement.name: statement
        for path in sorted((ROOT / "comfyui_nodes").glob("*.py"))
        for statement in ast.parse(path.read_text()).body
        if isinstance(statement, ast.ClassDef) and any(ast.unparse(base) == "io.ComfyNode" for base in statement.bases)
    }


CLASSES = node_classes()


def test_every_node_has_an_entry_and_every_entry_is_a_node() -> None:
    assert len(CLASSES) > 10
    assert sorted(TABLE) == sorted(CLASSES)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_an_entry_has_what_its_node_does_not_leave_to_the_table(name: str) -> None:
    """A node takes apart what is no parameter; `**inputs` are those that the table makes parameters of."""
    (execute,) = (
        entry for entry in CLASSES[name].body if isinstance(entry, ast.AsyncFunctionDef) and entry.name == "execute"
    )
    arguments = [argument.arg for argument in execute.args.args if argument.arg != "cls"]
    optional = arguments[len(arguments) - len(execute.args.defaults) :]
    inputs = TABLE[name]["inputs"]
    left = {key for key, given in inputs.items() if execute.args.kwarg and given["becomes"] == "parameter"}
    assert [key for key in inputs if key not in left] == arguments
    assert [key for key, entry in inputs.items() if entry.get("optional") and key not in left] == optional


@pytest.mark.parametrize("name", sorted(TABLE))
def test_what_inputs_become_is_there_in_the_protocol(name: str) -> None:
    entry = TABLE[name]
    tasks = entry.get("task", [])
    tasks = [tasks] if isinstance(tasks, str) else list(tasks)
    known = {one["name"]: one["tasks"] for one in PARAMETERS}
    for key, given in entry["inputs"].items():
        if given["becomes"] == "parameter":
            assert given["parameter"] in known, key
            if isinstance(entry["task"], str):
                assert entry["task"] in known[given["parameter"]], key
        elif given["becomes"] == "payload":
            assert given["payload"] in TENSORS, key
        for other in (given.get("input"), given.get("of")):
            assert other is None or other in entry["inputs"], key
    assert set(entry.get("parameters", {})) <= set(known)
    assert (entry["does"] == "job") == bool(tasks)


def of_parameter(given: dict[str, Any], task: str | None) -> dict[str, Any]:
    """Range and default that an input has by its parameter, for a node of that task."""
    known = {one["name"]: one for one in PARAMETERS}
    parameter = known[given["parameter"]]
    if given.get("part") in ("width", "height"):  # of a size in place of a preset: 0 is the preset
        return {"minimum": 0, "maximum": known[given["part"]]["maximum"], "default": 0}
    default = parameter.get("defaults", {}).get(task, parameter.get("default"))
    if "values" in given:  # words for what the parameter has
        return {
            "choices": given["choices"],
            "default": {value: word for word, value in given["values"].items()}[default],
        }
    if "place" in given:
        default = default[given["place"]]
    found = {key: parameter[key] for key in RANGE if key in parameter} | {"default": default}
    if isinstance(found.get("maximum"), str):  # over what a JSON number holds
        found["maximum"] = int(found["maximum"])
    return {key: value for key, value in found.items() if value is not None}


@pytest.mark.parametrize("name", sorted(TABLE))
def test_an_input_has_the_range_and_the_default_of_its_parameter_but_for_those_named(name: str) -> None:
    task = TABLE[name].get("task")
    for key, given in TABLE[name]["inputs"].items():
        if given["becomes"] != "parameter":
            continue
        expected = of_parameter(given, task if isinstance(task, str) else None)
        for whose in ("*", name):
            other = OTHERWISE.get((whose, key), {})
            assert all(expected.get(part) != value for part, value in other.items()), "it is the parameter's after all"
            expected |= other
        assert {part: given[part] for part in RANGE if part in given} == expected, key


def test_what_is_said_otherwise_is_said_of_inputs_that_are_there() -> None:
    there = {(name, key) for name, entry in TABLE.items() for key in entry["inputs"]}
    assert {(name, key) for name, key in OTHERWISE if name != "*"} <= there
