"""What names a job's request and its result: PROTOCOL.md, "The digest of a job". Two jobs of one digest have the same
bytes."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .latent_shape import CELL_PIXELS, FRAMES_PER_LATENT_FRAME
from .parameters import Parameter, parameters

_DTYPES = {"uint8": "U8", "float32": "F32", "int32": "I32"}


def request_hash(task: str, params: Mapping[str, Any], tensors: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """What is asked, of whichever model. params and tensors: those of `submit`."""
    return _hash_of("\n".join(request_lines(task, params, tensors)) + "\n")


def result_digest(request: str, model: str, backend: str, build: str) -> str:
    """What was asked of what. request: request_hash. The others: `model.hash`, `backend` and `build` of `hello`."""
    return _hash_of(
        f"lanced digest 1\nrequest {request}\nmodel {model}\nadapters\nbackend {backend}\nbuild {build}\n"
    )


def request_lines(
    task: str, params: Mapping[str, Any], tensors: Mapping[str, np.ndarray[Any, Any]]
) -> Iterator[str]:
    """The lines that request_hash is over."""
    given = _sizes_of(task, tensors.get("latents")) | dict(params)
    yield "lanced request 1"
    yield f"task {task}"
    for name, parameter in sorted(parameters().items()):
        if task in parameter.tasks and not parameter.is_servers:
            yield f"{name} {_value_of(parameter, given.get(name), task)}"
    for name, array in sorted(tensors.items()):
        shape = ",".join(map(str, array.shape))
        content = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        yield f"tensor {name} {_DTYPES[array.dtype.name]} [{shape}] {content}"


def _sizes_of(task: str, latents: np.ndarray[Any, Any] | None) -> dict[str, Any]:
    """Sizes that are not given are those of the latents."""
    if latents is None:
        return {}
    batch, _, frames, height, width = latents.shape
    sizes = {"batch_size": batch, "num_frames": 1 + FRAMES_PER_LATENT_FRAME * (frames - 1)}
    if task in ("t2i", "t2v"):
        sizes |= {"height": CELL_PIXELS * height, "width": CELL_PIXELS * width}
    return sizes


def _value_of(parameter: Parameter, given: Any, task: str) -> str:
    is_open = parameter.default is None or None in parameter.defaults.values()
    value = parameter.default_for(task) if given is None or (is_open and given == 0) else given
    if value is None:
        return "-"
    if parameter.kind == "text":
        return f"{len(value.encode())}:{value}"
    if parameter.kind == "flag":
        return "true" if value else "false"
    if parameter.kind == "number":
        return _bits_of(value)
    if parameter.kind == "list":
        return ",".join(map(_bits_of, value))
    return str(value) if parameter.kind == "choice" else str(int(value))


def _bits_of(number: float) -> str:
    return struct.pack(">d", float(number) + 0.0).hex()  # one zero only


def _hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
