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
