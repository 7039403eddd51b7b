"""Times the official PyTorch pipeline of Lance on a picture, to compare lanced with: a tool, used by nothing else.

    python tools/peer_pytorch.py --lance-source DIR --model MODELS/Lance_3B [--size WxH] [--steps N] [--prompt TEXT]
                                 [--pictures N] [--device cuda|cpu] [--json]

DIR is a checkout of bytedance/Lance; its inference_lance.main() runs as inference_lance.sh starts it, in bf16, on a
checkpoint in the official layout (random-checkpoint --form bf16 makes one). The same picture is made N times (3); the
last counts, the first warms up. No file of the checkout is changed. From outside:

- flash-attn's flash_attn_varlen_func becomes PyTorch's scaled_dot_product_attention on whole unpadded segments, with
  grouped heads as they are. On a card it is held to the flash kernel and fails rather than fall back to a slow one,
  but for the prompt's later parts (some rows of causal attention, once a picture), where PyTorch chooses.
- Random initialisation of weights that are then loaded is skipped.
- Packages that a picture from text does not need (torchvision, decord, ...) may be missing.
- On a CPU, to try this tool: CUDA's devices and autocast become the CPU's. Such times mean nothing.

What counts as the picture's time is prefix, denoising and decoding, each ended by waiting for the device; building the
prompt, moving the model, and writing the file are left out.

Needs torch (2.5 or later), transformers (the checkout asks for 4.49), einops, numpy, pillow, safetensors, imageio,
PyYAML.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.machinery
import json
import os
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROMPT = "A red fox stands in fresh snow at the edge of a pine forest, in the soft light of the morning."
NOT_NEEDED = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional", "decord", "cv2", "openai",
              "imageio", "pyarrow", "pyarrow.parquet")


class Placeholder(type):
    """Stands for any class or constant of a package that is missing: it may be named and called, not used."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __call__(cls, *arguments: Any, **named: Any) -> Any:
        return cls


class Unused(metaclass=Placeholder):
    pass


def stand_in(name: str, **members: Any) -> None:
    """Put a module of this name where imports find it; what it lacks is a placeholder."""
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    module.__path__ = []
    module.__dict__.update(members)
    if not members:
        module.__dict__["__getattr__"] = lambda attribute: getattr(Unused, attribute)
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)


def replace_missing_packages() -> list[str]:
    importlib.import_module("transformers.modeling_utils")  # looks for some of them itself, before they are replaced
    missing = []
    for name in NOT_NEEDED:
        try:
            importlib.import_module(name)
        except ImportError:
            stand_in(name)
            missing.append(name)
    return missing


