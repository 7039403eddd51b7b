"""The shape of latents stands in one header, and in Python once more."""

from __future__ import annotations

import re
from pathlib import Path

from lanced_client import latent_shape
from lanced_client.parameters import parameters

ROOT = Path(__file__).resolve().parents[2]


def test_python_has_the_numbers_of_the_header() -> None:
    numbers = dict(re.findall(r"(\w+) = (\d+)", (ROOT / "protocol/latent_shape.h").read_text()))
    assert numbers == {
        "LATENT_CHANNELS": str(latent_shape.LATENT_CHANNELS),
        "VAE_SPATIAL_STRIDE": str(latent_shape.CELL_PIXELS),
        "LARGEST_SIDE": str(latent_shape.LARGEST_SIDE),
        "LEAST_SOURCE_SIDE": str(latent_shape.LEAST_SOURCE_SIDE),
        "VAE_TEMPORAL_STRIDE": str(latent_shape.FRAMES_PER_LATENT_FRAME),
    }


def test_the_table_of_parameters_says_how_large_pictures_may_be() -> None:
    for side in ("width", "height"):
        assert parameters()[side].maximum == latent_shape.LARGEST_SIDE
        assert parameters()[side].multiple_of == latent_shape.CELL_PIXELS
    assert f"sides from {latent_shape.LEAST_SOURCE_SIDE} to" in parameters()["resolution"].help
