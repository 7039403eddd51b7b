"""Collects the activation statistics that lance-quant's AWQ and NVFP4 scripts want, over all seven tasks.

    python -m demo.train.calibrate --model demo/lance-demo --out act_stats.pt

The file has the format of its awq_merge_stats.py: {"format": 1, "tasks", "n_linears", "stats": {linear: {"sum_abs"
[in], "n_tokens", "n_calls"}}}; its awq_apply.py and nvfp4_apply.py take it from there (README.md).
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from demo.examples import QUESTION_TASKS, TASKS, examples
from demo.train.exported import Exported, load
from demo.train.sampler import answer, generate
from demo.train.tensors import conditions, latent_grid, patches_of, vit_grid


def watch(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Adds up the absolute inputs of every linear in the decoder layers from now on."""
    stats: dict[str, dict[str, Any]] = {}

    def hook_for(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            del module, output
            rows = inputs[0].detach().float().flatten(0, -2)
            entry = stats.setdefault(name, {"sum_abs": torch.zeros(rows.shape[1]), "n_tokens": 0, "n_calls": 0})
            entry["sum_abs"] += rows.abs().sum(0).cpu()
            entry["n_tokens"] += len(rows)
            entry["n_calls"] += 1

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name.startswith("language_model.model.layers."):
            module.register_forward_hook(hook_for(name))
    return stats


def run_task(model: Exported, task: str, count: int, seed: int) -> None:
    """One at a time, so that no padding counts."""
    rng = random.Random(seed)
    if task in QUESTION_TASKS:
        for question in examples(task, 6 * count, rng):
            patches = patches_of(task, [question.wanted])
            answer(model.lance, model.tokenizer, task, [question.prompt], patches, vit_grid(task))
        return
    asked = examples(task, count, rng)
    sources = [example.source for example in asked if example.source]
    given = conditions(task, sources, model.vae, torch.Generator().manual_seed(seed))
    for i, example in enumerate(asked):
        one = {name: tensor[i : i + 1] for name, tensor in given.items()}
        generate(
            model.lance,
            model.tokenizer,
            task,
            [example.prompt],
            latent_grid(task),
            patches=one.get("patches"),
            vit_grid=vit_grid(task) if "patches" in one else None,
            source=one.get("source"),
            first_frame=one.get("first_frame"),
            seed=i,
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=4, help="pictures or clips a task, six times as many questions")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    model = load(args.model, args.device)
    stats = watch(model.lance)
    for task in TASKS:
        run_task(model, task, args.count, seed=5)
        print(task, flush=True)
    torch.save({"format": 1, "tasks": list(TASKS), "n_linears": len(stats), "stats": stats}, args.out)


if __name__ == "__main__":
    main()
