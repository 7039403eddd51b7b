#!/usr/bin/env python3
"""Writes tests/golden/data/media: small pictures of every kind that Pillow reads differently, and pillow.txt with the
size and the SHA-256 of the RGB pixels that the official code gets from each through Pillow (its 11.0 for all but AVIF,
which came later: pillow.txt here is of 13.0, and 11.0 gives the same for the others); upright.txt has the same of
photos that Pillow has turned, and moving.txt of all the pictures of animations.

tests/unit/test_media.c reads the same files and compares.

    pip install pillow pillow-heif numpy
    python tests/golden/make_media.py
"""
import hashlib
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif  # type: ignore[import-not-found]
from PIL import Image, ImageOps, ImageSequence

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


def bmp(name: str, bits: int, rows: bytes, *, masks: tuple[int, ...] = (), palette: bytes = b"", compression: int = 0,
        top_down: bool = False, width: int = WIDTH) -> None:
    """A BMP of kinds that Pillow does not write. Four masks make it a version 5 header."""
    size = 124 if len(masks) == 4 else 40
    height = -HEIGHT if top_down else HEIGHT
    fields = (size, width, height, 1, bits, compression, len(rows), 2835, 2835, len(palette) // 4, 0)
    head = struct.pack("<IiiHHIIiiII", *fields) + struct.pack(f"<{len(masks)}I", *masks)
    if size == 124:
        head += struct.pack("<I", 0x73524742) + bytes(124 - len(head) - 4)
    start = 14 + len(head) + len(palette)
    body = head + palette + rows
    (OUT / name).write_bytes(b"BM" + struct.pack("<IHHI", 14 + len(body), 0, 0, start) + body)


def padded_rows(rows: np.ndarray) -> bytes:
    """Rows from the bottom up, each filled up to a multiple of four bytes."""
    filled = [row.tobytes() + bytes(-len(row.tobytes()) % 4) for row in rows[::-1]]
    return b"".join(filled)


def write_bmps() -> None:
    rgb = Image.fromarray(pattern(3).astype(np.uint8))
    rgb.save(OUT / "rgb.bmp")
    rgb.quantize(200).save(OUT / "palette8.bmp")
    rgb.convert("L").save(OUT / "grey.bmp")
    rgb.convert("1").save(OUT / "one_bit.bmp")
    values = pattern(3)
    b, g, r = (values[..., c] for c in (2, 1, 0))
    bmp("rgb555.bmp", 16, padded_rows(((r >> 3) << 10 | (g >> 3) << 5 | b >> 3).astype("<u2")))
    masks = (0xF800, 0x7E0, 0x1F)
    rows = padded_rows(((r >> 3) << 11 | (g >> 2) << 5 | b >> 3).astype("<u2"))
    bmp("rgb565.bmp", 16, rows, masks=masks, compression=3)
    four = pattern(4).astype(np.uint8)[..., [2, 1, 0, 3]]
    bmp("rgbx.bmp", 32, padded_rows(four))
    bmp("rgba.bmp", 32, padded_rows(four), masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000), compression=3)
    bmp("rgbx_masks.bmp", 32, padded_rows(four), masks=(0xFF0000, 0xFF00, 0xFF), compression=3)
    bmp("top_down.bmp", 24, padded_rows(four[::-1, :, :3]), top_down=True)
    palette = bytes(pattern(4, 256).astype(np.uint8).reshape(-1)[: 4 * 16])
    indices = pattern(1, 16)[..., 0].reshape(-1)[: HEIGHT * 18].reshape(HEIGHT, 9, 2)
    rows = padded_rows((indices[..., 0] << 4 | indices[..., 1]).astype(np.uint8))
    bmp("palette4.bmp", 4, rows, palette=palette, width=18)
    runs = b"".join(bytes([9, y, 4, 15 - y, 0, 3, 1, 2, 3, 0, 3, y, 0, 0]) for y in range(HEIGHT)) + b"\0\1"
    bmp("runs8.bmp", 8, runs, palette=palette, compression=1)


def write_gifs() -> None:
    every = Image.fromarray(np.resize(np.arange(256, dtype=np.uint8), (HEIGHT + 1, WIDTH)))  # so that it stays grey
    rgb = Image.fromarray(pattern(3).astype(np.uint8))
    rgb.save(OUT / "palette.gif")
    rgb.convert("L").save(OUT / "grey.gif")
    every.save(OUT / "grey_transparent.gif", transparency=100, optimize=False)
    rgb.convert("1").save(OUT / "one_bit.gif")
    rgb.quantize(16).save(OUT / "interlaced.gif", interlace=1)
    rgb.quantize(16).save(OUT / "transparent.gif", transparency=3)
    rgb.save(OUT / "animated.gif", save_all=True, append_images=[rgb.rotate(180)], duration=100)
    small = bytearray((OUT / "transparent.gif").read_bytes())
    small[6:10] = struct.pack("<HH", WIDTH + 7, HEIGHT + 4)  # a canvas that the picture does not fill
    (OUT / "small_on_canvas.gif").write_bytes(small)
    opaque = bytearray((OUT / "palette.gif").read_bytes())
    opaque[6:10] = struct.pack("<HH", WIDTH + 7, HEIGHT + 4)
    opaque[11] = 5  # the background
    (OUT / "small_on_background.gif").write_bytes(opaque)