def flash_attention(torch: Any, on_card: bool) -> Callable[..., Any]:
    """flash_attn_varlen_func by scaled_dot_product_attention, one call for each segment."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.attention.bias import causal_lower_right

    attend = torch.nn.functional.scaled_dot_product_attention

    def one_segment(q: Any, k: Any, v: Any, scale: float | None, causal: bool) -> Any:
        q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))  # [1, heads, rows, width]
        rows, keys = q.shape[2], k.shape[2]
        if causal and 1 < rows < keys:  # a few rows while the prompt is read: their mask ends at the bottom right
            k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
            out = attend(q, k, v, attn_mask=causal_lower_right(rows, keys), scale=scale)
        else:
            with sdpa_kernel(SDPBackend.FLASH_ATTENTION) if on_card else contextlib.nullcontext():
                out = attend(q, k, v, is_causal=causal and rows > 1, scale=scale, enable_gqa=True)
        return out.squeeze(0).transpose(0, 1)

    def varlen(q: Any, k: Any, v: Any, cu_seqlens_q: Any, cu_seqlens_k: Any, max_seqlen_q: int, max_seqlen_k: int,
               dropout_p: float = 0.0, softmax_scale: float | None = None, causal: bool = False, **_: Any) -> Any:
        if cu_seqlens_q.shape[0] == 2:  # one segment: no need to wait for the card to learn its length
            return one_segment(q, k, v, softmax_scale, causal)
        rows, keys = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
        parts = [one_segment(q[rows[i]:rows[i + 1]], k[keys[i]:keys[i + 1]], v[keys[i]:keys[i + 1]], softmax_scale,
                             causal) for i in range(len(rows) - 1)]
        return torch.cat(parts)

    return varlen


class Overlay(types.ModuleType):
    """A module with some of its members replaced, for one importer alone."""

    def __init__(self, under: Any, **members: Any) -> None:
        super().__init__(under.__name__)
        self.__dict__.update(members, _under=under)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_under"], name)


class OnlyCpu:
    """What torch.cuda.device_count() says on a CPU: rank % it is the device, the CPU."""

    def __init__(self, torch: Any) -> None:
        self.device = torch.device("cpu")

    def __rmod__(self, rank: int) -> Any:
        return self.device


def run_on_cpu(torch: Any, modules: list[Any]) -> None:
    def autocast(*_: Any, enabled: bool = True, **__: Any) -> Any:
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled)

    cuda = Overlay(torch.cuda, is_available=lambda: True, device_count=lambda: OnlyCpu(torch),
                   set_device=lambda device: None, empty_cache=lambda: None, ipc_collect=lambda: None)
    amp = Overlay(torch.amp, autocast=autocast)
    for module in modules:
        module.torch = Overlay(torch, cuda=cuda, amp=amp, autocast=autocast)


def skip_initialisation(torch: Any) -> None:
    """Weights are loaded right after; filling six billion of them with random numbers first takes minutes."""
    for name in ("normal_", "uniform_"):
        setattr(torch.Tensor, name, lambda tensor, *_, **__: tensor)


class Stages:
    """Seconds by stage of the picture that is being made; every stage starts and ends with the device idle."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self.wait = wait
        self.pictures: list[dict[str, float]] = []
        self.finite = True
        self.running: str | None = None
        self.since = 0.0

    def switch(self, stage: str | None) -> None:
        self.wait()
        now = time.perf_counter()
        if self.running:
            picture = self.pictures[-1]
            picture[self.running] = picture.get(self.running, 0.0) + now - self.since
        self.running, self.since = stage, now

    def during(self, stage: str | None, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time counted as that of a stage."""
        def timed(*arguments: Any, **named: Any) -> Any:
            outer = self.running
            self.switch(stage)
            result = function(*arguments, **named)
            self.switch(outer)
            return result
        return timed


def watch(stages: Stages, pipeline: Any, lance: Any, vae: Any) -> None:
    whole = pipeline.validate_on_fixed_batch

    def picture(**named: Any) -> Any:
        stages.pictures.append({})
        model = named["fsdp_model"].language_model
        if not hasattr(model, "timed"):
            forward = model.forward_inference

            def step(**inner: Any) -> Any:
                if not inner["update_past_key_values"] and stages.running == "prefix":
                    stages.switch("denoise")  # until sampling returns
                return forward(**inner)

            model.forward_inference, model.timed = step, True
        return whole(**named)

    pipeline.validate_on_fixed_batch = picture
    lance.Lance.validation_gen_KVcache = stages.during("prefix", lance.Lance.validation_gen_KVcache)
    decode = stages.during("decode", vae.WanVideoVAE.vae_decode)

    def checked(*arguments: Any, **named: Any) -> Any:
        pixels = decode(*arguments, **named)
        stages.finite &= all(bool(part.isfinite().all()) for part in pixels)
        return pixels

    vae.WanVideoVAE.vae_decode = checked


def fit_vae(torch: Any, vae_module: Any, path: Path) -> None:
    """The pipeline builds a VAE of the released width; have it build one of the file's."""
    weights = torch.load(path, map_location="meta", weights_only=True, mmap=True)
    widths = {"dim": weights["encoder.conv1.weight"].shape[0], "dec_dim": weights["decoder.head.2.weight"].shape[1]}
    build = vae_module._video_vae
    vae_module._video_vae = lambda **named: build(**(named | widths))


def pipeline_arguments(model: str, examples: Path, results: Path, options: argparse.Namespace) -> list[str]:
    """What inference_lance.sh passes on; paths are relative to a folder where downloads/ has the models."""
    width, height = options.size.split("x")
    named = {"model_path": f"downloads/{model}", "vit_path": "downloads/Qwen2.5-VL-ViT",
             "vit_type": "qwen_2_5_vl_original", "vae_model_type": "wan", "llm_qk_norm": "true",
             "llm_qk_norm_und": "true", "llm_qk_norm_gen": "true", "tie_word_embeddings": "false",
             "validation_num_timesteps": options.steps, "validation_timestep_shift": 3.5, "copy_init_moe": "true",
             "max_num_frames": 121, "max_latent_size": 64, "visual_und": "true", "visual_gen": "true",
             "apply_qwen_2_5_vl_pos_emb": "true", "apply_chat_template": "false", "cfg_type": 0,
             "validation_data_seed": 42, "video_height": height, "video_width": width, "num_frames": 1, "task": "t2i",
             "save_path_gen": results, "resolution": "image_768res", "text_template": "true", "cfg_text_scale": 4.0,
             "use_KVcache": "true", "val_dataset_config_file": examples}
    words = ["--latent_patch_size", "1", "1", "1"]
    for key, value in named.items():
        words += [f"--{key}", str(value)]
    return words


def measure(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    on_card = options.device == "cuda"
    if on_card and not torch.cuda.is_available():
        raise SystemExit("peer_pytorch: PyTorch sees no CUDA card; --device cpu tries the tool without one")
    source, model = Path(options.lance_source).resolve(), Path(options.model).resolve()
    sys.path.insert(0, str(source))
    missing = replace_missing_packages()
    stand_in("flash_attn", flash_attn_varlen_func=flash_attention(torch, on_card))
    stand_in("flash_attn.layers")
    stand_in("flash_attn.layers.rotary")
    skip_initialisation(torch)
    names = ("inference_lance", "modeling.lance.lance", "modeling.lance.qwen2_navit", "modeling.vae.wan.model",
             "modeling.vae.wan.vae2_2", "common.val.utils")
    modules: list[Any] = [importlib.import_module(name) for name in names]
    pipeline, lance, attention, vae, vae_network, utilities = modules
    fit_vae(torch, vae_network, model.parent / "Wan2.2_VAE.pth")
    utilities.imageio = Overlay(utilities.imageio, imwrite=lambda *_, **__: None)
    if not on_card:
        run_on_cpu(torch, [pipeline, lance, attention, vae, utilities])
        vae.get_device = lambda: torch.device("cpu")
    stages = Stages(torch.cuda.synchronize if on_card else lambda: None)
    watch(stages, pipeline, lance, vae)
    with tempfile.TemporaryDirectory(prefix="peer-") as work:
        folder = Path(work)
        (folder / "downloads").symlink_to(model.parent)
        examples = folder / "examples.json"
        examples.write_text(json.dumps({f"{i:06d}.png": options.prompt for i in range(options.pictures)}, indent=1))
        os.chdir(folder)
        sys.argv = ["inference_lance.py", *pipeline_arguments(model.name, examples, folder / "results", options)]
        pipeline.main()
        os.chdir("/")
    if len(stages.pictures) != options.pictures:
        raise SystemExit(f"peer_pytorch: {options.pictures} pictures were asked for, {len(stages.pictures)} were made")
    last = stages.pictures[-1]
    counted = [{"stage": name, "seconds": last[name]} for name in ("prefix", "denoise", "decode")]
    return {
        "what": f"{options.size}, {options.steps} steps, bf16, attention: PyTorch's "
                f"{'flash kernel' if on_card else 'attention on the CPU'}, not flash-attn",
        "device": torch.cuda.get_device_name() if on_card else "cpu",
        "torch": torch.__version__,
        "transformers": importlib.import_module("transformers").__version__,
        "missing_packages": missing,
        "picture_seconds": sum(stage["seconds"] for stage in counted),
        "stages": counted,
        "finite": stages.finite,
        "steps_per_second": options.steps / last["denoise"],
        "pictures": stages.pictures,
        "peak_bytes": torch.cuda.max_memory_allocated() if on_card else None,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Times the official PyTorch pipeline of Lance on a picture.")
    parser.add_argument("--lance-source", required=True, metavar="DIR", help="a checkout of bytedance/Lance")
    parser.add_argument("--model", required=True, metavar="DIR",
                        help="Lance_3B, with Qwen2.5-VL-ViT and Wan2.2_VAE.pth beside it")
    parser.add_argument("--size", default="768x768", metavar="WxH")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--pictures", type=int, default=3, metavar="N", help="how many times; the last counts")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--json", action="store_true", help="print one line of JSON at the end")
    options = parser.parse_args()
    result = measure(options)
    if options.json:
        print("\n" + json.dumps(result), flush=True)
        return 0
    print(f"\n{result['what']}, on {result['device']}: {result['picture_seconds']:.3f} s")
    for stage in result["stages"]:
        print(f"  {stage['stage']:10} {stage['seconds']:.3f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
