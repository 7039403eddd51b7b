"""Beside other Lance packs, which have taken the plain names: every graph keeps its own nodes, whoever loads first."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator

import pytest

import other_lance_packs
from comfyui_server import ROOT, ComfyUI
from workflow_files import api_form

STAND_IN = ROOT / "tests/support/other_lance_packs.py"


@pytest.fixture(scope="module", params=["aaa-loads-before", "zzz-loads-after"])
def crowded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, comfyui_of: Callable[..., ComfyUI]
) -> Iterator[ComfyUI]:
    base = tmp_path_factory.mktemp("crowded")
    with tempfile.TemporaryDirectory(prefix="lanced-") as folder:
        endpoint = f"ipc://{folder}/lanced.ipc"
        with comfyui_of(base, endpoint, neighbours={request.param: STAND_IN}) as running:
            yield running


def test_every_id_of_the_other_pack_is_its_own_and_every_workflow_of_ours_is_ours(crowded: ComfyUI) -> None:
    nodes = crowded.get("/object_info")
    for name in other_lance_packs.IDS:
        assert nodes[name]["category"] == "another pack", name
    ours = {name for name, info in nodes.items() if info["python_module"].endswith(".lanced")}
    assert ours
    assert not ours & set(other_lance_packs.IDS)
    for name in ours:
        inputs = nodes[name]["input"].get("required", {})
        sockets = {*nodes[name]["output"], *(str(entry[0]) for entry in inputs.values())}
        assert "LANCE_MODEL" not in sockets, "its handle is something else than ours"
    run = crowded.run(api_form("t2i", steps=2))
    assert run.status == "success", run.error
    theirs = crowded.run({"1": {"class_type": "LanceImageEdit", "inputs": {"seed": 7}}})
    assert theirs.outputs["1"]["text"] == ["another pack's node ran"]
