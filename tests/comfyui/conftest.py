"""One ComfyUI for all tests of this folder: COMFYUI=DIR names its checkout, COMFYUI_PYTHON a Python that has what
ComfyUI requires (by default that of a venv in the checkout)."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfyui_server import ROOT, ComfyUI
from lanced_client import Client, ConnectionFailed


def comfyui_python(comfyui: Path) -> str:
    chosen = os.environ.get("COMFYUI_PYTHON")
    candidates = [Path(chosen)] if chosen else [comfyui / name / "bin/python" for name in ("venv", ".venv")]
    return next((str(path) for path in candidates if path.exists()), sys.executable)


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    # A short path: a socket's may have about 100 characters, which pytest's own folders use up.
    with tempfile.TemporaryDirectory(prefix="lanced-") as folder:
        yield f"ipc://{folder}/lanced.ipc"


@pytest.fixture(scope="session")
def comfyui(tmp_path_factory: pytest.TempPathFactory, endpoint: str) -> Iterator[ComfyUI]:
    checkout = os.environ.get("COMFYUI")
    if not checkout:
        pytest.skip("needs COMFYUI=DIR, a checkout of ComfyUI")
    if not (ROOT / "build/lanced").exists():
        pytest.fail("build/lanced is missing: run make first")
    folder = Path(checkout).resolve()
    base = tmp_path_factory.mktemp("comfyui")
    with ComfyUI(folder, comfyui_python(folder), base, {"LANCED_ENDPOINT": endpoint}) as running:
        yield running
    deadline = time.monotonic() + 5
    with Client(endpoint) as client:
        while time.monotonic() < deadline:
            try:
                client.hello()
            except ConnectionFailed:
                return
    pytest.fail("the daemon that the nodes started outlived ComfyUI")


@pytest.fixture(scope="session")
def sources(comfyui: ComfyUI) -> None:
    """The pictures and clips that the workflows begin with lie in ComfyUI's input folder."""
    for path in (ROOT / "workflows/input").iterdir():
        comfyui.upload(path)


@pytest.fixture
def client(comfyui: ComfyUI, endpoint: str) -> Iterator[Client]:
    """A client of the daemon that the nodes started, or will start."""
    with Client(endpoint) as client:
        yield client
