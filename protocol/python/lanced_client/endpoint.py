"""Where a client looks for the daemon when it is not told: the rule of protocol/endpoint.h."""

from __future__ import annotations

import os


def default_endpoint() -> str:
    """$LANCED_ENDPOINT; else lanced.ipc in $XDG_RUNTIME_DIR/lanced, else in /tmp/lanced-UID."""
    chosen = os.environ.get("LANCED_ENDPOINT")
    if chosen:
        return chosen
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    folder = f"{runtime}/lanced" if runtime.startswith("/") else f"/tmp/lanced-{os.getuid()}"
    return f"ipc://{folder}/lanced.ipc"
