"""Scenes encoded once and kept: RUN/images.pkl and RUN/clips.pkl.

    python -m demo.train.latents --run RUN --what images|clips --count N

An item is an edit pair (source and target) or, every third of the clips, a single clip that starts anywhere.
"""

from __future__ import annotations

import argparse
import pickle
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from demo.shapes import Scene
from demo.train.examples import shoot
from demo.train.vae_model import Vae, to_input
from demo.train.world import Edit, draw_edit


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


def load_vae(path: Path, device: str = "cpu") -> Vae:
    vae = Vae(normalised=True)
    vae.load_state_dict(torch.load(path, map_location="cpu"))
    return vae.to(device).eval()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--what", choices=["images", "clips"], required=True)
    parser.add_argument("--count", type=int, required=True, help="items; an edit pair is one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    vae = load_vae(args.run / "vae_folded.pt", args.device)
    rng = random.Random(args.seed)
    clips = args.what == "clips"
    result = LatentSet([], [], [], torch.empty(0))
    for i in range(args.count):
        if clips and i % 3 == 2:
            result.departures.append(len(result.scenes))
            result.scenes.append(Scene.draw_departure(rng))
        else:
            edit: Edit = draw_edit(Scene.draw_crossing(rng) if clips else Scene.draw(rng), rng)
            result.edits.append((len(result.scenes), len(result.scenes) + 1, edit.instruction))
            result.scenes += [edit.source, edit.target]
    batch = 2 if clips else 16
    latents = []
    with torch.no_grad():
        for i in range(0, len(result.scenes), batch):
            frames = [to_input(shoot("t2v" if clips else "t2i", scene)) for scene in result.scenes[i : i + batch]]
            mean, _ = vae.encode(torch.stack(frames).to(args.device))
            latents.append(mean.flatten(2).transpose(1, 2).half().cpu())
            if i % (20 * batch) == 0:
                print(f"{args.what} {i} of {len(result.scenes)}", flush=True)
    result.latents = torch.cat(latents)
    result.write(args.run, args.what)


if __name__ == "__main__":
    main()
