"""The Dockerfile and the Apptainer definition of a node install what lanced and lancectl are built and run with."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lanced_process import LANCECTL, LANCED, ROOT

FILES = ("Dockerfile", "lance-farm.def")


def installed_by(file: str) -> list[set[str]]:
    """The packages that each stage of it installs."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "tools/lance-farm/node" / file).read_text())
    lines = re.findall(r"apt-get install -y --no-install-recommends ([^&\n]*)", text)
    return [set(line.split()) for line in lines]


def list_of_setup(name: str) -> set[str]:
    text = (ROOT / "tools/setup.sh").read_text().replace("\\\n", "")
    found = re.search(rf'^{name}="(.*)"', text, re.MULTILINE)
    assert found
    return set(found[1].split())


def libraries(program: Path) -> set[str]:
    """The packages of the libraries that a program is linked with."""
    told = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
    needed = subprocess.run(["readelf", "-d", str(program)], capture_output=True, text=True, check=True).stdout
    names = re.findall(r"NEEDED.*\[(.*)\]", needed)
    paths = [Path(found[1]).resolve() for name in names if (found := re.search(rf"{re.escape(name)} => (\S+)", told))]
    files = [f"*/{path.parent.name}/{path.name}" for path in paths]
    owners = [subprocess.run(["dpkg", "-S", file], capture_output=True, text=True) for file in files]
    return {owner.stdout.partition(":")[0] for owner in owners} - {"libc6"}


@pytest.mark.parametrize("file", FILES)
def test_a_container_is_built_with_all_that_setup_installs_to_build(file: str) -> None:
    build, _ = installed_by(file)
    assert list_of_setup("build_packages") | list_of_setup("media_packages") == build


def test_what_a_container_copies_and_makes_is_there() -> None:
    dockerfile = (ROOT / "tools/lance-farm/node/Dockerfile").read_text()
    copied = re.findall(r"^COPY (?!--from)(\S+) ", dockerfile, re.MULTILINE)
    copied += re.findall(r"^    /src/(\S+) ", (ROOT / "tools/lance-farm/node/lance-farm.def").read_text(), re.MULTILINE)
    assert len(copied) == 3
    assert all((ROOT / path).is_dir() for path in copied)
    for words in set(re.findall(r"make -C /src (\w+) BUILD", dockerfile)):
        assert subprocess.run(["make", "-n", words], cwd=ROOT, capture_output=True).returncode == 0


@pytest.mark.skipif(not shutil.which("dpkg"), reason="not a Debian")
@pytest.mark.parametrize("file", FILES)
def test_a_container_has_every_library_that_its_programs_are_linked_with(file: str) -> None:
    _, node = installed_by(file)
    assert libraries(LANCED) | libraries(LANCECTL) <= node
