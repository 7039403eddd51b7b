"""lance-quant, and small jobs of the demo model for it to count or compare."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from lanced_process import BUILD, DEMO_MODEL

QUANT = BUILD / "lance-quant"


def quant(*words: str | Path) -> str:
    said = subprocess.run([str(word) for word in (QUANT, *words)], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    return said.stdout


def two_of_each(folder: Path) -> dict[str, list[str | Path]]:
    """Options of `calibrate` and `compare`: two small pictures, and two questions about one."""
    (folder / "prompts.txt").write_text("a red circle\na large blue square on the left\n")
    picture = DEMO_MODEL.parents[1] / "workflows/t2v.jpg"
    elements = {"element_dtype_array": ["image", "text"], "istarget_in_interleave": [0, 0]}
    asked = ["what shape is it?", "what colour is the background?"]
    questions = {str(i): elements | {"interleave_array": [str(picture), text]} for i, text in enumerate(asked)}
    (folder / "questions.json").write_text(json.dumps(questions))
    drawn: list[str | Path] = ["--task", "t2i", "--prompts", folder / "prompts.txt", "--size", "64x64", "--steps", "6"]
    answered: list[str | Path] = ["--task", "x2t_image", "--examples", folder / "questions.json"]
    return {"t2i": drawn, "x2t_image": [*answered, "--resolution", "64x64/56x56"]}
