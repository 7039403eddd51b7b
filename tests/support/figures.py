"""What tests measure: collected by subject, printed when all are done."""

from __future__ import annotations


class Figures:
    def __init__(self) -> None:
        self.lines: dict[str, list[str]] = {}

    def add(self, subject: str, line: str) -> None:
        self.lines.setdefault(subject, []).append(line)

    def __str__(self) -> str:
        return "\n".join("\n  ".join([subject, *lines]) for subject, lines in self.lines.items())
