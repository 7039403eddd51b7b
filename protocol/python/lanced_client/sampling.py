"""Which frames of a clip the model looks at, and how large frames may be: what lancectl does with a video file.

A client that sends just these frames, and calls them SAMPLED_FPS a second, gets what it would get for the whole clip:
the daemon takes every one of them. So a clip may be of any length and size.
"""

from __future__ import annotations

import math

SAMPLED_FPS = 12.0
MAX_SECONDS = 6.0  # of a longer clip as many frames are taken, evenly over all of it
LOWEST_FPS, HIGHEST_FPS = 0.01, 1000.0  # that the daemon takes
_FRAMES_PER_LATENT = 4


def sampled_frames(count: int, fps: float) -> list[int]:
    """Ascending indices of the frames that the official sampler takes of `count` at `fps`: 4n + 1, at most 69.
    ValueError for no frames, or a rate outside the daemon's range."""
    if count < 1:
        raise ValueError("the clip has no frames")
    if not LOWEST_FPS <= fps <= HIGHEST_FPS:
        raise ValueError(
            f"the clip has {count} frames at {fps:g} a second; a rate of {LOWEST_FPS} to {HIGHEST_FPS:g} is accepted"
        )
    whole_fps = round(max(fps, 1.0))  # half to even, as officially
    wanted = round(min(count / whole_fps, MAX_SECONDS) * SAMPLED_FPS)
    rest = wanted % _FRAMES_PER_LATENT
    wanted += 1 - rest if rest else 1 - _FRAMES_PER_LATENT
    if wanted <= 1:
        return [0]
    step = (count - 1) / (wanted - 1)
    return [*(math.floor(index * step) for index in range(wanted - 1)), count - 1]


def fitting_size(frames: int, height: int, width: int, max_bytes: int) -> tuple[int, int]:
    """(height, width) at which so many RGB frames take at most max_bytes: theirs, or a smaller one of the same shape.
    ValueError when nothing is left of them."""
    total_bytes = 3.0 * frames * height * width
    if total_bytes <= max_bytes:
        return height, width
    scale = math.sqrt(max_bytes / total_bytes)
    fitting = int(height * scale), int(width * scale)
    if min(fitting) < 1:
        raise ValueError(
            f"{frames} frames of {width} x {height} pixels cannot be made to fit into {max_bytes} bytes,"
            " the daemon's limit"
        )
    return fitting


def largest_source_bytes(message_bytes: int) -> int:
    """What a source may take of the daemon's limit for a request (`limits.message_bytes` of hello)."""
    return message_bytes - message_bytes // 16  # the rest is for the prompt
