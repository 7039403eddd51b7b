"""Folders on this machine's own disk, for sockets, logs and graphs of the moment. Who is killed cannot take its own
away, so that the next one here does."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .beats import is_gone_here, machine_id
from .files import read_json, write_json

_PREFIX = "lance-farm-"
_OWNER = "owner.json"


def scratch_folder() -> Path:
    """A new one, which the caller takes away (mode 0700; short, as a socket's path has to be). OSError."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if is_gone_here(read_json(folder / _OWNER)):
            shutil.rmtree(folder, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        write_json(folder / _OWNER, {"pid": os.getpid(), "machine": machine_id()})
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


@contextlib.contextmanager
def scratch_for_now() -> Iterator[Path]:
    """One that goes when the block ends."""
    folder = scratch_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
