"""Where Lance checkpoints lie on this machine: ComfyUI's models/lance or models/Lance, the `lance` folders of
extra_model_paths.yaml, and, where these have none, the demo models of the clone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import folder_paths

CLONE = Path(__file__).resolve().parent.parent
# By these lanced knows a checkpoint; configuration, VAE and ViT may lie beside its folder.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "awq_state_dict.safetensors",
    "nvfp4_state_dict.safetensors",
)
LONGEST_NAME_BYTES = 64  # of a model

if "lance" not in folder_paths.folder_names_and_paths:
    folder_paths.add_model_folder_path("lance", str(Path(folder_paths.models_dir) / "lance"))


def model_folders() -> list[Path]:
    """The folders that hold checkpoints' folders, ComfyUI's own first; some may not exist."""
    own = [Path(folder_paths.models_dir) / name for name in ("lance", "Lance")]
    extra = [
        Path(path)
        for kind in list(folder_paths.folder_names_and_paths)
        if kind.lower() == "lance"
        for path in folder_paths.get_folder_paths(kind)
    ]
    found: dict[Path, Path] = {}  # by where it really is: on some systems "lance" and "Lance" are one folder
    for folder in [*own, *extra]:
        found.setdefault(_real(folder), folder)
    return list(found.values())


def find_models() -> dict[str, Path]:
    """Checkpoint folders by name."""
    found: dict[str, Path] = {}
    for folder in model_folders():
        for checkpoint in _checkpoints_in(folder):
            found.setdefault(checkpoint.name, checkpoint)
    return found or {checkpoint.name: checkpoint for checkpoint in _checkpoints_in(CLONE / "demo")}


def has_usable_name(folder: Path) -> bool:
    """Whether lanced would offer a checkpoint under its folder's name."""
    try:
        return len(folder.name.encode()) <= LONGEST_NAME_BYTES
    except UnicodeEncodeError:  # bytes that are no text
        return False


def _checkpoints_in(folder: Path) -> Iterator[Path]:
    """Those right below `folder`, by name. What cannot be looked at is passed over, with a word in the log."""
    try:
        below = sorted(folder.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        logging.warning("lanced: %r cannot be searched for models: %s", str(folder), error.strerror)
        return
    for checkpoint in below:
        try:
            if not any((checkpoint / name).is_file() for name in WEIGHT_FILES):
                continue
        except OSError as error:
            logging.warning("lanced cannot offer %r: %s", str(checkpoint), error.strerror)
            continue
        if has_usable_name(checkpoint):
            yield checkpoint
        else:
            logging.warning("lanced cannot offer %r: its name is over 64 bytes or not UTF-8", str(checkpoint))


def _real(folder: Path) -> Path:
    try:
        return folder.resolve()
    except (OSError, RuntimeError):  # a circle of links
        return folder