def write_tiffs() -> None:
    rgb = Image.fromarray(pattern(3).astype(np.uint8))
    rgba = Image.fromarray(pattern(4).astype(np.uint8), "RGBA")
    grey = rgb.convert("L")
    rgb.save(OUT / "rgb.tif")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        rgb.save(OUT / f"{compression.removeprefix('tiff_')}.tif", compression=compression)
    rgb.quantize(16).save(OUT / "palette.tif", compression="tiff_lzw")
    grey.save(OUT / "grey.tif", compression="tiff_lzw")
    rgb.convert("1").save(OUT / "one_bit.tif")
    rgb.convert("1").save(OUT / "fax4.tif", compression="group4")
    rgba.save(OUT / "rgba.tif", compression="tiff_lzw")
    Image.fromarray(pattern(2).astype(np.uint8), "LA").save(OUT / "grey_alpha.tif")
    Image.fromarray(pattern(4).astype(np.uint8), "CMYK").save(OUT / "cmyk.tif", compression="tiff_lzw")
    Image.fromarray(pattern(1, 600)[..., 0].astype(np.uint16)).save(OUT / "grey16.tif")
    grey.save(OUT / "white_is_zero.tif", tiffinfo={262: 0})
    rgb.save(OUT / "pages.tif", save_all=True, append_images=[rgba])
    for orientation in range(2, 9):
        rgb.save(OUT / f"turned{orientation}.tif", tiffinfo={274: orientation})


def write_avifs() -> None:
    """By a newer Pillow than the official code's, which has no AVIF."""
    rgb = Image.fromarray(pattern(3).astype(np.uint8))
    for name, subsampling in (("420", "4:2:0"), ("422", "4:2:2"), ("444", "4:4:4"), ("grey", "4:0:0")):
        rgb.save(OUT / f"{name}.avif", quality=80, subsampling=subsampling)
    rgb.save(OUT / "limited.avif", quality=80, range="limited")
    Image.fromarray(pattern(4).astype(np.uint8), "RGBA").save(OUT / "alpha.avif", quality=80)
    rgb.save(OUT / "animated.avif", quality=60, save_all=True, append_images=[rgb.rotate(180)], duration=100)


def write_heics() -> None:
    """Each with a PNG of the pixels that pillow-heif gives, whose newer libheif rounds otherwise."""
    pillow_heif.register_heif_opener()
    rgb = Image.fromarray(pattern(3).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb.save(OUT / "heic_420.heic", quality=90)
    rgb.save(OUT / "heic_444.heic", quality=90, chroma=444)
    rgb.save(OUT / "heic_turned.heic", quality=90, exif=exif)
    Image.fromarray(pattern(4).astype(np.uint8), "RGBA").save(OUT / "heic_alpha.heic", quality=90)
    for path in OUT.glob("heic_*.heic"):
        Image.fromarray(official_pixels(path)).save(path.with_suffix(".png"))


def write_turned() -> None:
    """Photos with every orientation that EXIF knows, which nobody applies, in every format that notes one."""
    rgb = Image.fromarray(pattern(3).astype(np.uint8))
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        rgb.save(OUT / f"turned{orientation}.jpg", quality=80, exif=exif)
        rgb.save(OUT / f"turned{orientation}.png", exif=exif)
        rgb.save(OUT / f"turned{orientation}.webp", lossless=True, exif=exif)
        rgb.save(OUT / f"turned{orientation}.avif", quality=50, exif=exif)


MOVING_MS = [80, 40, 120, 80, 80]


def write_animations() -> None:
    """Five pictures each, 12.5 a second on average."""
    grid = [pattern(4)[np.roll(np.arange(HEIGHT), 2 * i)].astype(np.uint8) for i in range(len(MOVING_MS))]
    rgb = [Image.fromarray(np.ascontiguousarray(pixels[..., :3])) for pixels in grid]
    rgba = [Image.fromarray(pixels, "RGBA") for pixels in grid]
    few = [picture.quantize(16) for picture in rgb]
    for name, pictures in (("moving.webp", rgb), ("moving_alpha.webp", rgba), ("moving.png", rgb), ("moving.gif", few)):
        kind: dict[str, Any] = {"lossless": True} if name.endswith("webp") else {}
        pictures[0].save(OUT / name, save_all=True, append_images=pictures[1:], duration=MOVING_MS, loop=0, **kind)


def official_frames(path: Path) -> np.ndarray:
    """All pictures of an animation, each as the official code would get it."""
    frames = []
    with Image.open(path) as animation:
        for picture in ImageSequence.Iterator(animation):
            white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
            frames.append(np.asarray(Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")))
    return np.stack(frames)


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


def digest(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]} {pixels.shape[0]} {hashlib.sha256(pixels.tobytes()).hexdigest()}"


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    write_pngs()
    write_jpegs()
    write_webps()
    write_bmps()
    write_gifs()
    write_tiffs()
    write_avifs()
    write_heics()
    write_turned()
    write_animations()
    paths = [path for path in sorted(OUT.iterdir()) if path.suffix not in (".txt", ".heic")]
    (OUT / "pillow.txt").write_text("".join(f"{path.name} {digest(official_pixels(path))}\n" for path in paths))
    lines = []
    for path in paths:
        if path.stem.startswith("turned"):
            with Image.open(path) as picture:
                lines.append(f"{path.name} {digest(np.asarray(ImageOps.exif_transpose(picture).convert('RGB')))}\n")
    (OUT / "upright.txt").write_text("".join(lines))
    moving = {path.name: official_frames(path) for path in paths if path.stem.startswith("moving")}
    digests = {name: (len(frames), hashlib.sha256(frames.tobytes()).hexdigest()) for name, frames in moving.items()}
    (OUT / "moving.txt").write_text("".join(f"{name} {n} {hashed}\n" for name, (n, hashed) in digests.items()))


if __name__ == "__main__":
    main()
