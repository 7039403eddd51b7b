"""The node pack as ComfyUI's registry hands it out: the one command builds it, and its demo models are whole."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from published_pack import unpack_published_pack


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "lanced"
    unpack_published_pack(folder)
    return folder


def test_make_has_all_that_it_builds_lanced_from(pack: Path) -> None:
    done = subprocess.run(["make", "-C", str(pack), "-n", "all"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "build/lanced " in done.stdout


def test_a_demo_model_has_its_vae_and_its_vit(pack: Path) -> None:
    models = [path for path in (pack / "demo").iterdir() if path.name.startswith("lance-demo")]
    assert models
    for model in models:
        for name in ("Wan2.2_VAE.pth", "Qwen2.5-VL-ViT/vit.safetensors", "Qwen2.5-VL-ViT/config.json", "vocab.json"):
            assert (model / name).stat().st_size > 0, f"{model.name}/{name}"
