"""The official sampler: 30 Euler steps, shift 3.5, text guidance 4 in (0.4, 1] with global renorm; greedy answers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from demo.train.lance_model import LATENT_CHANNELS, Lance, latent_positions
from demo.train.layout import Batch, Grid, layout, pack

STEPS, SHIFT, GUIDANCE, INTERVAL = 30, 3.5, 4.0, (0.4, 1.0)
MAX_ANSWER_TOKENS = 40


@torch.no_grad()
def generate(
    model: Lance,
    tokenizer: Tokenizer,
    task: str,
    prompts: Sequence[str],
    grid: Grid,
    *,
    patches: Tensor | None = None,
    vit_grid: Grid | None = None,
    source: Tensor | None = None,
    first_frame: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """source: latents [batch, n, 48] of what is edited; first_frame: latents [batch, rows * columns, 48] for i2v.
    Returns latents [batch, n, 48]."""
    device = model.device
    tokens, frame_tokens = int(np.prod(grid)), grid[1] * grid[2]

    def branch(without_text: bool) -> Batch:
        source_grid = grid if source is not None else None
        return pack([
            layout(tokenizer, task, prompt, vit=vit_grid, source=source_grid, target=grid, without_text=without_text)
            for prompt in prompts
        ])

    conditional, unconditional = branch(without_text=False), branch(without_text=True)
    x = torch.randn(len(prompts), tokens, LATENT_CHANNELS, generator=torch.Generator().manual_seed(seed)).to(device)
    live = torch.ones(tokens, device=device)
    if first_frame is not None:
        x[:, :frame_tokens], live[:frame_tokens] = first_frame.to(device), 0
    positions = latent_positions(model.config.hidden, grid).to(device)
    source_tokens = 0
    if source is not None:
        source = source.to(device)
        source_tokens = source.shape[1]
        positions = positions.repeat(2, 1)
    times = torch.linspace(1, 0, STEPS + 1)
    times = SHIFT * times / (1 + (SHIFT - 1) * times)

    def velocity(batch: Batch, time: Tensor) -> Tensor:
        latents = x if source is None else torch.cat([source, x], 1)
        token_times = torch.cat([torch.zeros(source_tokens, device=device), time * live]).expand(len(prompts), -1)
        _, gen = model(batch, patches, latents, token_times, positions)
        return model.llm2vae(gen)[:, source_tokens:]

    for time, following in itertools.pairwise(times):
        v = velocity(conditional, time)
        if INTERVAL[0] < time <= INTERVAL[1]:
            without = velocity(unconditional, time)
            guided = without + GUIDANCE * (v - without)
            norm = v.norm(dim=(1, 2), keepdim=True) / (guided.norm(dim=(1, 2), keepdim=True) + 1e-8)
            v = guided * norm.clamp(max=1)
        x = x - v * live[:, None] * (time - following)
    return x


@torch.no_grad()
def answer(
    model: Lance, tokenizer: Tokenizer, task: str, questions: Sequence[str], patches: Tensor, vit_grid: Grid
) -> list[str]:
    end = tokenizer.token_to_id("<|im_end|>")
    prompts = [layout(tokenizer, task, question, vit=vit_grid, answer="") for question in questions]
    said: list[list[int]] = [[] for _ in questions]
    done = [False] * len(questions)
    for _ in range(MAX_ANSWER_TOKENS):
        rows = [prompt.with_answer(ids) for prompt, ids in zip(prompts, said, strict=True)]
        und, _ = model(pack(rows), patches)
        last = torch.stack([und[i, len(row.und_ids) - row.head_length - 1] for i, row in enumerate(rows)])
        logits = model.language_model.lm_head(last)[:, : tokenizer.get_vocab_size()]
        for i, token in enumerate(logits.argmax(-1).tolist()):
            done[i] = done[i] or token == end
            if not done[i]:
                said[i].append(token)
        if all(done):
            break
    return [tokenizer.decode(ids, skip_special_tokens=False) for ids in said]
