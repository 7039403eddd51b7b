"""Where Lance checkpoints lie on this machine: ComfyUI's models/lance or models/Lance, and the `lance` folders of
extra_model_paths.yaml. What a checkpoint is, lanced knows."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import folder_paths

CLONE = Path(__file__).resolve().parent.parent

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


def searchable(folders: list[Path]) -> list[Path]:
    """Those that exist and may be read; the log names the others that exist."""
    found = []
    for folder in folders:
        if os.access(folder, os.R_OK | os.X_OK):
            found.append(folder)
        elif os.path.lexists(folder):
            logging.warning("lanced: %r cannot be searched for models", str(folder))
    return found


def _real(folder: Path) -> Path:
    try:
        return folder.resolve()
    except (OSError, RuntimeError):  # a circle of links
        return folder
