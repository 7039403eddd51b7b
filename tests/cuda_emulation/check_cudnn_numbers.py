#!/usr/bin/env python3
"""Compare kernels/cuda/cudnn_numbers.h with cuDNN's own header: check_cudnn_numbers.py .../include/cudnn_graph.h

The header comes with every cuDNN, the Python package nvidia-cudnn-cu13 among them.
"""

import re
import sys
from pathlib import Path

OURS = Path(__file__).parents[2] / "kernels/cuda/cudnn_numbers.h"
NUMBER = re.compile(r"\b(CUDNN_\w+)(?: CUDNN_DEPRECATED_ENUM)?\s*=\s*(\d+)")


def numbers(file: Path) -> dict[str, int]:
    return {name: int(value) for name, value in NUMBER.findall(file.read_text())}


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    ours, theirs = numbers(OURS), numbers(Path(sys.argv[1]))
    wrong = [f"{name} is {theirs.get(name)}, not {value}" for name, value in ours.items() if theirs.get(name) != value]
    print("\n".join(wrong) if wrong else f"all {len(ours)} numbers agree")
    return 1 if wrong or not ours else 0


if __name__ == "__main__":
    sys.exit(main())
