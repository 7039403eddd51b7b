"""Files on a folder that many machines share: written whole under another name, then renamed. No locks: rename and
link are what NFS does atomically."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_BLOCK_BYTES = 1 << 20
_LITTLE_BYTES = 1 << 20


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError of the block names the file: that of a full disk, which comes when bytes are written, does not."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write_whole(path: Path, text: str) -> None:
    """The file appears with all its text, or not at all; an older one is replaced."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with naming(path), temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_first(path: Path, text: str) -> bool:
    """The same, but only where no file of that name is; whether this one is it. Of several at once one gets it."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    write_whole(temporary, text)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to make things in: none yet, or an empty one. When the block does not come to its end (a full disk,
    Ctrl-C), nothing of it is left, so that the same command can be given again."""
    was_there = path.exists()
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield path
    except BaseException:
        for name in os.listdir(path):  # noqa: PTH208 - names alone
            shutil.rmtree(path / name, ignore_errors=True)
            with contextlib.suppress(OSError):
                (path / name).unlink()
        if not was_there:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """An empty object where there is no such file, or not a whole one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def hash_of(path: Path) -> str:
    """SHA-256 of the file's bytes, in hex. OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def names_in(folder: Path, form: re.Pattern[str] = re.compile(r"[^.].*")) -> list[str]:
    """What is in a folder and has a name of that form, in order; by default, all but files that are only being written.
    Empty where there is none."""
    try:
        return sorted(name for name in os.listdir(folder) if form.fullmatch(name))  # noqa: PTH208 - names alone
    except FileNotFoundError:
        return []


def is_full(folder: Path) -> bool:
    """Whether the disk that a folder is on has less than a mebibyte left."""
    with contextlib.suppress(OSError):
        room = os.statvfs(folder)
        return room.f_bavail * room.f_frsize < _LITTLE_BYTES
    return False


def moved(source: Path, target: Path) -> bool:
    """Rename, by which one of several gets a file: whether it was this one. An answer of NFS may get lost after the
    rename was done, so that what counts is what is there afterwards. `target` is a name of the caller's alone."""
    try:
        source.rename(target)
    except FileNotFoundError:
        return target.exists()
    return True
