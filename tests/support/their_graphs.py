"""Example graphs of other Lance packs, from their own checkouts: GRAPHS=DIR[:DIR...]. None of them is installed here,
and none is copied."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from comfyui_server import ROOT

PICTURE = ROOT / "workflows/input/lance-circle.png"  # in place of those that the graphs load
FOLDERS = [Path(folder) for folder in os.environ.get("GRAPHS", "").split(os.pathsep) if folder]
REASON = "needs GRAPHS=DIR[:DIR...], checkouts of other Lance packs"


def _holding(word: str) -> list[Path]:
    paths = [path for folder in FOLDERS for path in sorted(folder.rglob("*.json"))]
    texts = {path: path.read_text(encoding="utf-8", errors="ignore") for path in paths}
    return [path for path, text in texts.items() if '"Lance' in text and word in text]


UI_FILES = _holding('"nodes"')
API_FILES = _holding('"class_type"')


def named(path: Path) -> str:
    """For the name of a test."""
    return f"{path.parents[1].name}/{path.stem}"


def loaded(path: Path) -> dict[str, Any]:
    graph: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return graph


def submitted(graph: dict[str, Any], known: set[str]) -> dict[str, Any]:
    """A graph in API form without nodes of third packs, which show a text."""
    kinds = {key: str(node["class_type"]) for key, node in graph.items()}
    return {key: graph[key] for key, kind in kinds.items() if kind in known or kind.startswith("Lance")}


def opened(workflow: dict[str, Any], known: set[str]) -> dict[str, Any]:
    """A graph in the UI's form without nodes of third packs, which show a text."""
    gone = {node["id"] for node in workflow["nodes"] if node["type"] not in known}
    gone -= {node["id"] for node in workflow["nodes"] if node["type"].startswith("Lance")}
    dead = {link[0] for link in workflow["links"] if link[1] in gone or link[3] in gone}
    workflow["nodes"] = [node for node in workflow["nodes"] if node["id"] not in gone]
    workflow["links"] = [link for link in workflow["links"] if link[0] not in dead]
    for node in workflow["nodes"]:
        for output in node.get("outputs", []):
            output["links"] = [link for link in output.get("links") or [] if link not in dead] or None
    return workflow
