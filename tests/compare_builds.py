"""`make compare BASE=DIR`: whether this build gives the same bytes as another one, whose tree lies in DIR and is built.

Every task is asked of both, of every weight form of the demo model and its MLX releases: pixels, latents, latent
states, tokens and texts, one line each, with the SHA-256 of what this build gave. Each daemon is spoken to with the
Python client of its own tree, so that the two need not speak the same version of the protocol. Exit status 1 when
something differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

TREE = Path(__file__).resolve().parent.parent
DEMO = TREE / "demo"
LOGS = TREE / "build" / "compare"
FORMS = {
    "bf16": DEMO / "lance-demo",
    "awq-128": DEMO / "lance-demo-awq",
    "awq-64": DEMO / "lance-demo-awq64",
    "nvfp4": DEMO / "lance-demo-nvfp4",
    "mlx-4bit": LOGS / "mlx-4bit",  # these two are made here
    "mlx": LOGS / "mlx",
}
CLIP = {"fps": 12.0, "resolution": "96x96"}
Digests = dict[str, str]


def requests(picture: Any, clip: Any, mask: Any) -> dict[str, dict[str, Any]]:
    """By name: the task and its parameters. Latents of one are taken up by later ones, under "latents_of"."""
    steps = {"num_inference_steps": 6}
    video = {**steps, "num_frames": 9, "width": 96, "height": 96}
    square = {"prompt": "a square", "width": 96, "height": 96}
    noise = {"noise_source": "torch_cuda"}
    return {
        "t2i": {"prompt": "a large red circle on the left on a blue background", "width": 128, "height": 96, **steps},
        "t2i batch": {**square, "batch_size": 3, "seed": 7, **steps, **noise},
        "t2i large": {"prompt": "a triangle", "width": 288, "height": 272, "num_inference_steps": 2, "seed": 3},
        "t2i to step 4": {**square, "end_step": 4, **steps, "leftover_noise": True},
        "t2i from step 4": {"prompt": "a square", "start_step": 4, "add_noise": False, "latents_of": "t2i to step 4"},
        "t2i masked": {"prompt": "a circle", "denoise": 0.7, "latents_of": "t2i to step 4", "latent_mask": mask},
        "t2v": {"prompt": "a small green triangle moves from left to right", "guidance_renorm": "channel", **video},
        "i2v": {"prompt": "the square moves right", "source": picture, **video, "noise_source": "comfyui"},
        "image_edit": {"prompt": "turn the circle into a square", "source": picture, "resolution": "128x128", **steps},
        "video_edit": {"prompt": "change the background to yellow", "source": clip, **CLIP, **steps},
        "x2t_image": {"prompt": "Describe the image.", "source": picture, "resolution": "112x112"},
        "x2t_image drawn": {"prompt": "", "source": picture, "temperature": 1.2, "top_p": 0.95, "max_new_tokens": 40},
        "x2t_video": {"prompt": "Describe the video.", "source": clip, **CLIP},
        "encode": {"source": clip},
        "decode": {"latents_of": "encode"},
    }


def digests_of(result: Any) -> Digests:
    """What a result holds, by its kind."""
    found = {}
    for kind in ("pixels", "latents", "latent_state", "token_ids"):
        values = getattr(result, kind)
        if values is not None:
            data = f"{values.dtype}{values.shape}".encode() + values.tobytes()
            found[kind] = hashlib.sha256(data).hexdigest()
    if result.text:
        found["text"] = hashlib.sha256(result.text.encode()).hexdigest()
    return found


def record(tree: Path) -> None:
    """Ask the daemon of `tree` everything; a line of JSON for each form. Run by `of` with the modules of that tree."""
    import numpy as np

    from demo.private_daemon import private_daemon

    levels = np.arange(9 * 96 * 96 * 3, dtype=np.uint32)
    clip = (levels // 96 * 7 + levels % 96 * 3).astype(np.uint8).reshape(9, 96, 96, 3)
    mask = np.linspace(0, 1, 36, dtype=np.float32).reshape(1, 1, 1, 6, 6)
    for form, folder in FORMS.items():
        results: dict[str, Any] = {}
        with private_daemon(tree / "build/lanced", folder, LOGS / f"{form}.log") as client:
            for name, request in requests(clip[0], clip, mask).items():
                params = dict(request)
                before = results.get(params.pop("latents_of", ""))
                if before is not None:
                    params["latents"] = before.latents
                    params["latent_state"] = before.latent_state if "add_noise" in params else None
                    if name.startswith("t2i"):
                        params |= {"width": before.width, "height": before.height, "num_inference_steps": 6}
                results[name] = client.generate(name.split()[0], **params)
        print(json.dumps({form: {name: digests_of(result) for name, result in results.items()}}), flush=True)


def of(tree: Path) -> dict[str, dict[str, Digests]]:
    modules = os.pathsep.join((str(tree), str(tree / "protocol/python")))
    environment = {**os.environ, "PYTHONPATH": modules}
    command = [sys.executable, str(Path(__file__).resolve()), "--record", str(tree)]
    done = subprocess.run(command, cwd=tree, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{tree}: the results could not be recorded; logs of its daemon are in {LOGS}")
    return {form: tasks for line in done.stdout.splitlines() for form, tasks in json.loads(line).items()}


def make_releases() -> None:
    """The forms that the demo does not come in, of its model."""
    shutil.rmtree(LOGS, ignore_errors=True)
    LOGS.mkdir(parents=True)
    program = TREE / "build/tests/make-release"
    subprocess.run([program, FORMS["bf16"], FORMS["mlx-4bit"], "64"], check=True)
    subprocess.run([program, FORMS["bf16"], FORMS["mlx"]], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares the results of two builds byte for byte.")
    parser.add_argument("base", type=Path, help="the other tree, built")
    parser.add_argument("--record", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.record:
        record(args.base)
        return
    make_releases()
    there, here = of(args.base.resolve()), of(TREE)
    differing = compared = 0
    for form, tasks in here.items():
        for name, digests in tasks.items():
            wanted = there[form][name]
            for kind in sorted(digests.keys() | wanted.keys()):
                compared += 1
                same = digests.get(kind) == wanted.get(kind)
                differing += not same
                digest = digests.get(kind, "missing here")[:16]
                print(f"{form:8} {name:16} {kind:12} {digest}  {'same' if same else 'DIFFERS'}")
    print(f"{compared} compared, {differing} differ")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
