#!/usr/bin/env python3
"""Writes tests/golden/data/media: small pictures of every kind that Pillow reads differently, and pillow.txt with the
size and the SHA-256 of the RGB pixels that the official code gets from each through Pillow (11.0).

tests/unit/test_media.c reads the same files and compares.

    python tests/golden/make_media.py
"""
import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

OUT = Path(__file__).parent / "data/media"
HEIGHT, WIDTH = 13, 19
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6  # PNG's colour types
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def pattern(channels: int, high: int = 256) -> np.ndarray:
    """Gradients with all values from 0 to high - 1 in every channel, and differences between the channels."""
    y, x, c = np.ogrid[:HEIGHT, :WIDTH, :channels]
    return (y * WIDTH + x * (c + 1) + 97 * c * y) * high // (HEIGHT * WIDTH) % high


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(name: str, samples: np.ndarray, colour: int, depth: int, *, interlaced: bool = False, width: int = 0) -> None:
    """A PNG of kinds that Pillow does not write. `width` is a lie to be told in the header."""
    head = struct.pack(">IIBBBBB", width or samples.shape[1], samples.shape[0], depth, colour, 0, 0, int(interlaced))
    dtype = ">u2" if depth == 16 else "u1"
    passes = [samples[y0::dy, x0::dx] for x0, y0, dx, dy in ADAM7] if interlaced else [samples]
    rows = b"".join(b"\0" + row.astype(dtype).tobytes() for part in passes if part.size for row in part)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    (OUT / name).write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def write_pngs() -> None:
    rgb = Image.fromarray(pattern(3).astype(np.uint8))
    grey = Image.fromarray(pattern(1)[..., 0].astype(np.uint8))
    rgb.save(OUT / "rgb.png")
    rgb.save(OUT / "rgb_colour_key.png", transparency=rgb.getpixel((5, 5)))
    Image.fromarray(pattern(4).astype(np.uint8), "RGBA").save(OUT / "rgba.png")
    rgb.quantize(16).save(OUT / "palette.png")
    rgb.quantize(7).save(OUT / "palette_alpha.png", transparency=bytes([0, 90, 180, 255, 7]))
    grey.convert("1").save(OUT / "grey1.png")
    grey.save(OUT / "grey8.png")
    grey.save(OUT / "grey8_colour_key.png", transparency=50)
    Image.fromarray(pattern(2).astype(np.uint8), "LA").save(OUT / "grey8_alpha.png")
    packed = pattern(1, 4)[..., 0].reshape(-1)[: HEIGHT * 16].reshape(HEIGHT, 4, 4)
    png("grey2.png", (packed << np.array([6, 4, 2, 0])).sum(axis=2), GREY, 2, width=16)
    packed = pattern(1, 16)[..., 0].reshape(-1)[: HEIGHT * 16].reshape(HEIGHT, 8, 2)
    png("grey4.png", (packed << np.array([4, 0])).sum(axis=2), GREY, 4, width=16)
    png("grey16.png", pattern(1, 600), GREY, 16)
    png("grey16_alpha.png", pattern(2, 65536), GREY_ALPHA, 16)
    png("rgb16.png", pattern(3, 65536), RGB, 16)
    png("rgba16.png", pattern(4, 65536), RGBA, 16)
    png("interlaced.png", pattern(3), RGB, 8, interlaced=True)
    png("one_pixel.png", np.full((1, 1, 4), 128), RGBA, 8)


def write_jpegs() -> None:
    rgb = Image.fromarray(pattern(3).astype(np.uint8))
    for name, subsampling in (("444", 0), ("422", 1), ("420", 2)):
        rgb.save(OUT / f"{name}.jpg", quality=88, subsampling=subsampling)
    rgb.save(OUT / "progressive.jpg", quality=60, progressive=True)
    rgb.convert("L").save(OUT / "grey.jpg", quality=90)
    Image.fromarray(pattern(4).astype(np.uint8), "CMYK").save(OUT / "cmyk.jpg", quality=90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by a quarter to show it: nobody does
    rgb.save(OUT / "rotated.jpg", quality=80, exif=exif)


def write_webps() -> None:
    rgb = Image.fromarray(pattern(3).astype(np.uint8))
    rgba = Image.fromarray(pattern(4).astype(np.uint8), "RGBA")
    rgb.save(OUT / "lossy.webp", quality=70)
    rgb.save(OUT / "lossless.webp", lossless=True)
    rgba.save(OUT / "lossy_alpha.webp", quality=70)
    rgba.save(OUT / "lossless_alpha.webp", lossless=True)
    rgb.save(OUT / "animated.webp", save_all=True, append_images=[rgb.rotate(180)], duration=100)


def official_pixels(path: Path) -> np.ndarray:
    """Pixels as the official code gets them."""
    picture: Image.Image = Image.open(path)
    if picture.mode == "P":
        picture = picture.convert("RGBA")
    if picture.mode == "RGBA":
        white = Image.new("RGB", picture.size, (255, 255, 255))
        white.paste(picture, mask=picture.getchannel("A"))
        return np.asarray(white)
    return np.asarray(picture.convert("RGB"))


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    write_pngs()
    write_jpegs()
    write_webps()
    with (OUT / "pillow.txt").open("w") as file:
        for path in sorted(OUT.iterdir()):
            if path.suffix != ".txt":
                pixels = official_pixels(path)
                digest = hashlib.sha256(pixels.tobytes()).hexdigest()
                file.write(f"{path.name} {pixels.shape[1]} {pixels.shape[0]} {digest}\n")


if __name__ == "__main__":
    main()
