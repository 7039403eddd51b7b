"""Trains the VAE on crops of pictures, then of clips.

    python -m demo.train.train_vae --out RUN/vae.pt --minutes 25
    python -m demo.train.train_vae --decoder --init RUN/vae_folded.pt --out RUN/vae_decoder.pt --minutes 60

The first also writes RUN/vae_folded.pt, whose latents are standard under the official constants; the second goes on
with its decoder alone, so that cached latents stay valid.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from demo.shapes import CANVAS, RADIUS, Scene
from demo.train.optimizer import AverageWeights, Optimizers
from demo.train.vae_model import LOG_VARIANCE, Vae, to_input
from demo.train.world import CLIP_FRAMES, CLIP_SIDE


def crop(scene: Scene, count: int, side: int, rng: random.Random) -> np.ndarray:
    """A square of `count` frames of a scene; most hold a piece of the outline."""
    canvas = CANVAS if rng.random() < 0.6 else CLIP_SIDE
    frames = scene.frames(CLIP_FRAMES if count > 1 else 1, canvas)
    if count < len(frames):
        first = rng.randrange(len(frames) - count + 1)
        frames = frames[first : first + count]
    if side >= canvas:
        return scene.frames(count, side)
    centre_x, centre_y = (canvas / 2 + offset * canvas / CANVAS for offset in scene.offsets()[0])
    angle, radius = rng.uniform(0, 2 * math.pi), RADIUS[scene.size] * canvas / CANVAS
    x = centre_x + radius * math.cos(angle) - rng.uniform(0.2, 0.8) * side
    y = centre_y + radius * math.sin(angle) - rng.uniform(0.2, 0.8) * side
    left, top = (int(min(max(edge, 0), canvas - side)) for edge in (x, y))
    return frames[:, top : top + side, left : left + side]


def draw_batch(count: int, frames: int, side: int, rng: random.Random) -> Tensor:
    scenes = [Scene.draw_departure(rng) if frames > 1 else Scene.draw(rng) for _ in range(count)]
    return to_input(np.stack([crop(scene, frames, side, rng) for scene in scenes]))


def draw_any_batch(done: float, image_share: float, rng: random.Random) -> Tensor:
    """Pictures only for the first `image_share` of the time; later clips of 5 and 9 frames among them."""
    kind = rng.random()
    if done < image_share or kind < 0.3:
        return draw_batch(16, 1, 64, rng) if kind > 0.1 or done < 0.2 else draw_batch(4, 1, CANVAS, rng)
    return draw_batch(3, 5, 64, rng) if kind < 0.55 else draw_batch(2, 9, 64, rng)


def gradient_difference(error: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring errors: blurred outlines cost more than a wrong shade."""
    return (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()


def latent_penalty(z: Tensor) -> Tensor:
    """Keeps every channel near zero mean and unit variance, and single values within three of it."""
    mean, variance = z.mean((0, 2, 3, 4)), z.var((0, 2, 3, 4), unbiased=False)
    spread = (variance + 1e-4).sqrt().sub(1).square().mean()
    return mean.square().mean() + spread + 0.1 * F.relu(z.abs() - 3).square().mean()


@torch.no_grad()
def fold_statistics(weights: dict[str, Tensor], out: Path, pictures: int = 160) -> None:
    """Measures the latents on whole pictures and clips, folds the statistics into the weights, saves."""
    vae, rng, latents = Vae(normalised=False), random.Random(5), []
    vae.load_state_dict(weights)
    vae.to("cpu")
    for i in range(pictures):
        scene = Scene.draw_departure(rng)
        frames = scene.frames(CLIP_FRAMES, CLIP_SIDE) if i % 8 == 0 else scene.frames(1)
        latents.append(vae.encode(to_input(frames)[None])[0][0].flatten(1)[:, :64])
    z = torch.cat(latents, 1)
    vae.fold(z.mean(1), z.std(1) + 1e-3)
    torch.save(vae.state_dict(), out)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", type=Path, help="weights to go on from")
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--image-share", type=float, default=0.5, help="part of the time before clips join")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--decoder", action="store_true", help="train the decoder alone; --init is a folded VAE")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    rng = random.Random(0)
    vae = Vae(normalised=args.decoder)
    if args.init:
        vae.load_state_dict(torch.load(args.init, map_location="cpu"))
    if args.decoder:
        vae.encoder.requires_grad_(False)
        vae.conv1.requires_grad_(False)
    vae.to(args.device)
    trained = [parameter for parameter in vae.parameters() if parameter.requires_grad]
    optimizers = Optimizers(torch.optim.AdamW(trained, args.lr, betas=(0.9, 0.98), weight_decay=0))
    average = AverageWeights(vae, longest=0.995, warm_up=20)
    started, step = time.time(), 0
    squares: dict[str, list[float]] = {}
    while (done := (time.time() - started) / 60 / args.minutes) < 1:
        optimizers.scale(min(1, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))))
        x = draw_any_batch(done, args.image_share, rng).to(args.device)
        z, _ = vae.encode(x)
        sigma = math.exp(LOG_VARIANCE / 2) * (rng.uniform(0.5, 2) if args.decoder else 1)
        error = vae.decode(z + torch.randn_like(z) * sigma) - x
        loss = error.abs().mean() + 2 * error.square().mean() + 0.5 * gradient_difference(error)
        optimizers.minimise(loss + 0.03 * latent_penalty(z), trained)
        average.update(step)
        squares.setdefault("clip" if x.shape[2] > 1 else "picture", []).append(error.square().mean().item())
        step += 1
        if step % 50 == 0:
            quality = {kind: 10 * math.log10(4 / np.mean(values[-50:])) for kind, values in squares.items()}
            print(f"{step} {done:.3f} " + ", ".join(f"{k} {v:.1f} dB" for k, v in quality.items()), flush=True)
    torch.save(average.weights, args.out)
    if not args.decoder:
        fold_statistics(average.weights, args.out.with_stem(args.out.stem + "_folded"))


if __name__ == "__main__":
    main()
