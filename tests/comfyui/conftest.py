"""One ComfyUI for all tests of this folder: COMFYUI=DIR names its checkout, COMFYUI_PYTHON a Python that has what
ComfyUI requires (by default that of a venv in the checkout). What the tests measure is printed at the end, and kept in
build/comfyui/ beside the screenshots."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from comfyui_server import ANSWER_SECONDS, ROOT, ComfyUI
from figures import Figures
from lanced_client import Client, ConnectionFailed

if TYPE_CHECKING:
    from front_end import FrontEnd

OUT = ROOT / "build/comfyui"


_figures = Figures()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _figures.lines:
        terminalreporter.section("measured")
        terminalreporter.write_line(str(_figures))
        OUT.mkdir(parents=True, exist_ok=True)
        (OUT / "figures.txt").write_text(f"{_figures}\n")
        terminalreporter.write_line(f"\nThese figures and the screenshots are in {OUT.relative_to(ROOT)}/.")


@pytest.fixture(scope="session")
def figures() -> Figures:
    return _figures


def comfyui_python(comfyui: Path) -> str:
    """A Python that has what ComfyUI requires; of several, the first that has torch."""
    chosen = os.environ.get("COMFYUI_PYTHON")
    candidates = [chosen] if chosen else [str(comfyui / name / "bin/python") for name in ("venv", ".venv")]
    candidates += [] if chosen else [sys.executable, "python3"]
    for candidate in candidates:
        try:
            if subprocess.run([candidate, "-c", "import torch, aiohttp"], capture_output=True).returncode == 0:
                return candidate
        except OSError:
            continue
    pytest.fail(
        f"no Python with what ComfyUI requires: looked at {', '.join(candidates)}."
        " Name the one that runs your ComfyUI: make test-comfyui COMFYUI=DIR COMFYUI_PYTHON=FILE"
    )


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    # A short path: a socket's may have about 100 characters, which pytest's own folders use up.
    with tempfile.TemporaryDirectory(prefix="lanced-") as folder:
        yield f"ipc://{folder}/lanced.ipc"


def _comfyui_of(
    base: Path,
    endpoint: str,
    neighbours: Mapping[str, Path] | None = None,
    pack: Path = ROOT,
    **environment: str,
) -> ComfyUI:
    """A ComfyUI, not started yet, whose nodes find their daemon at `endpoint`."""
    checkout = os.environ.get("COMFYUI")
    if not checkout:
        pytest.skip("needs COMFYUI=DIR, a checkout of ComfyUI")
    if not (ROOT / "build/lanced").exists():
        pytest.fail("build/lanced is missing: run make first")
    folder = Path(checkout).resolve()
    return ComfyUI(folder, comfyui_python(folder), base, {"LANCED_ENDPOINT": endpoint} | environment, neighbours, pack)


@pytest.fixture(scope="session")
def comfyui_of() -> Callable[..., ComfyUI]:
    """For tests that need one of their own."""
    return _comfyui_of


@pytest.fixture(scope="session")
def comfyui(tmp_path_factory: pytest.TempPathFactory, endpoint: str) -> Iterator[ComfyUI]:
    with _comfyui_of(tmp_path_factory.mktemp("comfyui"), endpoint) as running:
        for path in (ROOT / "workflows/input").iterdir():  # what the workflows begin with
            running.upload(path)
        yield running
    deadline = time.monotonic() + ANSWER_SECONDS
    with Client(endpoint) as client:
        while time.monotonic() < deadline:
            try:
                client.hello()
            except ConnectionFailed:
                return
    pytest.fail("the daemon that the nodes started outlived ComfyUI")


@pytest.fixture
def client(comfyui: ComfyUI, endpoint: str) -> Iterator[Client]:
    """A client of the daemon that the nodes started, or will start."""
    with Client(endpoint) as client:
        yield client


@pytest.fixture(scope="session")
def front_end(comfyui: ComfyUI) -> Iterator[FrontEnd]:
    """ComfyUI's own front end in a browser, for all tests that need one."""
    module = pytest.importorskip("front_end", reason="needs selenium: tools/setup.sh comfyui installs it")
    found = module.find_browser()
    if found is None:
        pytest.skip("needs Chromium and its driver (Debian: chromium, chromium-driver)")
    with module.FrontEnd(comfyui.url, *found) as page:
        yield page
