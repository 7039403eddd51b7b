"""The understanding expert of a release as numpy computes it: Qwen3 with attention biases, in float64, in one pass."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from safetensors_file import Numbers as Array
from safetensors_file import numbers, read


class Qwen3:
    """A release in bf16 or float32, in one file, whose position tables are float32."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "llm_config.json").read_text())
        assert self.config["position_tables"] == "float32"
        self.heads, self.kv_heads = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        self._tensors = read(folder / "model.safetensors")

    def logits(self, ids: list[int]) -> Array:
        """[tokens, vocabulary]: what is expected after each token"""
        x = self._tensor("model.embed_tokens.weight")[ids]
        for layer in range(self.config["num_hidden_layers"]):
            name = f"model.layers.{layer}"
            x = x + self._attend(f"{name}.self_attn", self._norm(f"{name}.input_layernorm", x))
            h = self._norm(f"{name}.post_attention_layernorm", x)
            gate, up = self._linear(f"{name}.mlp.gate_proj", h), self._linear(f"{name}.mlp.up_proj", h)
            x = x + self._linear(f"{name}.mlp.down_proj", gate / (1 + np.exp(-gate)) * up)
        return self._linear("lm_head", self._norm("model.norm", x))

    def perplexity(self, ids: list[int]) -> float:
        """Of all tokens but the first."""
        logits = self.logits(ids)[:-1]
        largest = logits.max(1)
        lost = np.log(np.exp(logits - largest[:, None]).sum(1)) + largest - logits[np.arange(len(ids) - 1), ids[1:]]
        return float(np.exp(lost.mean()))

    def _tensor(self, name: str) -> Array:
        return numbers(self._tensors[f"language_model.{name}"])

    def _linear(self, name: str, x: Array) -> Array:
        bias = self._tensors.get(f"language_model.{name}.bias")
        return np.asarray(x @ self._tensor(f"{name}.weight").T + (0 if bias is None else numbers(bias)))

    def _norm(self, name: str, x: Array) -> Array:
        scale = np.sqrt((x**2).mean(-1, keepdims=True) + self.config["rms_norm_eps"])
        return np.asarray(x / scale * self._tensor(f"{name}.weight"))

    def _turned(self, x: Array) -> Array:
        """[tokens, heads, width], turned by the places of its tokens"""
        half = x.shape[-1] // 2
        angles = np.arange(len(x))[:, None] * self.config["rope_theta"] ** (-np.arange(half) / half)
        cosines, sines = np.cos(angles)[:, None], np.sin(angles)[:, None]
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cosines - b * sines, b * cosines + a * sines], -1)

    def _attend(self, name: str, x: Array) -> Array:
        q, k, v = (
            self._linear(f"{name}.{kind}_proj", x).reshape(len(x), heads, -1)
            for kind, heads in (("q", self.heads), ("k", self.kv_heads), ("v", self.kv_heads))
        )
        q, k = self._turned(self._norm(f"{name}.q_norm", q)), self._turned(self._norm(f"{name}.k_norm", k))
        k, v = (part.repeat(self.heads // self.kv_heads, 1) for part in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1])
        scores[:, ~np.tri(len(x), dtype=bool)] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return self._linear(f"{name}.o_proj", np.einsum("hqk,khd->qhd", weights, v).reshape(len(x), -1))
