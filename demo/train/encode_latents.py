"""Draws scenes, encodes them and keeps the latents.

    python -m demo.train.encode_latents --run RUN --what images|clips --count N

An item is an edit pair (source and target) or, every third of the clips, a single clip that starts anywhere.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch

from demo.examples import shoot
from demo.shapes import Scene
from demo.train.latent_set import LatentSet
from demo.train.vae_model import Vae, to_input
from demo.train.world import Edit, draw_edit


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
