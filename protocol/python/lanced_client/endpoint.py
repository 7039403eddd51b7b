"""Where a client looks for the daemon when it is not told: the rule of protocol/endpoint.h."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from .errors import Unsupported


def default_endpoint() -> str:
    """$LANCED_ENDPOINT; else lanced.ipc in $XDG_RUNTIME_DIR/lanced, else in /tmp/lanced-UID."""
    return os.environ.get("LANCED_ENDPOINT") or f"ipc://{_default_folder()}/lanced.ipc"


def is_local(endpoint: str) -> bool:
    """Whether it is reached through this machine's memory: what goes there takes no line."""
    return endpoint.startswith("ipc://")


# As protocol/endpoint.c has it; what is wrong with a port is told by who connects.
_LOOPBACK = re.compile(r"(localhost|127\.[0-9.]*|\[::1\])(:[^@/?#]*)?")


def check_trust(endpoint: str) -> None:
    """Unsupported when the folder of the default endpoint is there and not this user's alone: who made it could answer
    as a daemon, and would learn tokens, prompts and pictures. Also for plain tcp to another machine: an endpoint may
    come with somebody else's workflow, and the token would go there, readable on the way."""
    scheme, _, address = endpoint.partition("://")
    if scheme == "tcp" and not _LOOPBACK.fullmatch(address):
        raise Unsupported(
            f"endpoint: {endpoint} is not a loopback address, and what goes there in the clear others can read and"
            " change; use tls+tcp:// (docs/security.md), or forward the port: ssh -L 8471:127.0.0.1:8471 HOST"
        )
    folder = endpoint.removeprefix("ipc://").rpartition("/")[0]
    if not is_local(endpoint) or not hasattr(os, "getuid") or folder != _default_folder():
        return
    try:
        info = os.lstat(folder)
    except OSError:
        return  # nobody answers there, then
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o077:
        raise Unsupported(
            f"endpoint: {folder} must be a folder of yours that nobody else can enter; remove it, or:"
            f" chmod 700 {folder}"
        )


def _default_folder() -> str:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and Path(runtime).is_dir():
        return f"{runtime}/lanced"
    # Windows has no such number, and no lanced; what is named there is only somewhere that nobody answers.
    return f"/tmp/lanced-{os.getuid() if hasattr(os, 'getuid') else os.environ.get('USERNAME', 'user')}"
