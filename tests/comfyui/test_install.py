"""The pack as people have it: from the registry without a built daemon, with an installed one, and on other systems."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from comfyui_server import ROOT, ComfyUI
from lanced_process import LANCED, Lanced
from published_pack import unpack_published_pack
from workflow_files import api_form

ANOTHER_SYSTEM = ROOT / "tests/support/another_system.py"
ComfyUIOf = Callable[..., ComfyUI]


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    copy = tmp_path / "shipped"
    unpack_published_pack(copy)
    return copy


@pytest.fixture
def own_endpoint() -> Iterator[str]:
    """Where nobody is yet. A short path: a socket's may have about 100 characters."""
    with tempfile.TemporaryDirectory(prefix="lanced-") as folder:
        yield f"ipc://{folder}/lanced.ipc"


def test_a_pack_without_a_daemon_names_the_one_command(
    comfyui_of: ComfyUIOf, shipped: Path, own_endpoint: str, tmp_path: Path
) -> None:
    if shutil.which("lanced", path="/usr/local/bin:/usr/bin:/bin"):
        pytest.skip("a lanced is installed on this machine")
    with comfyui_of(tmp_path / "base", own_endpoint, pack=shipped, PATH="/usr/bin:/bin") as comfyui:
        run = comfyui.run(api_form("t2i", steps=2))
    assert run.status == "error"
    assert run.error_type == "lance.Refused"
    assert f"cd {shipped} && sh tools/setup.sh demo && make" in run.error
    assert (shipped / "tools/setup.sh").is_file()
    assert (shipped / "Makefile").is_file()


def test_an_installed_lanced_is_found(
    comfyui_of: ComfyUIOf, shipped: Path, own_endpoint: str, tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "lanced").symlink_to(LANCED)
    path = f"{programs}:/usr/bin:/bin"
    with comfyui_of(tmp_path / "base", own_endpoint, pack=shipped, PATH=path) as comfyui:
        made = comfyui.run(api_form("t2i", steps=2))
        comfyui.upload(ROOT / "workflows/input/lance-circle.png")
        asked = comfyui.run(api_form("ask_image"))
    assert made.status == "success", made.error
    assert asked.status == "success", asked.error


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_on_another_system_the_nodes_are_there_and_work_with_a_daemon_elsewhere(
    comfyui_of: ComfyUIOf, comfyui: ComfyUI, shipped: Path, own_endpoint: str, tmp_path: Path, system: str
) -> None:
    nodes = {name for name in comfyui.get("/object_info") if name.startswith("Lanced")}
    shutil.copy(ANOTHER_SYSTEM, shipped)
    start = shipped / "__init__.py"
    start.write_text(f"from . import another_system\nanother_system.begin()\n{start.read_text()}another_system.end()\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        elsewhere = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    with Lanced(endpoint=elsewhere), comfyui_of(
        tmp_path / "base", own_endpoint, pack=shipped, PRETENDED_SYSTEM=system
    ) as other:
        assert {name for name in other.get("/object_info") if name.startswith("Lanced")} == nodes
        form = api_form("t2i", steps=2)
        form["1"]["inputs"]["endpoint"] = elsewhere
        run = other.run(form)
        assert run.status == "success", run.error
        alone = other.run(api_form("t2i", steps=2))
    assert alone.status == "error"
    assert "start it on a Linux machine with --endpoint tls+tcp://0.0.0.0:8471" in alone.error
