"""The shape of latents stands in one header, and in Python once more."""

from __future__ import annotations

import re
from pathlib import Path

from lanced_client import latent_shape

ROOT = Path(__file__).resolve().parents[2]


def test_python_has_the_numbers_of_the_header() -> None:
    numbers = dict(re.findall(r"(\w+) = (\d+)", (ROOT / "protocol/latent_shape.h").read_text()))
    assert numbers == {
        "LATENT_CHANNELS": str(latent_shape.LATENT_CHANNELS),
        "VAE_SPATIAL_STRIDE": str(latent_shape.CELL_PIXELS),
        "VAE_TEMPORAL_STRIDE": str(latent_shape.FRAMES_PER_LATENT_FRAME),
    }
