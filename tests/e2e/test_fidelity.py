"""The table of docs/fidelity.md: check-golden's lines through tests/golden/fidelity.py."""

from __future__ import annotations

import subprocess
import sys

from lanced_process import BUILD, ROOT


def test_every_stage_that_is_compared_has_a_column_in_the_table() -> None:
    program = BUILD / "tests/check-golden"
    subprocess.run(["make", "-s", str(program.relative_to(ROOT))], cwd=ROOT, check=True)
    compared = subprocess.run([program, ROOT / "tests/golden/data"], capture_output=True, text=True, check=True).stdout
    table = subprocess.run(
        [sys.executable, ROOT / "tests/golden/fidelity.py"], input=compared, capture_output=True, text=True, check=True
    ).stdout
    assert "failed" not in table
    assert {"t2i_a.nvfp4.f32", "x2t_image_a.f32"} <= {
        line.split()[1] for line in table.splitlines() if line[:2] == "| "
    }
