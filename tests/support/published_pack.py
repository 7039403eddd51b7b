"""The node pack as ComfyUI's registry hands it out, made as comfy-cli packs and unpacks it."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def unpack_published_pack(into: Path) -> None:
    """The tracked files without those that .comfyignore names, through a zip file: it has what links lead to, of a link
    to a folder an empty folder, and whoever unpacks it gets files that nobody may execute."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=True).stdout
    ignored = tuple(
        line for line in (ROOT / ".comfyignore").read_text().splitlines() if line and not line.startswith("#")
    )
    archive = into.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for name in filter(None, listed.decode().split("\0")):
            if not name.startswith(ignored) and (ROOT / name).exists():
                file.write(ROOT / name, name)
    with zipfile.ZipFile(archive) as file:
        file.extractall(into)
    archive.unlink()
