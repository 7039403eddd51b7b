"""Joint training of both experts on all seven tasks: flow matching for latents, cross-entropy for answers.

    python -m demo.train.train_joint --run RUN --vit RUN/vit.pt --minutes 60 [--ranks 2 | --device cuda]

Needs RUN/tokenizer and RUN/images.pkl; RUN/clips.pkl joins when it appears. On a CPU each rank is one process with one
thread, and gradients are averaged once a step.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from demo.train.batches import SIGMA, Batches, GenerationBatch, QuestionBatch
from demo.train.lance_model import Lance, latent_positions
from demo.train.layout import Grid
from demo.train.optimizer import AverageWeights, Muon, Optimizers
from demo.train.tensors import CLIP_GRID, IMAGE_GRID

# Task: share of the steps, samples a batch, noise blocks behind each prefix.
MIX = {
    "t2i": (0.20, 14, 2),
    "image_edit": (0.33, 9, 2),
    "t2v": (0.10, 7, 2),
    "i2v": (0.15, 7, 2),
    "video_edit": (0.22, 4, 2),
}
QUESTIONS_A_BATCH = {"x2t_image": 12, "x2t_video": 6}
TIME_SHIFT = 2.5
ANSWER_WEIGHT = 0.6
Positions = dict[Grid, Tensor]


def flow_loss(model: Lance, data: GenerationBatch, positions: Positions) -> Tensor:
    """Squared error of the velocity (noise minus data) at logit-normal times, one time for each noise block."""
    device = model.device
    clean, live = data.clean.to(device), data.live.to(device)
    count, tokens = clean.shape[:2]
    times = torch.sigmoid(torch.randn(count, data.copies, device=device))
    times = TIME_SHIFT * times / (1 + (TIME_SHIFT - 1) * times)
    times = times.repeat_interleave(tokens // data.copies, 1) * live
    noise = torch.randn_like(clean)
    x = (1 - times[..., None]) * clean + times[..., None] * noise
    where = positions[data.grid].repeat(data.copies, 1)
    if data.source is not None:
        source = data.source.to(device)
        source = source + SIGMA * torch.randn_like(source)
        x = torch.cat([source, x], 1)
        times = torch.cat([torch.zeros(source.shape[:2], device=device), times], 1)
        where = torch.cat([positions[data.grid], where])
    _, gen = model(data.batch, data.patches, x, times, where, train_vit=False)
    error = (model.llm2vae(gen[:, -tokens:]) - (noise - clean)).square().mean(-1)
    return (error * live).sum() / (live.sum() * count)


def answer_loss(model: Lance, data: QuestionBatch, train_vit: bool) -> Tensor:
    und, _ = model(data.batch, data.patches, train_vit=train_vit)
    labels = data.labels.to(model.device)
    counted = labels >= 0
    return F.cross_entropy(model.language_model.lm_head(und[counted]), labels[counted])


def average_gradients(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([parameter.grad.flatten() for parameter in parameters])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    sizes = [parameter.numel() for parameter in parameters]
    for parameter, gradient in zip(parameters, flat.split(sizes), strict=True):
        parameter.grad.copy_(gradient.view_as(parameter))


def make_optimizers(model: Lance, learning_rate: float) -> tuple[Optimizers, list[nn.Parameter]]:
    """Muon for hidden matrices; also returns the other parameters, whose gradients are clipped."""
    hidden = (".layers.", ".blocks.", "merger.mlp.2", "patch_embed", "time_embedder")
    matrices, first_merger, embedding, rest = [], [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if "merger.mlp.0" in name:
            first_merger.append(parameter)
        elif parameter.dim() > 1 and any(part in name for part in hidden):
            matrices.append(parameter)
        elif "embed_tokens" in name:
            embedding.append(parameter)
        else:
            rest.append(parameter)
    groups = [
        {"params": rest, "lr": 0.06 * learning_rate},
        {"params": embedding, "lr": 0.15 * learning_rate},
        {"params": first_merger, "lr": 0.012 * learning_rate},
    ]
    groups = [group for group in groups if group["params"]]
    adam = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)
    return Optimizers(Muon(matrices, learning_rate), adam), rest + embedding + first_merger


class Log:
    """The last losses of every task."""

    def __init__(self) -> None:
        self.losses: dict[str, list[float]] = {}

    def add(self, task: str, loss: Tensor) -> None:
        self.losses.setdefault(task, []).append(loss.item())

    def line(self, last: int = 50) -> str:
        return " ".join(f"{task} {np.mean(values[-last:]):.3f}" for task, values in sorted(self.losses.items()))


def open_model(args: argparse.Namespace) -> Lance:
    """The model to be trained, with the weights that are given; the others as the seed has them."""
    torch.manual_seed(args.seed)
    model = Lance()
    if args.init:
        model.load_state_dict(torch.load(args.init, map_location="cpu"))
    if args.vit:
        model.vit_model.load_state_dict(torch.load(args.vit, map_location="cpu"))
    model.vit_model.requires_grad_(args.train_vit)  # officially it is frozen
    return model.to(args.device)


def work(rank: int, args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if args.ranks > 1:
        meeting = (args.run / f"rendezvous{os.getppid()}").resolve()
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=args.ranks)
    model = open_model(args)
    torch.manual_seed(args.seed * 100 + rank)
    rng = random.Random(args.seed * 100 + rank)
    tokenizer = Tokenizer.from_file(str(args.run / "tokenizer/tokenizer.json"))
    batches = Batches(args.run, tokenizer, rng)
    if not batches.has("t2i"):
        raise SystemExit(f"{args.run}/images.pkl is missing: run demo.train.encode_latents first")
    optimizers, clipped = make_optimizers(model, args.lr)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    average = AverageWeights(model, longest=0.997, warm_up=10)
    positions = {grid: latent_positions(model.config.hidden, grid).to(args.device) for grid in (IMAGE_GRID, CLIP_GRID)}
    started, log, step = time.time(), Log(), 0

    def save() -> None:
        if rank == 0:
            torch.save(average.weights, args.out)
            torch.save(model.state_dict(), args.out.with_stem(args.out.stem + "_last"))

    while True:
        progress = torch.tensor([(time.time() - started) / 60 / args.minutes])
        if args.ranks > 1:
            dist.broadcast(progress, 0)  # all ranks must stop at the same step
        done = progress.item()
        if done >= 1:
            break
        optimizers.scale(min(1, (step + 1) / 40) * min(1, 0.01 + 1.7 * (1 - done)))  # flat, then linear to zero
        if step % 20 == 0:
            batches.refresh()
        possible = [task for task in MIX if batches.has(task)]
        task = rng.choices(possible, [MIX[one][0] for one in possible])[0]
        _, count, copies = MIX[task]
        loss = flow_loss(model, batches.generation(task, count * args.scale, copies), positions)
        log.add(task, loss)
        if rng.random() < args.questions:
            task = "x2t_video" if rng.random() < 0.6 else "x2t_image"
            asked = batches.questions(task, QUESTIONS_A_BATCH[task] * args.scale)
            cross_entropy = answer_loss(model, asked, args.train_vit)
            log.add(task, cross_entropy)
            loss = loss + ANSWER_WEIGHT * cross_entropy
        optimizers.minimise(loss, clipped, (lambda: average_gradients(trained)) if args.ranks > 1 else None)
        average.update(step)
        step += 1
        if rank == 0 and step % 50 == 0:
            print(f"{step} {done:.3f} {log.line()}", flush=True)
        if step % 200 == 0:
            save()
    save()
    if rank == 0:
        print(f"{step} steps, {log.line()}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="default: RUN/lance.pt")
    parser.add_argument("--init", type=Path, help="weights to go on from")
    parser.add_argument("--vit", type=Path, help="ViT weights from train_vit")
    parser.add_argument("--train-vit", action="store_true", help="train the ViT too")
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--ranks", type=int, default=1, help="processes, on a CPU")
    parser.add_argument("--scale", type=int, default=1, help="factor on the batch sizes, for a GPU")
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--questions", type=float, default=0.5, help="share of steps with a question batch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    args.out = args.out or args.run / "lance.pt"
    if args.ranks > 1:
        torch.multiprocessing.spawn(work, (args,), args.ranks)
    else:
        work(0, args)


if __name__ == "__main__":
    main()
