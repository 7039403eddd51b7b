#!/usr/bin/env python3
"""Writes tests/golden/data/vision/pictures.txt: what the official preprocessing makes of synthetic pictures and clips.

Pixels go through Pillow itself (11.0); buckets, crops and frame choice are the official formulas in the Python
floating point and rounding they were written in. tests/unit/test_picture.c makes the same pictures and compares.

    python tests/golden/make_picture_vectors.py
"""
import math
from pathlib import Path

import numpy as np
from PIL import Image

OUT = Path(__file__).parent / "data/vision/pictures.txt"
PRESETS = {"image_256res": (256, 224), "image_512res": (512, 448), "image_768res": (768, 672),
           "video_192p": (256, 224), "video_360p": (480, 476), "video_480p": (640, 616)}
ASPECTS = ((21, 9), (16, 9), (4, 3), (1, 1), (3, 4), (9, 16))
# One source near every bucket's aspect, then sources that fit a bucket exactly or all but exactly (one of them loses a
# column), larger and smaller than the bucket, and extreme shapes.
SOURCES = ((187, 430), (169, 300), (151, 200), (211, 211), (200, 150), (301, 170),
           (576, 1024), (768, 1366), (336, 784), (496, 1153), (1080, 1920), (3, 5), (17, 400), (400, 17))
RESIZES = (
    (1, 1, 5, 4), (7, 5, 7, 5), (7, 5, 14, 5), (7, 5, 7, 3), (64, 48, 33, 47), (48, 64, 200, 100), (300, 4, 3, 40),
)


def synthetic(height: int, width: int) -> Image.Image:
    y, x, c = np.ogrid[:height, :width, :3]
    return Image.fromarray(((3 * x * x + 5 * y * y + (c + 1) * x * y + 160 * c) // 4 % 256).astype(np.uint8))


def checksum(values: np.ndarray) -> int:
    values = values.reshape(-1).astype(np.uint64)
    factors = np.arange(len(values), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)
    return int(((values + np.uint64(1)) * factors).sum(dtype=np.uint64))


def bucket_of(area: float, aspect: float, stride: int = 16) -> tuple[int, int]:
    w1 = round(math.sqrt(area * aspect) / stride) * stride
    h1 = round(w1 / aspect / stride) * stride
    h2 = round(math.sqrt(area / aspect) / stride) * stride
    w2 = round(h2 * aspect / stride) * stride
    e1, e2 = abs(w1 / h1 - aspect), abs(w2 / h2 - aspect)
    if e1 == e2:
        return (h1, w1) if abs(w1 * h1 - area) <= abs(w2 * h2 - area) else (h2, w2)
    return (h1, w1) if e1 < e2 else (h2, w2)


def nearest_bucket(side: int, height: int, width: int) -> tuple[int, int]:
    buckets = [bucket_of(side * side, w / h) for w, h in ASPECTS]
    ratios = np.array([w / h for h, w in buckets])
    return buckets[int(np.abs(width / height - ratios).argmin())]


def crop_box(height: int, width: int, ratio: float) -> tuple[int, int]:
    """RandomResizedCrop.get_params of torchvision with scale (1, 1) and ratio (ratio, ratio): rows, columns."""
    aspect = float(np.exp(np.log(np.float32(ratio))))
    w, h = round(math.sqrt(width * height * aspect)), round(math.sqrt(width * height / aspect))
    if 0 < w <= width and 0 < h <= height:
        return h, w
    if width / height < ratio:
        return round(width / ratio), width
    if width / height > ratio:
        return height, round(height * ratio)
    return height, width


def prepare(image: Image.Image, bucket: tuple[int, int], multiple: int) -> np.ndarray:
    width, height = image.size
    h, w = (max(1, n) for n in crop_box(height, width, bucket[1] / bucket[0]))
    top, left = (height - h) // 2, (width - w) // 2
    image = image.crop((left, top, left + w, top + h)).resize((bucket[1], bucket[0]), Image.Resampling.BICUBIC)
    h, w = bucket[0] - bucket[0] % multiple, bucket[1] - bucket[1] % multiple
    top, left = round((bucket[0] - h) / 2.0), round((bucket[1] - w) / 2.0)
    return np.asarray(image)[top:top + h, left:left + w]


def sampled_frames(count: int, fps: float) -> np.ndarray:
    frames = round(min(count / round(fps), 6.0) * 12)
    frames = frames // 4 * 4 + 1 if frames % 4 else frames // 4 * 4 + 1 - 4
    return np.linspace(0, count - 1, max(frames, 1), dtype=int)  # 1: officially an error


def main() -> None:
    lines = []
    for h, w, oh, ow in RESIZES:
        image = synthetic(h, w).resize((ow, oh), Image.Resampling.BICUBIC)
        lines.append(f"resize {h} {w} {oh} {ow} {checksum(np.asarray(image)):016x}")
    for name, sides in PRESETS.items():
        for h, w in SOURCES:
            for use, side, multiple in (("vae", sides[0], 16), ("vit", sides[1], 28)):
                out = prepare(synthetic(h, w), nearest_bucket(side, h, w), multiple)
                lines.append(f"prepare {name} {use} {h} {w} {out.shape[0]} {out.shape[1]} {checksum(out):016x}")
    for fps in [*range(8, 121), 23.976, 29.97, 12.5, 24.5]:
        all_counts = [np.concatenate(([len(i)], i)) for i in (sampled_frames(n, fps) for n in range(1, 401))]
        lines.append(f"frames {fps} {checksum(np.concatenate(all_counts)):016x}")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
