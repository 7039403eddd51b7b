"""How far a run of many items is."""

from __future__ import annotations

import sys
import time


class ProgressBar:
    """One line over all items on a terminal; elsewhere one line an item."""

    WIDTH = 30

    def __init__(self, total: int) -> None:
        self.total, self.started = total, time.monotonic()
        self.on_terminal = sys.stdout.isatty()

    def show(self, finished: int, part: float, text: str) -> None:
        if not self.on_terminal:
            return
        done = (finished + part) / self.total
        filled = round(done * self.WIDTH)
        elapsed = time.monotonic() - self.started
        left = f"{elapsed / done - elapsed:3.0f} s left" if done > 0.02 else ""
        bar = "█" * filled + "░" * (self.WIDTH - filled)
        print(f"\r\033[K{bar} {finished}/{self.total} {left}  {text[:60]}", end="", flush=True)

    def finished(self, count: int, seconds: float, text: str) -> None:
        if not self.on_terminal:
            print(f"{count:3}/{self.total}  {seconds:5.2f} s  {text}", flush=True)
        elif count == self.total:
            print("\r\033[K", end="", flush=True)
