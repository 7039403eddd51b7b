"""make install and make uninstall, into a folder of the test's own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lanced_process import BUILD, ROOT


def make(target: str, root: Path) -> None:
    command = ["make", "-s", target, f"BUILD={BUILD.name}", f"DESTDIR={root}", "PREFIX=/opt/lance"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)


def shown(page: Path) -> str:
    command = ["man", "-l", "--warnings", str(page)]
    answer = subprocess.run(command, env=os.environ | {"MANWIDTH": "200"}, capture_output=True, text=True, check=True)
    assert answer.stderr == ""
    return re.sub(r".\x08", "", answer.stdout)


@pytest.mark.skipif(shutil.which("man") is None, reason="no man here")
def test_manual_pages_have_every_option_that_the_help_has(tmp_path: Path) -> None:
    make("install", tmp_path)
    for name, command in {"lanced": ["--help"], "lancectl": ["help"], "lance-quant": ["help"]}.items():
        said = subprocess.run([BUILD / name, *command], check=True, capture_output=True, text=True).stdout
        page = shown(tmp_path / f"opt/lance/share/man/man1/{name}.1").replace("\u2010", "-")
        assert [option for option in re.findall(r"--[a-z-]+", said) if option not in page] == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_takes_the_service_and_finds_it_shut_in(tmp_path: Path) -> None:
    make("install", tmp_path)
    unit = tmp_path / "opt/lance/lib/systemd/system/lanced.service"
    assert "ExecStart=/opt/lance/bin/lanced " in unit.read_text()
    unit.write_text(unit.read_text().replace("/opt/lance/", f"{tmp_path}/opt/lance/").replace("Documentation=", "#"))
    verified = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert (verified.returncode, verified.stderr) == (0, "")
    judged = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)]  # of 100, all open
    assert subprocess.run(judged, capture_output=True).returncode == 0


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
    for name in ("lanced", "lancectl", "lance-quant", "lance-farm"):
        page = (folder / f"share/man/man1/{name}.1").read_text()
        assert page.startswith(f".TH {name} 1 ")
    make("uninstall", tmp_path)
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []
