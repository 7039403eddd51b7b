"""What went wrong, in words for the node that it went wrong in.

ComfyUI shows an exception as "<module>.<class>: <words>". So what leaves a node is of a class whose module is called
lance, and its words name nothing that a node does not have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def told_in_words(node_id: str) -> Iterator[None]:
    """Have what goes wrong within stand under the node, and first in ComfyUI's panel."""
    try:
        yield
    except (LanceError, ValueError) as error:
        words = words_for_a_node(str(error))
        show_text(words, node_id)
        raise Refused(words) from error
