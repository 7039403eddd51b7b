"""A VIDEO or a batch of frames as what the model sees of it: the daemon says which frames, and how large.

A video file is decoded frame by frame, and only the frames that are taken are kept: ten seconds of 1080p are 7 GB as
ComfyUI's floats. Other videos (a trimmed one, one made from components) give their frames as ComfyUI has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import av
import numpy as np
import torch
from PIL import Image

from ..protocol.python.lanced_client import Sampling
from .tensors import source_of


class Sampler(Protocol):
    """Asks the daemon which of a clip's frames a task looks at, and how large to send them."""

    def __call__(self, frames: int, fps: float, height: int | None = None, width: int | None = None) -> Sampling: ...


@dataclass(frozen=True)
class Clip:
    """What is sent to the daemon, and what the source was."""

    pixels: np.ndarray[Any, Any]  # u8 [frames, height, width, 3]
    fps: float
    source_seconds: float
    max_seconds: float  # of a longer source the model sees no more frames


def clip_of(video: Any, fps: float, sample: Sampler) -> Clip:
    """The frames of a VIDEO, or of an IMAGE with `fps`, that `sample` says. ValueError says what is wrong with the
    video."""
    if isinstance(video, torch.Tensor):
        count, height, width = video.shape[:3]
        if count < 1:
            raise ValueError("the video has no frames")
        sampling = sample(count, fps, height, width)
        frames = source_of("video", video[list(sampling.indices)])
        pixels = np.stack([_resized(frame, (sampling.height, sampling.width)) for frame in frames])
        return Clip(pixels, sampling.fps, count / fps, sampling.max_seconds)
    file = _whole_file(video)
    if file is not None:
        return _clip_of_file(file, sample)
    components = video.get_components()
    return clip_of(components.images, float(components.frame_rate), sample)


def audio_of(video: Any) -> dict[str, Any] | None:
    """The AUDIO of a VIDEO: waveform f32 [1, channels, samples] and its rate. None: it has none, or is an IMAGE."""
    if isinstance(video, torch.Tensor):
        return None
    file = _whole_file(video)
    if file is None:
        audio: dict[str, Any] | None = video.get_components().audio
        return audio
    with av.open(file) as container:
        stream = next((one for one in container.streams.audio if one.codec_context is not None), None)
        if stream is None:
            return None
        rate = int(stream.codec_context.sample_rate)
        resampler = av.AudioResampler(format="fltp", layout=stream.codec_context.layout.name)
        pieces = [
            np.array(piece.to_ndarray())
            for frame in container.decode(stream)
            for piece in resampler.resample(frame)
        ]
    if not pieces:
        return None
    return {"waveform": torch.from_numpy(np.concatenate(pieces, axis=1))[None], "sample_rate": rate}


def _whole_file(video: Any) -> Any:
    """The file that a VIDEO is, a path or an open one; None where it is not the whole of a file."""
    trimmed = any(getattr(video, "get_active_trim_window", tuple)())
    if trimmed or type(video).__name__ != "VideoFromFile":
        return None
    return video.get_stream_source()


def _clip_of_file(file: Any, sample: Sampler) -> Clip:
    count, fps = _count_frames(file)
    pixels = _sampled_pixels(file, count, fps, sample)
    if isinstance(pixels, int):  # some files have packets that are no frames: a count that was wrong is put right once
        count = pixels
        pixels = _sampled_pixels(file, count, fps, sample)
    if isinstance(pixels, int):
        raise ValueError(f"the video had {count} frames, then {pixels}: does something still write it?")
    sampling = sample(count, fps)
    return Clip(pixels, sampling.fps, count / fps, sampling.max_seconds)


def _open(file: Any) -> Any:
    if hasattr(file, "seek"):
        file.seek(0)
    return av.open(file)


def _count_frames(file: Any) -> tuple[int, float]:
    """How many frames the file says it has, and how many a second."""
    with _open(file) as container:
        if not container.streams.video:
            raise ValueError("the video has no pictures in it")
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.base_rate
        if not rate:
            raise ValueError("the video does not say how many frames a second it has")
        count = sum(1 for packet in container.demux(stream) if packet.size and not packet.is_discard)
    return count, float(rate)


def _sampled_pixels(file: Any, count: int, fps: float, sample: Sampler) -> np.ndarray[Any, Any] | int:
    """The frames that are taken of `count`, u8; or, when there are not so many, how many there are."""
    if count < 1:
        raise ValueError("the video has no frames")
    wanted = sample(count, fps).indices
    places = iter(wanted)
    following = next(places, None)
    pixels: np.ndarray[Any, Any] | None = None
    kept = index = 0
    size = (0, 0)
    with _open(file) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for index, frame in enumerate(container.decode(stream), start=1):
            if index - 1 != following:
                continue
            picture = _rgb_of(frame)
            if pixels is None:
                sampling = sample(count, fps, *picture.shape[:2])
                size = (sampling.height, sampling.width)
                pixels = np.empty((len(wanted), *size, 3), np.uint8)
            pixels[kept] = _resized(picture, size)
            kept += 1
            following = next(places, None)
    return pixels if pixels is not None and index == count else index


def _rgb_of(frame: Any) -> np.ndarray[Any, Any]:
    """A decoded frame, turned as the file says it is to be shown."""
    picture = frame.to_ndarray(format="rgb24")
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.rot90(picture, turns) if turns else picture


def _resized(picture: np.ndarray[Any, Any], size: tuple[int, int]) -> np.ndarray[Any, Any]:
    height, width = size
    if picture.shape[:2] == size:
        return picture
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize((width, height), Image.Resampling.BICUBIC))
