"""Plots of what `lance-quant compare --stats` reported: what the outputs of each layer lose, over depth, for both
experts; the middle third of the layers is shaded. Needs matplotlib.

    python3 tools/quant_plots.py REPORT... -o layers.svg

REPORT is a folder of compare's, or its report.json; of several, and of one with several recipes, each model has a line.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

EXPERTS = {"und": "understanding", "gen": "generation"}
MATRICES = ("q", "k", "v", "o", "gate", "up", "down")


def draw(models: Sequence[dict[str, Any]], to: Path) -> bool:
    """Of each model its "name" and "layers", as report.json has them; models without layers are left out. False, and
    no file: there is no matplotlib."""
    try:
        from matplotlib import pyplot  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return False
    figure, places = pyplot.subplots(1, len(EXPERTS), figsize=(12, 4), sharey=True)
    for axes, (expert, title) in zip(places, EXPERTS.items(), strict=True):
        deepest = 0
        for model in models:
            depth = [layer for layer in model["layers"] or [] if layer["expert"] == expert]
            means = [sum(layer[matrix] for matrix in MATRICES) / len(MATRICES) for layer in depth]
            axes.plot([layer["layer"] for layer in depth], means, label=model["name"], marker="o")
            deepest = max([deepest, *(layer["layer"] for layer in depth)])
        axes.axvspan((deepest + 1) / 3 - 0.5, 2 * (deepest + 1) / 3 - 0.5, alpha=0.1)
        axes.set_title(f"what outputs lose: {title}")
        axes.set_xlabel("layer")
    places[0].set_ylabel("mean over matrices, of what they are")
    places[0].legend(fontsize=7)
    figure.savefig(to)
    pyplot.close(figure)
    return True


def models_of(report: Path) -> list[dict[str, Any]]:
    file = report / "report.json" if report.is_dir() else report
    told = json.loads(file.read_text())
    found = [{"name": one["model"], "layers": one["layers"]} for one in (told if isinstance(told, list) else [told])]
    if not any(model["layers"] for model in found):
        sys.exit(f"{file}: has no layers; compare --stats looks at them")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Plots what the outputs of each layer lose.")
    parser.add_argument("reports", nargs="+", type=Path)
    parser.add_argument("-o", dest="output", type=Path, required=True, help="a name that ends in .svg, .png or .pdf")
    args = parser.parse_args()
    if not draw([model for report in args.reports for model in models_of(report)], args.output):
        sys.exit("no plot: matplotlib is not installed")


if __name__ == "__main__":
    main()
