"""What workers did and when, as an SVG picture: a row per worker, a bar per try of a task, lines for what befell it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

_WIDTH, _LEFT, _ROW = 1000, 150, 16
_COLOURS = {"done": "#2a7", "found": "#79c", "retry": "#e90", "failed": "#c33", "given back": "#999", "": "#c33"}
_LEGEND = {"done": "done", "retry": "to be tried again", "": "its worker died"}


def timeline(events: Sequence[dict[str, Any]], troubles: Sequence[tuple[float, str]]) -> str:
    """events: of status.events_of. troubles: seconds of the same clock, and words."""
    first = min(event["t"] for event in events)
    last = max(event["t"] for event in events)
    scale = (_WIDTH - _LEFT - 10) / max(last - first, 1e-3)
    workers = list(dict.fromkeys(event["worker"] for event in events))
    top = 20 + 14 * len(troubles)
    parts = []
    for row, worker in enumerate(workers):
        y = top + row * _ROW
        parts.append(f'<text x="4" y="{y + 11}">{escape(worker)}</text>')
        for start, end, kind, task in _bars([event for event in events if event["worker"] == worker], last):
            x, width = _LEFT + (start - first) * scale, max((end - start) * scale, 1)
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_ROW - 3}" fill="{_COLOURS[kind]}">'
                         f"<title>task {task}</title></rect>")  # fmt: skip
    bottom = top + len(workers) * _ROW
    for place, (moment, words) in enumerate(troubles):
        x = _LEFT + (moment - first) * scale
        parts.append(f'<path d="M{x:.1f} {18 + 14 * place}V{bottom}" stroke="#c33" stroke-dasharray="3 2"/>')
        parts.append(f'<text x="{x + 3:.1f}" y="{16 + 14 * place}">{moment - first:.0f} s: {escape(words)}</text>')
    for place, (kind, words) in enumerate(_LEGEND.items()):
        x = _LEFT + place * 160
        parts.append(f'<rect x="{x}" y="{bottom + 8}" width="10" height="10" fill="{_COLOURS[kind]}"/>')
        parts.append(f'<text x="{x + 14}" y="{bottom + 17}">{words}</text>')
    parts.append(f'<text x="{_WIDTH - 60}" y="{bottom + 17}">{last - first:.0f} s</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 26}" font-family="sans-serif" '
        f'font-size="10"><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _bars(events: Sequence[dict[str, Any]], last: float) -> list[tuple[float, float, str, int]]:
    """Start, end, outcome and task of each try. One without an end was its worker's last."""
    bars = []
    began: dict[int, float] = {}
    for event in events:
        task = event.get("task")
        if event["event"] == "began":
            began[event["task"]] = event["t"]
        elif task in began and event["event"] in _COLOURS:
            bars.append((began.pop(task), event["t"], event["event"], task))
    return bars + [(start, min(start + 1, last), "", task) for task, start in began.items()]
