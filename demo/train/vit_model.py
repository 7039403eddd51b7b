"""The vision transformer of Qwen2.5-VL, small. Parameter names are the official ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from demo.shapes import Pixels

VIT_SIDE = 112  # pixels of a picture as the ViT sees it
PATCH = 14
MERGE = 2  # side of the square of patches that becomes one token
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])


@dataclass(frozen=True)
class VitConfig:
    depth: int = 4
    hidden: int = 128
    intermediate: int = 256
    heads: int = 4
    window: int = 56  # pixels
    full_attention_blocks: tuple[int, ...] = (1, 3)


class RmsNorm(nn.Module):
    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class GatedMlp(nn.Module):
    def __init__(self, hidden: int, intermediate: int, bias: bool = False) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, intermediate, bias)
        self.up_proj = nn.Linear(hidden, intermediate, bias)
        self.down_proj = nn.Linear(intermediate, hidden, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


class VitBlock(nn.Module):
    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.heads = config.heads
        self.norm1, self.norm2 = RmsNorm(hidden), RmsNorm(hidden)
        self.mlp = GatedMlp(hidden, config.intermediate, bias=True)
        self.attn = nn.Module()
        self.attn.qkv, self.attn.proj = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        batch, tokens, hidden = x.shape
        q, k, v = self.attn.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(rotate(q, *rope), rotate(k, *rope), v, attn_mask=mask)
        x = x + self.attn.proj(y.transpose(1, 2).reshape(batch, tokens, hidden))
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    def __init__(self, config: VitConfig, out_features: int) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden
        kernel = (2, PATCH, PATCH)
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv3d(3, hidden, kernel, kernel, bias=False)
        self.blocks = nn.ModuleList(VitBlock(config) for _ in range(config.depth))
        self.merger = nn.Module()
        self.merger.ln_q = RmsNorm(hidden)
        merged = MERGE * MERGE * hidden
        self.merger.mlp = nn.Sequential(nn.Linear(merged, merged), nn.GELU(), nn.Linear(merged, out_features))

    def tables(self, rows: int, columns: int, device: torch.device) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Rotary cosines and sines, and the mask that keeps attention inside windows, in merge order."""
        head_dim = self.config.hidden // self.config.heads
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")

        def merge_order(t: Tensor) -> Tensor:
            return t.reshape(rows // MERGE, MERGE, columns // MERGE, MERGE).permute(0, 2, 1, 3).flatten()

        y, x = merge_order(y), merge_order(x)
        frequencies = 10000.0 ** -(torch.arange(0, head_dim // 2, 2) / (head_dim // 2))
        angles = torch.cat([y[:, None] * frequencies, x[:, None] * frequencies], -1).repeat(1, 2)
        side = self.config.window // PATCH
        window = (y // side) * 1000 + x // side
        mask = torch.where(window[:, None] == window[None], 0.0, -1e9)
        return (angles.cos().to(device), angles.sin().to(device)), mask.to(device)

    def forward(self, patches: Tensor, rows: int, columns: int) -> Tensor:
        """patches [frame pairs, rows * columns, 1176] in merge order -> [frame pairs, rows * columns / 4, out]"""
        rope, mask = self.tables(rows, columns, patches.device)
        x = patches @ self.patch_embed.proj.weight.flatten(1).t()
        for i, block in enumerate(self.blocks):
            x = block(x, rope, None if i in self.config.full_attention_blocks else mask)
        return self.merger.mlp(self.merger.ln_q(x).reshape(len(x), -1, MERGE * MERGE * self.config.hidden))


def vit_frames(frames: Pixels) -> Pixels:
    """Frames resized as the official transforms do; one picture counts twice, an odd clip repeats its last frame."""
    size = (VIT_SIDE, VIT_SIDE)
    resized = [np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)) for frame in frames]
    if len(resized) % 2:
        resized.append(resized[-1])
    return np.stack(resized)


def vit_patches(frames: NDArray[np.uint8]) -> Tensor:
    """[batch, 2k, height, width, 3] -> float [batch, k, patches, 1176] in merge order"""
    x = (torch.from_numpy(np.ascontiguousarray(frames)).float() / 255 - MEAN) / STD
    batch, count, height, width, _ = x.shape
    step = MERGE * PATCH
    x = x.reshape(batch * count // 2, 2, height // step, MERGE, PATCH, width // step, MERGE, PATCH, 3)
    x = x.permute(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return x.reshape(batch, count // 2, (height // PATCH) * (width // PATCH), 3 * 2 * PATCH * PATCH)
