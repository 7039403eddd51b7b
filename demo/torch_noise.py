"""The noise of PyTorch's CPU generator, without PyTorch.

lanced draws it itself: for a batch it takes a seed for each item. The training's evaluation takes one seed for twenty
examples. Drawn here and sent along, its noise makes the two comparable example by example.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lanced_client.latent_shape import LATENT_CHANNELS

BATCH = 20  # examples that share a seed in the evaluation


@lru_cache(maxsize=4)
def torch_randn(seed: int, count: int) -> NDArray[np.float32]:
    """torch.randn(count, generator=torch.Generator().manual_seed(seed)), for a multiple of 16 and a seed of 32 bits; up
    to the rounding of logarithm and cosine. The Mersenne Twister is numpy's; each 16 uniforms of 24 bits become 8 radii
    and 8 angles of the Box-Muller transform (PyTorch's DistributionTemplates.h)."""
    assert count % 16 == 0
    words = np.random.RandomState(seed).randint(0, 1 << 32, count, np.uint64)
    uniform = ((words & 0xFFFFFF).astype(np.float32) * np.float32(2.0**-24)).reshape(-1, 2, 8)
    radius = np.sqrt(np.float32(-2) * np.log(np.float32(1) - uniform[:, 0]))
    angle = np.float32(2 * np.pi) * uniform[:, 1]
    normal: NDArray[np.float32] = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(-1)
    return normal


def evaluation_noise(seed: int, index: int, tokens: int) -> NDArray[np.float32]:
    """[1, tokens, 48]: what the evaluation gives to example `index` of a task."""
    values = torch_randn(seed + index // BATCH * BATCH, BATCH * tokens * LATENT_CHANNELS)
    noise: NDArray[np.float32] = values.reshape(BATCH, 1, tokens, LATENT_CHANNELS)[index % BATCH]
    return noise
