"""Training batches of all seven tasks, drawn from cached latents and freshly drawn scenes."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from demo.examples import is_clip
from demo.shapes import Scene
from demo.train import world
from demo.train.latent_set import LatentSet
from demo.train.layout import ASSISTANT_PROMPT, Batch, Grid, caption_prompts, layout, pack
from demo.train.tensors import latent_grid, patches_of, vit_grid
from demo.train.vae_model import LOG_VARIANCE

SIGMA = math.exp(LOG_VARIANCE / 2)


@dataclass
class GenerationBatch:
    batch: Batch
    patches: Tensor | None
    clean: Tensor  # latents that should come out [batch, copies * tokens, 48]
    source: Tensor | None  # latents of what is edited [batch, tokens, 48]
    live: Tensor  # 1 for latents that are generated, 0 for given ones [copies * tokens]
    grid: Grid
    copies: int


@dataclass
class QuestionBatch:
    batch: Batch
    patches: Tensor
    labels: Tensor  # the next token after each und token [batch, und tokens]; -100 where it does not count


class Batches:
    """Latent sets are looked for again with `refresh`, so that training can begin before all are there."""

    def __init__(self, run: Path, tokenizer: Tokenizer, rng: random.Random) -> None:
        self.run, self.tokenizer, self.rng = run, tokenizer, rng
        self.sets: dict[str, LatentSet] = {}
        self.refresh()

    def refresh(self) -> None:
        for what in ("images", "clips"):
            if what not in self.sets and (found := LatentSet.read(self.run, what)):
                self.sets[what] = found

    def has(self, task: str) -> bool:
        return ("clips" if is_clip(task) else "images") in self.sets

    def generation(self, task: str, count: int, copies: int) -> GenerationBatch:
        """`copies` noise blocks share each prefix. One caption in ten is left out, for guidance."""
        rng, latent_set = self.rng, self.sets["clips" if is_clip(task) else "images"]
        grid, editing = latent_grid(task), "edit" in task
        rows, clean, source, sources = [], [], [], []
        for _ in range(count):
            without_text = rng.random() < 0.1
            if editing:
                first, second, text = rng.choice(latent_set.edits)
                backwards = rng.random() < 0.5
                if backwards:
                    first, second = second, first
                if backwards or rng.random() < 0.5:  # other words for the same edit are as good
                    text = world.word_edit(latent_set.scenes[first], latent_set.scenes[second], rng)
                source.append(latent_set.latents[first])
                sources.append(latent_set.scenes[first])
            elif task == "i2v":  # any clip can follow from its first frame
                second = rng.randrange(len(latent_set.scenes))
                text = world.motion_prompt(latent_set.scenes[second], rng)
            else:
                second = rng.choice(rng.choice(latent_set.edits)[:2])
                prompt = world.video_prompt if is_clip(task) else world.image_prompt
                text = prompt(latent_set.scenes[second], rng)
            clean.append(latent_set.latents[second])
            rows.append(
                layout(
                    self.tokenizer,
                    task,
                    text,
                    vit=vit_grid(task) if editing else None,
                    source=grid if editing else None,
                    target=grid,
                    without_text=without_text,
                    copies=copies,
                )
            )
        latents = torch.stack(clean).float()
        live = torch.ones(latents.shape[1])
        if task == "i2v":  # the first frame is given, as a sample of its posterior, as in inference
            given = grid[1] * grid[2]
            live[:given] = 0
            latents[:, :given] += SIGMA * torch.randn_like(latents[:, :given])
        return GenerationBatch(
            pack(rows),
            patches_of(task, sources) if editing else None,
            latents.repeat(1, copies, 1),
            torch.stack(source).float() if editing else None,
            live.repeat(copies),
            grid,
            copies,
        )

    def _question(self, task: str, bare: bool) -> tuple[Scene, str]:
        """A scene and what is asked about it. Bare: a description, without a question."""
        rng, clip = self.rng, is_clip(task)
        if not clip:
            scene = Scene.draw(rng)
        elif bare or rng.random() < 0.7:
            scene = Scene.draw_crossing(rng)
        else:
            scene = Scene.draw_departure(rng)
        if clip and not world.starts_at_a_side(scene):  # "from left to right" would not be true of it
            return scene, rng.choice(["shape", "colour", "background", "size"])
        if bare or rng.random() < 0.3:
            return scene, "describe"
        if clip and rng.random() < 0.6:
            return scene, "motion"
        return scene, rng.choice(list(world.VIDEO_QUESTIONS if clip else world.IMAGE_QUESTIONS))

    def questions(self, task: str, count: int) -> QuestionBatch:
        rng = self.rng
        choice = rng.random()
        bare = choice < 0.12
        system = None
        if bare:
            system = rng.choice(caption_prompts("video" if is_clip(task) else "image"))
        elif choice < 0.2:
            system = ASSISTANT_PROMPT
        table = world.VIDEO_QUESTIONS if is_clip(task) else world.IMAGE_QUESTIONS
        rows, scenes = [], []
        for _ in range(count):
            scene, topic = self._question(task, bare)
            text = "" if bare else rng.choice(table[topic])
            reply = world.answer(scene, topic)
            rows.append(layout(self.tokenizer, task, text, vit=vit_grid(task), answer=reply, system=system))
            scenes.append(scene)
        batch = pack(rows)
        labels = np.full(batch.ids.shape, -100)
        for i, row in enumerate(rows):
            answered = np.arange(row.prompt_length, len(row.und_ids))
            labels[i, answered - 1 - row.head_length] = row.und_ids[answered]
        return QuestionBatch(batch, patches_of(task, scenes), torch.from_numpy(labels))
