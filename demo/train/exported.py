"""Reads an exported model back: the official form, AWQ INT4 or NVFP4, weights widened to float32."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from demo.train.lance_model import Lance, LanceConfig
from demo.train.vae_model import Vae

FP4_VALUES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
LLM_FILES = ("model.safetensors", "awq_state_dict.safetensors", "nvfp4_state_dict.safetensors")


@dataclass
class Exported:
    lance: Lance
    vae: Vae
    tokenizer: Tokenizer


def dequantise(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The float weights of the quantised linears; everything else widened. lance-quant's formats: the low nibble is
    the even column; AWQ is (code - zero) * scale, NVFP4 a sign bit and an index into FP4_VALUES, times scale."""
    scale_names = (".scales", ".zeros", ".scales_fp8", ".scales_bf16")
    plain = {name: tensor.float() for name, tensor in tensors.items() if not name.endswith((".qweight", *scale_names))}
    for name, packed in tensors.items():
        if not name.endswith(".qweight"):
            continue
        layer = name.removesuffix(".qweight")
        codes = torch.stack([packed & 15, packed >> 4], -1).flatten(1)
        if f"{layer}.zeros" in tensors:
            scales = tensors[f"{layer}.scales"].float()
            group = codes.shape[1] // scales.shape[1]
            values = codes.float() - tensors[f"{layer}.zeros"].float().repeat_interleave(group, 1)
        else:
            scales = tensors[f"{layer}.scales_bf16"].float()
            group = codes.shape[1] // scales.shape[1]
            values = FP4_VALUES[(codes & 7).long()] * (1 - 2 * (codes >> 3).float())
        plain[f"{layer}.weight"] = values * scales.repeat_interleave(group, 1)
    return plain


def load(directory: Path, device: str = "cpu") -> Exported:
    llm_file = next(directory / name for name in LLM_FILES if (directory / name).exists())
    weights = dequantise(load_file(llm_file))
    weights.pop("latent_pos_embed.pos_embed", None)  # computed
    vit_weights = load_file(directory / "Qwen2.5-VL-ViT/vit.safetensors")
    weights |= {f"vit_model.{name}": tensor.float() for name, tensor in vit_weights.items()}
    file = json.loads((directory / "llm_config.json").read_text())
    config = LanceConfig(
        layers=file["num_hidden_layers"], intermediate=file["intermediate_size"], rope_theta=file["rope_theta"]
    )
    lance = Lance(config)
    lance.load_state_dict(weights)
    vae = Vae(normalised=True)
    vae.load_state_dict({name: tensor.float() for name, tensor in torch.load(directory / "Wan2.2_VAE.pth").items()})
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    return Exported(lance.to(device).eval(), vae.to(device).eval(), tokenizer)
