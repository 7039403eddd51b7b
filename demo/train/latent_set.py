"""Scenes with their latents, encoded once and kept: RUN/images.pkl and RUN/clips.pkl, written by encode_latents.py."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from demo.shapes import Scene


@dataclass
class LatentSet:
    """Scenes with their latents, in the order of `latents` [scenes, tokens, 48] (half precision)."""

    scenes: list[Scene]
    edits: list[tuple[int, int, str]]  # source, target, instruction
    departures: list[int]  # clips that start anywhere
    latents: Tensor

    @staticmethod
    def read(run: Path, what: str) -> LatentSet | None:
        path = run / f"{what}.pkl"
        if not path.exists():
            return None
        with path.open("rb") as file:
            latent_set: LatentSet = pickle.load(file)
        return latent_set

    def write(self, run: Path, what: str) -> None:
        part = run / f"{what}.pkl.part"
        with part.open("wb") as file:
            pickle.dump(self, file)
        part.rename(run / f"{what}.pkl")
