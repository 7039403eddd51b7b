"""make install and make uninstall, into a folder of the test's own."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from lanced_process import BUILD, ROOT


def make(target: str, root: Path) -> None:
    command = ["make", "-s", target, f"BUILD={BUILD.name}", f"DESTDIR={root}", "PREFIX=/opt/lance"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)


def test_what_is_installed_runs_and_is_taken_out_again(tmp_path: Path) -> None:
    make("install", tmp_path)
    folder = tmp_path / "opt/lance"
    for name in ("lanced", "lancectl"):
        said = subprocess.run([folder / "bin" / name, "--version"], check=True, capture_output=True, text=True).stdout
        assert said.startswith(f"{name} ")
    graph = ["graph", str(ROOT / "workflows/api/t2i.json"), "--dry-run"]  # which needs the tables of nodes
    assert subprocess.run([folder / "bin/lancectl", *graph], check=True, capture_output=True).stdout
    documents = folder / "share/doc/lanced"
    links = re.findall(r"\]\(([^)#]+)\)", (documents / "README.md").read_text())
    assert [link for link in links if "://" not in link and not (documents / link).exists()] == []
    assert "ExecStart=/opt/lance/bin/lanced " in (documents / "docs/lanced.service").read_text()
    make("uninstall", tmp_path)
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []
