#!/usr/bin/env python3
"""Writes tests/golden/data/video_colours.safetensors.gz: a clip of every pixel format that libav can write, of even and
odd size, and the first frame that the official code's reader, decord 0.6.0, gets from each; where decord cannot read
a clip, the frame of ffmpeg 5.1 (Debian 12) with decord's settings.

tests/unit/test_video_colours.c reads the clips and compares. Every encoder of ffmpeg is tried with every pixel format
it takes; of the clips with equal format, range, matrix and parity the smallest is kept, or with --all FILE every one:

    pip install decord==0.6.0 numpy safetensors    # and ffmpeg with ffprobe
    python tests/golden/make_video_colours.py
    python tests/golden/make_video_colours.py --all /tmp/all.safetensors
    LANCED_VIDEO_COLOURS=/tmp/all.safetensors build/tests/unit/test_video_colours
"""
from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save

OUT = Path(__file__).parent / "data/video_colours.safetensors.gz"
# The first size that an encoder takes is used; many take few.
SIZES = {"even": [(40, 10), (64, 64), (128, 96), (176, 144), (256, 128), (720, 576)], "odd": [(39, 9), (67, 65)]}
CONTAINERS = ("mkv", "mov", "avi")
OPTIONS = {
    "libx264": ["-qp", "0"],
    "libx265": ["-x265-params", "lossless=1:log-level=0"],
    "libvpx-vp9": ["-lossless", "1"],
    "libaom-av1": ["-crf", "0", "-cpu-used", "8"],
    "libsvtav1": ["-crf", "5"],
}
DNXHR = {"yuv422p": "dnxhr_hq", "yuv422p10le": "dnxhr_hqx", "yuv444p10le": "dnxhr_444", "gbrp10le": "dnxhr_444"}
TAGGED = ("yuv420p", "yuv444p10le", "gray10le", "gbrp")  # these with every range and matrix that a file can name
MATRICES = ("bt709", "smpte170m", "bt2020nc", "fcc", "smpte240m", "bt470bg", "rgb", "ycgco")
LOSSLESS = ("ffv1", "rawvideo", "ffvhuff", "png", "qtrle", "utvideo", "libvpx-vp9", "libx264", "libx264rgb", "libx265")
# The libav of 2018 in decord decodes these otherwise than today's: JPEG 2000 with halved chroma of odd size has rubbish
# at its edges, black and white are exchanged in others, DNxHR in RGB counts as BT.709. What follows is the same.
DECODED_OTHERWISE = (("jpeg2000", "odd"), ("jpeg2000", "yuv410p"), ("libopenjpeg", "odd"), ("bmp", "monob"),
                     ("qtrle", "gray"), ("dnxhd", "gbrp10le"), ("cfhd", "yuv422p10le"))
MOST_BYTES = 20000  # of a clip that is kept


class Wish(NamedTuple):
    encoder: str
    pixels: str
    parity: str
    tags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return "-".join((self.encoder, self.pixels, self.parity, *self.tags[1::2]))


class Clip(NamedTuple):
    wish: Wish
    path: Path
    decoded: tuple[str, str, str, str]  # format, range and matrix as ffprobe says, and the parity


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def wishes() -> list[Wish]:
    lines = output("ffmpeg", "-hide_banner", "-pix_fmts").partition("-----\n")[2].splitlines()
    every_format = [line.split()[1] for line in lines if "H" not in line[:5]]
    listed: list[Wish] = []
    for line in output("ffmpeg", "-hide_banner", "-encoders").splitlines():
        found = re.match(r" V[.FSXBD]{5} (\w\S*)", line)
        if not found or re.search("nvenc|qsv|vaapi|v4l2|omx|wrapped|a64|xface|xbm", encoder := found[1]):
            continue
        takes = re.search("Supported pixel formats: (.*)", output("ffmpeg", "-hide_banner", "-h", f"encoder={encoder}"))
        for pixels in takes[1].split() if takes else every_format:
            listed += [Wish(encoder, pixels, parity) for parity in SIZES]
    for pixels in TAGGED:
        for colour_range in ("tv", "pc"):
            tags = [("-color_range", colour_range, "-colorspace", matrix) for matrix in MATRICES]
            listed += [Wish("ffv1", pixels, "even", tag) for tag in tags]
    return listed


