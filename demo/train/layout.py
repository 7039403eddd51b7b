"""The official prompt layout of every task: tokens, rotary positions and attention blocks of one sequence.

A sequence is cut into "und" tokens (text, vision markers, ViT tokens: the understanding expert) and "gen" tokens (VAE
latents: the generation expert). Both keep their place in the sequence as `order`. The tokens of one picture share a
`block` and see each other; everything else is causal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Grid = tuple[int, int, int]  # frames, rows, columns, in tokens

POSITIONS_PER_FRAME = 2  # tokens_per_second of the official configuration, one second per frame
VIT_BLOCK_POSITION = 1000  # where edits put the ViT block on the time axis
_KEY = "by detailing the color, quantity, "
SYSTEM_PROMPTS = {
    "t2i": f"Describe the image {_KEY}text, shape, size, texture, spatial relationships of the objects and background:",
    "t2v": f"Describe the video {_KEY}visible text, shape, size, texture, spatial relationships and motion/camera "
    "movements of the objects and background:",
    "x2t_image": "Look at the image carefully and answer the question.",
    "x2t_video": "Watch the video carefully and answer the question.",
}
SYSTEM_PROMPTS["i2v"] = SYSTEM_PROMPTS["t2v"]
for _medium in ("image", "video"):
    SYSTEM_PROMPTS[f"{_medium}_edit"] = (
        f"Describe the key features of the input {_medium} (color, shape, size, texture, objects, background), then "
        f"explain how the user’s text instruction should alter or modify the {_medium}. Generate a new {_medium} that "
        "meets the user’s requirements while maintaining consistency with the original input where appropriate."
    )


def caption_prompts(medium: str) -> list[str]:
    """The system prompts that ask for a description when there is no question."""
    return [
        f"Generate a detailed and accurate description of the {medium}, including all the key moments and visual "
        "details.",
        f"Write an in-depth depiction of the {medium}, covering all its aspects.",
        f"Write an exhaustive depiction of the given {medium}, capturing its essence and key moments.",
        f"Describe the key features of the input {medium}, including color, shape, size, texture, objects, background.",
    ]


ASSISTANT_PROMPT = "You are a helpful assistant."
ALL_SYSTEM_PROMPTS = [*SYSTEM_PROMPTS.values(), *caption_prompts("image"), *caption_prompts("video"), ASSISTANT_PROMPT]

TEXT, VIT, SOURCE, TARGET = 0, 1, 2, 3  # kinds of token


@dataclass
class Layout:
    """One sequence. The und arrays have one entry per und token, the gen arrays one per latent."""

    und_ids: Ints
    und_is_vit: Bools
    und_positions: Ints  # [3, tokens]: time, row, column
    und_order: Ints
    und_block: Ints  # -1: causal text
    und_in_target: Bools  # part of a target block, which nobody outside sees
    gen_positions: Ints
    gen_order: Ints
    gen_block: Ints
    gen_in_target: Bools
    prompt_length: int  # und tokens before the answer
    head_length: int  # tokens that every sample of a task begins with

    def with_answer(self, ids: Sequence[int]) -> Layout:
        """The prompt of an understanding task followed by what has been answered so far."""
        n, k = self.prompt_length, len(ids)
        following = self.und_positions[:, n - 1 : n] + 1 + np.arange(k)
        return Layout(
            und_ids=np.concatenate([self.und_ids[:n], np.array(ids, np.int64)]),
            und_is_vit=np.concatenate([self.und_is_vit[:n], np.zeros(k, bool)]),
            und_positions=np.concatenate([self.und_positions[:, :n], following], 1),
            und_order=np.arange(n + k),
            und_block=np.concatenate([self.und_block[:n], np.full(k, -1)]),
            und_in_target=np.zeros(n + k, bool),
            gen_positions=self.gen_positions,
            gen_order=self.gen_order,
            gen_block=self.gen_block,
            gen_in_target=self.gen_in_target,
            prompt_length=n,
            head_length=self.head_length,
        )


@lru_cache(maxsize=100_000)
def token_ids(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text).ids)


class _Writer:
    """Appends text and pictures to a sequence under construction."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        self.kinds: list[int] = []
        self.blocks: list[int] = []
        self.pictures: list[tuple[int, Grid]] = []  # index of <|vision_start|>, grid

    def say(self, text: str) -> None:
        ids = token_ids(self.tokenizer, text)
        self.ids += ids
        self.kinds += [TEXT] * len(ids)
        self.blocks += [-1] * len(ids)

    def picture(self, grid: Grid, kind: int) -> None:
        start, pad, end = token_ids(self.tokenizer, "<|vision_start|><|video_pad|><|vision_end|>")
        count = int(np.prod(grid))
        self.pictures.append((len(self.ids), grid))
        self.ids += [start] + [pad] * count + [end]
        self.kinds += [TEXT] + [kind] * count + [TEXT]
        self.blocks += [len(self.pictures)] * (count + 2)

    def positions(self) -> Ints:
        """Text counts up on all axes; a picture's cells spread from where the text got to; text goes on after it."""
        positions = np.zeros((3, len(self.ids)), np.int64)
        following = at = 0
        for start, (frames, rows, columns) in self.pictures:
            text = start + 1 - at
            positions[:, at : start + 1] = following + np.arange(text)
            axes = np.arange(frames) * POSITIONS_PER_FRAME, np.arange(rows), np.arange(columns)
            cells = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1) + following + text
            at = start + 1 + cells.shape[1]
            positions[:, start + 1 : at] = cells
            following = cells.max() + 1
        positions[:, at:] = following + np.arange(len(self.ids) - at)
        return positions

    def span(self, index: int) -> slice:
        """Tokens of a picture, markers included."""
        start, grid = self.pictures[index]
        return slice(start, start + int(np.prod(grid)) + 2)


