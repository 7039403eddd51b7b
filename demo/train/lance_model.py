"""A tiny Lance: Mixture-of-Transformers language model with a ViT. Parameter names are the official ones.

A batch is laid out as head, und and gen tokens (layout.py), so that each expert works on one slice of it. Everything
is built on the CPU; `.to(device)` moves the model, and inputs follow it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo.train.layout import Batch, Grid
from demo.train.vit_model import GatedMlp, RmsNorm, Vit, VitConfig, rotate

LATENT_CHANNELS = 48
MAX_LATENT_SIDE = 64
Rope = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class LanceConfig:
    vocab: int = 1024
    hidden: int = 128
    intermediate: int = 384
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    # Small base and few time frequencies: with 16 frequencies and the official base, neighbouring columns of a picture
    # would have nearly the same angle, and the model could not tell left from right.
    rope_theta: float = 100.0
    mrope_section: tuple[int, int, int] = (2, 3, 11)
    eps: float = 1e-6

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


class Attention(nn.Module):
    """Every weight twice: plain for und tokens, `_moe_gen` for latents. All tokens attend to each other."""

    def __init__(self, config: LanceConfig) -> None:
        super().__init__()
        self.config = config
        hidden, head_dim = config.hidden, config.head_dim
        for suffix in ("", "_moe_gen"):
            setattr(self, f"q_proj{suffix}", nn.Linear(hidden, config.heads * head_dim))
            setattr(self, f"k_proj{suffix}", nn.Linear(hidden, config.kv_heads * head_dim))
            setattr(self, f"v_proj{suffix}", nn.Linear(hidden, config.kv_heads * head_dim))
            setattr(self, f"o_proj{suffix}", nn.Linear(config.heads * head_dim, hidden, bias=False))
            setattr(self, f"q_norm{suffix}", RmsNorm(head_dim, config.eps))
            setattr(self, f"k_norm{suffix}", RmsNorm(head_dim, config.eps))

    def _qkv(self, x: Tensor, suffix: str) -> tuple[Tensor, Tensor, Tensor]:
        batch, tokens, _ = x.shape

        def project(name: str) -> Tensor:
            return getattr(self, f"{name}_proj{suffix}")(x).view(batch, tokens, -1, self.config.head_dim)

        q_norm, k_norm = getattr(self, f"q_norm{suffix}"), getattr(self, f"k_norm{suffix}")
        return q_norm(project("q")), k_norm(project("k")), project("v")

    def _heads(self, q: Tensor, k: Tensor, v: Tensor, rope: Rope) -> tuple[Tensor, Tensor, Tensor]:
        """[batch, tokens, heads, head_dim] -> [batch, heads, tokens, head_dim], rotated, keys and values repeated."""
        repeat = self.config.heads // self.config.kv_heads
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        return rotate(q, *rope), rotate(k, *rope).repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)

    def forward(
        self, head: Tensor, und: Tensor, gen: Tensor | None, head_rope: Rope, rope: Rope, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        hq, hk, hv = self._heads(*self._qkv(head, ""), head_rope)
        head_out = F.scaled_dot_product_attention(hq, hk, hv, is_causal=True).transpose(1, 2).flatten(2)
        parts = [self._qkv(und, "")]
        if gen is not None:
            parts.append(self._qkv(gen, "_moe_gen"))
        q, k, v = (torch.cat(part, 1) for part in zip(*parts, strict=True))
        q, k, v = self._heads(q, k, v, rope)
        batch, tokens = und.shape[:2]
        k = torch.cat([hk.expand(batch, -1, -1, -1), k], 2)
        v = torch.cat([hv.expand(batch, -1, -1, -1), v], 2)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        gen_out = None if gen is None else self.o_proj_moe_gen(out[:, tokens:])
        return self.o_proj(head_out), self.o_proj(out[:, :tokens]), gen_out


class Layer(nn.Module):
    def __init__(self, config: LanceConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        for suffix in ("", "_moe_gen"):
            setattr(self, f"mlp{suffix}", GatedMlp(config.hidden, config.intermediate))
            setattr(self, f"input_layernorm{suffix}", RmsNorm(config.hidden, config.eps))
            setattr(self, f"post_attention_layernorm{suffix}", RmsNorm(config.hidden, config.eps))

    def forward(
        self, head: Tensor, und: Tensor, gen: Tensor | None, head_rope: Rope, rope: Rope, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        gen_in = None if gen is None else self.input_layernorm_moe_gen(gen)
        attended = self.self_attn(
            self.input_layernorm(head), self.input_layernorm(und), gen_in, head_rope, rope, mask
        )
        head, und = head + attended[0], und + attended[1]
        head = head + self.mlp(self.post_attention_layernorm(head))
        und = und + self.mlp(self.post_attention_layernorm(und))
        if gen is not None:
            gen = gen + attended[2]
            gen = gen + self.mlp_moe_gen(self.post_attention_layernorm_moe_gen(gen))
        return head, und, gen


class Backbone(nn.Module):
    def __init__(self, config: LanceConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab, config.hidden)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm, self.norm_moe_gen = RmsNorm(config.hidden, config.eps), RmsNorm(config.hidden, config.eps)


class LanguageModel(nn.Module):
    def __init__(self, config: LanceConfig) -> None:
        super().__init__()
        self.model = Backbone(config)
        self.lm_head = nn.Linear(config.hidden, config.vocab, bias=False)


class TimeEmbedder(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, hidden), nn.SiLU(), nn.Linear(hidden, hidden))

    def forward(self, times: Tensor) -> Tensor:
        frequencies = torch.exp(-math.log(10000) * torch.arange(128, device=times.device) / 128)
        angles = times[..., None] * frequencies
        return self.mlp(torch.cat([angles.cos(), angles.sin()], -1))


def latent_positions(hidden: int, grid: Grid) -> Tensor:
    """Sines and cosines of time, row and column, a third of the width each: [latents, hidden]."""
    third = hidden // 3 // 2 * 2

    def axis(size: int, position: np.ndarray) -> np.ndarray:
        angles = position[:, None] / 10000 ** (np.arange(size // 2) / (size / 2))
        return np.concatenate([np.sin(angles), np.cos(angles)], 1)

    cells = np.stack(np.meshgrid(*(np.arange(n) for n in grid), indexing="ij")).reshape(3, -1)
    sizes = third, third, hidden - 2 * third
    columns = [axis(size, position) for size, position in zip(sizes, cells, strict=True)]
    return torch.from_numpy(np.concatenate(columns, 1)).float()


class Lance(nn.Module):
    def __init__(self, config: LanceConfig | None = None, vit_config: VitConfig | None = None) -> None:
        super().__init__()
        self.config = config or LanceConfig()
        hidden = self.config.hidden
        self.language_model = LanguageModel(self.config)
        self.vit_model = Vit(vit_config or VitConfig(), hidden)
        self.time_embedder = TimeEmbedder(hidden)
        self.vae2llm, self.llm2vae = nn.Linear(LATENT_CHANNELS, hidden), nn.Linear(hidden, LATENT_CHANNELS)
        self._initialise()

    def _initialise(self) -> None:
        """Unit variance through every layer; what adds to the residual stream starts small."""
        into_residual = ("o_proj.weight", "o_proj_moe_gen.weight", "down_proj.weight", "attn.proj.weight")
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1 and "patch_embed" not in name:
                nn.init.normal_(parameter, 0, 0.5 if "embed_tokens" in name else parameter.shape[1] ** -0.5)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
            if name.endswith((*into_residual, "llm2vae.weight", "lm_head.weight")):
                with torch.no_grad():
                    parameter.mul_(0.1)

    @property
    def device(self) -> torch.device:
        return self.vae2llm.weight.device

    def rope(self, positions: np.ndarray) -> Rope:
        """positions [3, batch, tokens] -> cosines and sines [batch, 1, tokens, head_dim]"""
        head_dim = self.config.head_dim
        frequencies = self.config.rope_theta ** -(torch.arange(0, head_dim, 2) / head_dim)
        angles = torch.as_tensor(positions).float()[..., None] * frequencies
        axis = torch.tensor(np.repeat([0, 1, 2], self.config.mrope_section))
        angles = angles.gather(0, axis.expand(1, *angles.shape[1:]))[0][:, None].repeat(1, 1, 1, 2)
        return angles.cos().to(self.device), angles.sin().to(self.device)

    def forward(
        self,
        batch: Batch,
        patches: Tensor | None = None,
        latents: Tensor | None = None,
        times: Tensor | None = None,
        positions: Tensor | None = None,
        train_vit: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """patches [batch, frame pairs, n, 1176]; latents [batch, gen, 48], times [batch, gen], positions [gen, hidden].
        Returns the last hidden states of the und tokens after the head, and of the gen tokens."""
        backbone = self.language_model.model
        head = backbone.embed_tokens(torch.as_tensor(batch.head, device=self.device))[None]
        und = backbone.embed_tokens(torch.as_tensor(batch.ids, device=self.device))
        if patches is not None:
            side = int(patches.shape[2] ** 0.5)
            with torch.set_grad_enabled(train_vit and torch.is_grad_enabled()):
                seen = self.vit_model(patches.to(self.device).flatten(0, 1), side, side)
            slots = torch.as_tensor(batch.is_vit, device=self.device)[..., None]
            und = und.masked_scatter(slots, seen.reshape(-1, und.shape[-1]))
        gen = None if latents is None else self.vae2llm(latents) + self.time_embedder(times) + positions
        head_rope = self.rope(np.arange(head.shape[1])[None, None].repeat(3, 0))
        rope, mask = self.rope(batch.positions), torch.as_tensor(batch.mask, device=self.device)
        for layer in backbone.layers:
            head, und, gen = layer(head, und, gen, head_rope, rope, mask)
        return backbone.norm(und), None if gen is None else backbone.norm_moe_gen(gen)
