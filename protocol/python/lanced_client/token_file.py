"""The token that a client shows, where it is not given: $LANCED_TOKEN, else what the file $LANCED_TOKEN_FILE holds."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .errors import BadRequest

_MOST_BYTES = 4096


def default_token() -> str | None:
    token = os.environ.get("LANCED_TOKEN")
    file = os.environ.get("LANCED_TOKEN_FILE")
    return token or (_read(Path(file)) if file else None)


def _read(file: Path) -> str:
    """The first line of a file that nobody but its owner can use, where the system has modes that say so."""
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            if os.name == "posix" and stat.S_ISREG(mode) and mode & 0o077:
                raise BadRequest(
                    f"LANCED_TOKEN_FILE {file}: others than its owner can use it (mode {mode & 0o777:03o}), so that it"
                    " is no secret; chmod 600 it, and take a new token if they could read it"
                )
            text = opened.read(_MOST_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"LANCED_TOKEN_FILE {file}: {error}") from error
    return text.partition("\n")[0].rstrip("\r")
