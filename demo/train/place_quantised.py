"""Puts quantised weights beside the model they were made from: used by quantise.sh.

The table of latent positions is left out, because every reader computes it and here it would be a third of the file.
Everything else that belongs to a checkpoint is a link to the original's file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors.torch import load_file, save_file

FORMS = {"awq128": ("awq", "awq"), "awq64": ("awq64", "awq"), "nvfp4": ("nvfp4", "nvfp4")}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--made", type=Path, required=True, help="folder with awq128, awq64 and nvfp4")
    args = parser.parse_args()
    for made, (suffix, stem) in FORMS.items():
        directory = args.model.with_name(f"{args.model.name}-{suffix}")
        directory.mkdir(exist_ok=True)
        weights = load_file(args.made / made / f"{stem}_state_dict.safetensors")
        weights.pop("latent_pos_embed.pos_embed", None)
        save_file(weights, directory / f"{stem}_state_dict.safetensors", metadata={"format": "pt"})
        meta = (args.made / made / f"{stem}_meta.json").read_text()
        (directory / f"{stem}_meta.json").write_text(meta.rstrip() + "\n")
        # Files alone: a link to a folder would be an empty one in a zip file, such as ComfyUI's registry has.
        for shared in sorted(path.relative_to(args.model) for path in args.model.rglob("*") if path.is_file()):
            link = directory / shared
            if shared.name != "model.safetensors" and not link.is_symlink():
                link.parent.mkdir(exist_ok=True)
                link.symlink_to(Path(*[".."] * len(shared.parts), args.model.name, shared))
        print(directory)


if __name__ == "__main__":
    main()
