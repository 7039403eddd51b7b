"""Curves over one axis as an SVG picture, each with its own scale that begins at zero, one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT, _LEFT, _GAP = 800, 160, 50, 30


@dataclass(frozen=True)
class Curve:
    name: str  # with its unit
    values: Sequence[float]


def plot(axis: str, places: Sequence[float], curves: Sequence[Curve]) -> str:
    """axis: what `places` are, at which each curve has a value."""
    parts = []
    for row, curve in enumerate(curves):
        top = row * (_HEIGHT + _GAP) + _GAP
        bottom, highest = top + _HEIGHT, max(curve.values) * 1.1 or 1.0
        points = " ".join(
            f"{_LEFT + (place - places[0]) / max(places[-1] - places[0], 1e-9) * (_WIDTH - _LEFT - 10):.1f},"
            f"{bottom - value / highest * _HEIGHT:.1f}"
            for place, value in zip(places, curve.values, strict=True)
        )
        parts.append(
            f'<text x="{_LEFT}" y="{top - 8}">{escape(curve.name)}</text>'
            f'<path d="M{_LEFT} {top}V{bottom}H{_WIDTH - 10}" fill="none" stroke="#999"/>'
            f'<text x="{_LEFT - 4}" y="{top + 8}" text-anchor="end">{highest:.0f}</text>'
            f'<text x="{_LEFT - 4}" y="{bottom}" text-anchor="end">0</text>'
            f'<polyline points="{points}" fill="none" stroke="#27a" stroke-width="1.2"/>'
        )
    end = len(curves) * (_HEIGHT + _GAP) + 14
    parts.append(
        f'<text x="{_LEFT}" y="{end}">{places[0]:.0f}</text>'
        f'<text x="{_WIDTH - 10}" y="{end}" text-anchor="end">{places[-1]:.0f} {escape(axis)}</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {end + 8}" font-family="sans-serif" '
        f'font-size="11"><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )
