"""The version stands in protocol/version.h alone: what cannot read that says the same, as `make version` writes it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from shutil import copy

import lanced_client

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "protocol/version.h"
PROJECTS = ("pyproject.toml", "tools/lance-farm/pyproject.toml")
WRITTEN = ("protocol/python/lanced_client/version.py", *PROJECTS)


def test_every_file_says_the_version_of_version_h() -> None:
    header = (ROOT / SOURCE).read_text()
    version = re.search(r'^#define LANCED_VERSION "(\d+\.\d+\.\d+)"$', header, re.M)
    protocol = re.search(r"PROTOCOL_VERSION = (\d+)", header)
    assert version and protocol
    assert lanced_client.__version__ == version[1], "run `make version`"
    assert int(protocol[1]) == lanced_client.version.PROTOCOL_VERSION, "run `make version`"
    for project in PROJECTS:
        assert f'\nversion = "{version[1]}"\n' in (ROOT / project).read_text(), "run `make version`"


def test_make_version_writes_what_version_h_says(tmp_path: Path) -> None:
    for name in ("Makefile", SOURCE, *WRITTEN):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, tmp_path / name)
    header = tmp_path / SOURCE
    text = re.sub(r'"\d+\.\d+\.\d+"', '"12.3.45"', header.read_text())
    header.write_text(text.replace("PROTOCOL_VERSION = ", "PROTOCOL_VERSION = 9"))
    subprocess.run(["make", "-s", "-C", str(tmp_path), "version"], check=True, capture_output=True)
    for name in WRITTEN:
        before, after = (ROOT / name).read_text().splitlines(), (tmp_path / name).read_text().splitlines()
        changed = [line for line, old in zip(after, before, strict=True) if line != old]
        assert changed[0].lower() == 'version = "12.3.45"'
        assert all(line.startswith("PROTOCOL_VERSION = 9") for line in changed[1:])
