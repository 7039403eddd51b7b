"""What went wrong, in words for the node that it went wrong in.

ComfyUI shows an exception as "<module>.<class>: <words>". So what leaves a node is of a class whose module is called
lance, and its words name nothing that a node does not have.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from ..protocol.python.lanced_client import LanceError
from .texts import show_text

# Options of a command line that the daemon's advice ends with.
_ADVICE = re.compile(r",? or (?:pass|give|say|try) --[a-z-]+(?: [A-Z]+)?")


class Refused(Exception):
    """What a node was given cannot be done, or the daemon says no."""


Refused.__module__ = "lance"


def words_for_a_node(message: str) -> str:
    """The daemon's words without advice that only a command line can follow."""
    return _ADVICE.sub("", message).strip()


def told_in_words(execute: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """A node's `execute`, below @classmethod: what goes wrong in it stands under the node, and first in ComfyUI's
    panel. The node lists its hidden unique_id."""

    @wraps(execute)
    async def told(cls: Any, *values: Any, **inputs: Any) -> Any:
        try:
            return await execute(cls, *values, **inputs)
        except (LanceError, ValueError) as error:
            words = words_for_a_node(str(error))
            show_text(words, cls.hidden.unique_id)
            raise Refused(words) from error

    return told
