"""Text of a peer, so that printing it steers no terminal: the rule of utf8_print in base/utf8.h."""

from __future__ import annotations

import re

# Control characters (of ASCII but newline and tab, and from U+0080), and those that turn the direction of writing.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
