"""Loads the tested pack as another system would: PRETENDED_SYSTEM ("win32", "darwin") says which.

Put into a copy of the pack, whose __init__.py begins and ends with it. Between, the pack's modules get the standard
library without what that system has not; ComfyUI itself, and the packages that have builds for that system, keep all.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import types
from typing import Any

SYSTEM = os.environ["PRETENDED_SYSTEM"]
MISSING: dict[str, dict[str, tuple[str, ...]]] = {
    "win32": {
        "os": ("getuid", "geteuid", "getgid", "fork", "getpgid", "killpg", "setsid", "statvfs", "sysconf", "mkfifo"),
        "socket": ("AF_UNIX", "SO_PEERCRED", "send_fds", "recv_fds"),
        "select": ("poll", "epoll"),
        "signal": ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "pthread_sigmask"),
        "sys": (),
    },
    "darwin": {
        "os": ("memfd_create", "sched_getaffinity", "posix_fadvise", "pidfd_open"),
        "socket": ("SO_PEERCRED", "SOCK_CLOEXEC"),
        "select": ("epoll",),
        "signal": ("sigtimedwait", "SIGRTMIN"),
        "sys": (),
    },
}
GONE = ("fcntl", "grp", "pwd", "resource", "termios", "pty", "tty") if SYSTEM == "win32" else ()
BUILT_FOR_ALL = ("torch", "av", "PIL.Image", "numpy", "pynng", "safetensors")

_as_it_is: dict[str, Any] = {}


class _Without(types.ModuleType):
    """A module that lacks some names."""

    def __init__(self, module: types.ModuleType, missing: tuple[str, ...]) -> None:
        super().__init__(module.__name__)
        self._module, self._missing = module, missing

    def __getattr__(self, name: str) -> Any:
        if name in self._missing:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} on {SYSTEM}")
        return SYSTEM if (self.__name__, name) == ("sys", "platform") else getattr(self._module, name)


def begin() -> None:
    for name in BUILT_FOR_ALL:
        with contextlib.suppress(ModuleNotFoundError):  # the nodes do without pynng
            importlib.import_module(name)
    for name in (*MISSING[SYSTEM], *GONE):
        _as_it_is[name] = importlib.import_module(name)
    sys.modules.update({name: _Without(_as_it_is[name], missing) for name, missing in MISSING[SYSTEM].items()})
    sys.modules.update(dict.fromkeys(GONE))  # type: ignore[arg-type] # an import of None fails


def end() -> None:
    _as_it_is["sys"].modules.update(_as_it_is)
