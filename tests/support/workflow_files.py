"""The workflows of the repository, in both forms."""

from __future__ import annotations

import json
from typing import Any

from comfyui_server import ROOT

WORKFLOWS = ROOT / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json") if not path.is_symlink())


def ui_form(name: str) -> dict[str, Any]:
    """What ComfyUI opens and saves: with positions, widgets by position."""
    form: dict[str, Any] = json.loads((WORKFLOWS / f"{name}.json").read_text())
    return form


def api_form(name: str, **inputs: Any) -> dict[str, Any]:
    """What POST /prompt takes: inputs by name. `inputs` are other ones of its Lance node, which is node 2."""
    form: dict[str, Any] = json.loads((WORKFLOWS / f"api/{name}.json").read_text())
    form["2"]["inputs"].update(inputs)
    return form