def frame(height: int, width: int) -> np.ndarray[Any, Any]:
    """RGB of 16 bits: gradients, sharp edges between colours, and noise in one corner."""
    y, x = np.mgrid[:height, :width]
    planes = [(9 * x + 3 * y) * 257, (x // 3 + y // 5) % 2 * 50000 + y * 400, (x * x + y * y) * 70]
    pixels = np.stack(planes, -1) % 65536
    noise = np.random.default_rng(1).integers(0, 65536, pixels.shape)
    pixels[height // 2 :, width * 3 // 4 :] = noise[height // 2 :, width * 3 // 4 :]
    return pixels.astype("<u2")


def make(wish: Wish, folder: Path) -> Clip | None:
    """Two equal frames: decord does not take every file of one."""
    options = ["-profile:v", DNXHR[wish.pixels]] if wish.encoder == "dnxhd" else OPTIONS.get(wish.encoder, [])
    for width, height in SIZES[wish.parity]:
        for container in CONTAINERS:
            path = folder / f"{wish.name}.{container}"
            source = ["-f", "rawvideo", "-pix_fmt", "rgb48le", "-s", f"{width}x{height}", "-r", "12", "-i", "-"]
            encoding = ["-c:v", wish.encoder, "-pix_fmt", wish.pixels, *options, *wish.tags]
            others = ["-strict", "-2", "-threads", "1", "-fflags", "+bitexact"]
            command = ["ffmpeg", "-v", "error", "-y", *source, *encoding, *others, str(path)]
            done = subprocess.run(command, input=frame(height, width).tobytes() * 2, capture_output=True, check=False)
            if done.returncode == 0:
                described = output("ffprobe", "-v", "quiet", "-of", "json", "-show_streams", str(path))
                try:
                    stream = json.loads(described)["streams"][0]
                except (ValueError, KeyError, IndexError):
                    stream = {}
                if stream.get("pix_fmt", "unknown") != "unknown":
                    tags = (stream.get("color_range", "-"), stream.get("color_space", "-"))
                    return Clip(wish, path, (stream["pix_fmt"], *tags, wish.parity))
            path.unlink(missing_ok=True)
    return None


DECORD = """
import sys, numpy, decord
reader = decord.VideoReader(sys.argv[1], ctx=decord.cpu(0), num_threads=1)
numpy.save(sys.argv[2], reader[0].asnumpy())
"""


def official_frame(clip: Clip) -> tuple[str, np.ndarray[Any, Any]] | None:
    """Who read it, and the pixels [height, width, 3]. decord in a process of its own, as it may die of a file."""
    saved = clip.path.with_suffix(".npy")
    if clip.wish[:2] not in DECODED_OTHERWISE and (clip.wish.encoder, clip.wish.parity) not in DECODED_OTHERWISE:
        command = [sys.executable, "-c", DECORD, str(clip.path), str(saved)]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(command, capture_output=True, check=False, timeout=60)
        if saved.exists():
            return "decord", np.load(saved)
    width, height = map(int, output("ffprobe", "-v", "quiet", "-of", "csv=p=0", "-show_entries", "stream=width,height",
                                    str(clip.path)).strip().strip(",").split(",")[:2])
    command = ["ffmpeg", "-v", "error", "-i", str(clip.path), "-vf", "scale=flags=bilinear", "-frames:v", "1",
               "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=False)
    if len(done.stdout) != 3 * width * height:
        return None
    return "ffmpeg", np.frombuffer(done.stdout, np.uint8).reshape(height, width, 3)


def is_worth_keeping(decoded: tuple[str, ...], size: int) -> bool:
    """Odd sizes matter to formats with fewer samples of chroma than of brightness."""
    return size <= MOST_BYTES and (decoded[3] == "even" or bool(re.search(r"4[12]\d|440|nv|p01|yuyv|yvyu", decoded[0])))


def smallest(clips: list[Clip]) -> list[Clip]:
    kept: dict[tuple[str, str, str, str], Clip] = {}
    for clip in sorted(clips, key=lambda clip: (clip.wish.encoder not in LOSSLESS, clip.path.stat().st_size)):
        if is_worth_keeping(clip.decoded, clip.path.stat().st_size):
            kept.setdefault(clip.decoded, clip)
    return list(kept.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", type=Path, metavar="FILE", help="write every clip into another file")
    wanted = parser.parse_args().all
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        clips = [clip for clip in pool.map(lambda wish: make(wish, Path(folder)), wishes()) if clip]
        frames = pool.map(official_frame, clips)
        readable = {clip: found for clip, found in zip(clips, frames, strict=True) if found}
        tensors: dict[str, np.ndarray[Any, Any]] = {}
        readers: dict[str, str] = {}
        for clip in readable if wanted else smallest(list(readable)):
            reader, pixels = readable[clip]
            tensors[f"{clip.path.name}:clip"] = np.frombuffer(clip.path.read_bytes(), np.uint8)
            tensors[f"{clip.path.name}:frame"] = np.ascontiguousarray(pixels)
            readers[clip.path.name] = f"{reader} {' '.join(clip.decoded)}"
        written = save(tensors, metadata=readers)
        if wanted:
            wanted.write_bytes(written)
        else:
            OUT.write_bytes(gzip.compress(written, mtime=0))
    print(f"{len(clips)} clips were made, {len(readable)} can be read, {len(readers)} are written")


if __name__ == "__main__":
    main()