def _split(
    ids: np.ndarray,
    kinds: np.ndarray,
    positions: np.ndarray,
    order: np.ndarray,
    blocks: np.ndarray,
    in_target: np.ndarray,
    prompt_length: int,
    head_length: int,
) -> Layout:
    """The rows by the expert that computes them: what is read, and what is drawn."""
    gen = kinds >= SOURCE
    return Layout(
        und_ids=ids[~gen],
        und_is_vit=kinds[~gen] == VIT,
        und_positions=positions[:, ~gen],
        und_order=order[~gen],
        und_block=blocks[~gen],
        und_in_target=in_target[~gen],
        gen_positions=positions[:, gen],
        gen_order=order[gen],
        gen_block=blocks[gen],
        gen_in_target=in_target[gen],
        prompt_length=prompt_length,
        head_length=head_length,
    )


def layout(
    tokenizer: Tokenizer,
    task: str,
    text: str = "",
    *,
    vit: Grid | None = None,
    source: Grid | None = None,
    target: Grid | None = None,
    answer: str | None = None,
    system: str | None = None,
    without_text: bool = False,
    copies: int = 1,
) -> Layout:
    """Lay out one sample. `without_text` gives the unconditional branch; `copies` repeats the target block, each copy
    seeing the same prefix and not the other copies."""
    writer = _Writer(tokenizer)
    system = SYSTEM_PROMPTS[task] if system is None else system
    writer.say(f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n")
    head_length = len(writer.ids)
    if vit:
        writer.picture(vit, VIT)
    if source:
        writer.picture(source, SOURCE)
    tail = len(writer.ids)
    if not without_text:
        writer.say(text)
    writer.say("<|im_end|>\n<|im_start|>assistant\n")
    prompt_length = len(writer.ids)
    if target:
        writer.picture(target, TARGET)
    if answer is not None:
        writer.say(answer + "<|im_end|>")

    positions = writer.positions()
    if source:  # edits: the ViT block far away in time, the target on top of the source
        block = writer.span(0)
        positions[0, block] += VIT_BLOCK_POSITION - positions[0, block.start]
        positions[:, writer.span(2)] = positions[:, writer.span(1)]
    if without_text:  # the official cache keeps the tail at its conditional place
        positions[:, tail:prompt_length] += len(token_ids(tokenizer, text))

    ids, kinds, blocks = np.array(writer.ids), np.array(writer.kinds), np.array(writer.blocks)
    order = np.arange(len(ids))
    in_target = (blocks == len(writer.pictures)) if target else np.zeros(len(ids), bool)
    if copies > 1:
        block_rows = np.nonzero(in_target)[0]
        rows = np.concatenate([order, *[block_rows] * (copies - 1)])
        extra_blocks = [np.full(len(block_rows), 100 + copy) for copy in range(copies - 1)]
        ids, kinds, order, in_target = ids[rows], kinds[rows], order[rows], in_target[rows]
        positions = positions[:, rows]
        blocks = np.concatenate([blocks, *extra_blocks])
    return _split(ids, kinds, positions, order, blocks, in_target, prompt_length, head_length)


@dataclass
class Batch:
    """Layouts with the same head, padded to one length. Columns of `mask` are head, und, gen tokens; rows und, gen."""

    head: Ints  # [head tokens]
    ids: Ints  # [batch, und tokens after the head]
    is_vit: Bools
    positions: Ints  # [3, batch, und + gen tokens]
    mask: NDArray[np.float32]  # [batch, 1, und + gen, head + und + gen], added to attention scores


def pack(layouts: Sequence[Layout]) -> Batch:
    head = layouts[0].und_ids[: layouts[0].head_length]
    assert all((one.und_ids[: len(head)] == head).all() for one in layouts)
    und = max(len(one.und_ids) for one in layouts) - len(head)
    gen = len(layouts[0].gen_order)
    never = 1 << 20  # padding comes after everything: seen by nobody

    def table(fill: Any, dtype: Any = np.int64) -> NDArray[Any]:
        return np.full((len(layouts), und + gen), fill, dtype)

    ids, is_vit = np.zeros((len(layouts), und), np.int64), np.zeros((len(layouts), und), bool)
    positions = np.zeros((3, len(layouts), und + gen), np.int64)
    query_order, key_order, block, in_target = table(never), table(2 * never), table(-1), table(False, bool)
    for i, one in enumerate(layouts):
        n = len(one.und_ids) - len(head)
        ids[i, :n], is_vit[i, :n] = one.und_ids[len(head) :], one.und_is_vit[len(head) :]
        positions[:, i, :n], positions[:, i, und:] = one.und_positions[:, len(head) :], one.gen_positions
        for row, und_part, gen_part in (
            (query_order[i], one.und_order, one.gen_order),
            (key_order[i], one.und_order, one.gen_order),
            (block[i], one.und_block, one.gen_block),
            (in_target[i], one.und_in_target, one.gen_in_target),
        ):
            row[:n], row[und:] = und_part[len(head) :], gen_part
    sees = (query_order[:, :, None] >= key_order[:, None, :]) & ~in_target[:, None, :]
    sees |= (block[:, :, None] == block[:, None, :]) & (block[:, :, None] >= 0)
    mask = np.zeros((len(layouts), 1, und + gen, len(head) + und + gen), np.float32)
    mask[:, 0, :, len(head) :][~sees] = -1e9
    return Batch(head, ids, is_vit, positions, mask)
