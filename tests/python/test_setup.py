"""tools/setup.sh on machines where it cannot install: every command it would use is replaced by one that says so."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

SETUP = Path(__file__).resolve().parents[2] / "tools/setup.sh"


def run_setup(folder: Path, what: str = "demo", **commands: str) -> subprocess.CompletedProcess[str]:
    """Runs a copy of setup.sh, in a folder of its own, that finds only the given commands and a few harmless ones."""
    programs, tools = folder / "bin", folder / "tools"
    programs.mkdir(exist_ok=True)
    tools.mkdir(exist_ok=True)
    (tools / "setup.sh").write_text(SETUP.read_text())
    for name in ("requirements.txt", "requirements-dev.txt"):
        (folder / name).write_text((SETUP.parents[1] / name).read_text())
    for name in ("sh", "cat", "cksum", "dirname", "mktemp", "rm", "sed", "sort", "tail", "tr", "env"):
        if not (programs / name).exists():
            (programs / name).symlink_to(f"/usr/bin/{name}")
    for name, script in commands.items():
        program = programs / name.replace("_", "-")
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    return subprocess.run(
        ["/bin/sh", str(tools / "setup.sh"), what],
        env={"PATH": str(programs)},
        text=True,
        capture_output=True,
        timeout=60,
    )


ONLY_NNG_MISSING = 'case "$*" in *libnng-dev) exit 1;; esac; echo installed'


def test_without_root_and_sudo_the_line_to_type_is_printed(tmp_path: Path) -> None:
    done = run_setup(tmp_path, dpkg_query=ONLY_NNG_MISSING, apt_get="echo must not run >&2; exit 9", id="echo 1000")
    assert done.returncode == 1
    assert "apt-get update && apt-get install --no-install-recommends -y libnng-dev" in done.stderr
    assert "must not run" not in done.stderr


def test_it_says_what_it_installs_before_it_does_and_shows_why_apt_failed(tmp_path: Path) -> None:
    apt_get = 'case "$1" in update) exit 0;; esac; echo "E: no space left on device"; exit 100'
    done = run_setup(tmp_path, dpkg_query=ONLY_NNG_MISSING, apt_get=apt_get, id="echo 0")
    assert done.returncode == 1
    assert "setup: installing Debian packages: libnng-dev" in done.stdout
    assert "no space left on device" in done.stderr
    assert "apt-get update && apt-get install" in done.stderr


def test_sudo_is_used_when_not_root(tmp_path: Path) -> None:
    sudo = f'echo "$*" >> {tmp_path}/sudo.log; exit 1'
    done = run_setup(tmp_path, dpkg_query=ONLY_NNG_MISSING, apt_get="exit 9", id="echo 1000", sudo=sudo)
    assert done.returncode == 1
    assert "sudo may ask" in done.stdout
    asked = (tmp_path / "sudo.log").read_text()
    assert "apt-get install --no-install-recommends -y libnng-dev" in asked


def test_nothing_missing_is_silent_and_installs_nothing(tmp_path: Path) -> None:
    requirements = (SETUP.parents[1] / "requirements.txt").read_bytes()
    checksum = subprocess.run(["cksum"], input=requirements * 2, capture_output=True, check=True).stdout
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / ".venv/bin/python").chmod(0o755)
    (tmp_path / ".venv/installed-requirements.txt").write_bytes(checksum)
    done = run_setup(tmp_path, dpkg_query="echo installed", apt_get="exit 9", id="echo 0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_the_tests_need_is_enough_for_the_demo(tmp_path: Path) -> None:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    python = tmp_path / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/pip.log\n')
    python.chmod(0o755)
    installed = "echo installed"
    assert run_setup(tmp_path, "test", dpkg_query=installed, apt_get="exit 9", id="echo 0").returncode == 0
    assert "pip install" in (tmp_path / "pip.log").read_text()
    done = run_setup(tmp_path, "demo", dpkg_query=installed, apt_get="exit 9", id="echo 0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_tests_of_a_newcomer_need_no_second_compiler(tmp_path: Path) -> None:
    def asked_for(what: str) -> set[str]:
        done = run_setup(tmp_path, what, dpkg_query="exit 1", apt_get="exit 100", id="echo 0")
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("setup: installing Debian packages: ")]
        return set(line.rpartition(": ")[2].split())

    demo, test, deep = (asked_for(what) for what in ("demo", "test", "test-deep"))
    assert test - demo == {"libcmocka-dev"}
    assert deep - test == {"g++", "clang", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "qemu-user-static"}


def test_a_plain_make_builds_the_programs() -> None:
    """The README's `make` and what stands behind it: the first rule of the Makefile once was a vocabulary file's."""
    said = subprocess.run(["make", "-pnq"], cwd=SETUP.parents[1], capture_output=True, text=True).stdout
    assert re.search(r"^\.DEFAULT_GOAL :?= all$", said, re.MULTILINE)
