"""Times PyTorch's operators at the shapes of lance-bench's cases; tools/bench_peers.py runs it where there is torch.

usage: operators.py float32|bf16 THREADS [CASE...]; prints the best milliseconds of each case, or of these, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import torch
from torch.nn import functional

# rows, inputs, outputs. No few rows: one weight, used again and again, would stay in a large cache, and ours do not.
LINEAR = {
    "linear-f32": (512, 2048, 11008),
    "linear-awq-g128": (512, 2048, 11008),
    "linear-awq-down": (512, 11008, 2048),
    "linear-awq-2304": (2304, 2048, 2048),
    "linear-awq-prompt": (48, 2048, 11008),
}
# heads, queries, keys, width of a head
ATTENTION = {
    "attention-image": (16, 2304, 4608, 128),
    "attention-vit": (16, 1024, 1024, 80),
    "attention-vae": (1, 1024, 1024, 1024),
}
# in, out, frames with their past, height, width; padding is in the picture already
CONV = {"conv-3x3x3-1024": (1024, 1024, 4, 34, 34), "conv-3x3x3-256": (256, 256, 3, 130, 130)}
SECONDS = 0.3


def best(run: Callable[[], torch.Tensor]) -> float:
    run()
    times: list[float] = []
    while len(times) < 2 or sum(times) < SECONDS:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


attend = functional.scaled_dot_product_attention


def main() -> None:
    kind = torch.bfloat16 if sys.argv[1] == "bf16" else torch.float32
    torch.set_num_threads(int(sys.argv[2]))
    times: dict[str, float] = {}
    wanted = set(sys.argv[3:] or (*LINEAR, *ATTENTION, *CONV))
    with torch.inference_mode():
        for name, (rows, inputs, outputs) in LINEAR.items():
            if name not in wanted:
                continue
            x, weight = torch.randn(rows, inputs, dtype=kind), torch.randn(outputs, inputs, dtype=kind)
            times[name] = best(lambda x=x, weight=weight: functional.linear(x, weight))  # type: ignore[misc]
        for name, (heads, rows, keys, width) in ATTENTION.items():
            if name not in wanted:
                continue
            q = torch.randn(1, heads, rows, width, dtype=kind)
            k, v = (torch.randn(1, heads, keys, width, dtype=kind) for _ in range(2))
            times[name] = best(lambda q=q, k=k, v=v: attend(q, k, v))  # type: ignore[misc]
        for name, (inputs, outputs, frames, height, width) in CONV.items():
            if name not in wanted:
                continue
            x = torch.randn(1, inputs, frames, height, width, dtype=kind)
            weight = torch.randn(outputs, inputs, 3, 3, 3, dtype=kind)
            times[name] = best(lambda x=x, weight=weight: functional.conv3d(x, weight))  # type: ignore[misc]
    print(json.dumps(times))


if __name__ == "__main__":
    main()
