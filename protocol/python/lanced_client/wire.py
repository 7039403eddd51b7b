"""The message format: one safetensors buffer whose __metadata__["lance"] is the JSON envelope.

Written and read here rather than by the safetensors package, which copies every tensor twice on the way out and once
on the way in: a message is written as its header and the arrays' own memory, and read as views of what was received.
The layout is checked in one place, `_view`; protocol/vectors/ holds messages, good and bad, that this is tested with.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .errors import BadAnswer, BadRequest

_DTYPES = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "I16": np.int16,
    "U16": np.uint16,
    "I32": np.int32,
    "U32": np.uint32,
    "I64": np.int64,
    "U64": np.uint64,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_ALIGNMENT = 8

Tensors = dict[str, np.ndarray[Any, Any]]
Buffer = bytes | bytearray | memoryview


def _plain_number(value: object) -> Any:
    """A number of numpy's as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no number, text, list or dictionary")


def dtype_name(name: str, array: np.ndarray[Any, Any]) -> str:
    """What the format calls the array's numbers; `name` is the tensor's, for the message of BadRequest."""
    dtype = _NAMES.get(array.dtype.newbyteorder("="))
    if dtype is None:
        raise BadRequest(f"tensor {name}: numbers of type {array.dtype} cannot be sent")
    return dtype


def bytes_of(array: np.ndarray[Any, Any]) -> memoryview:
    """An array as it travels: little-endian, row by row. Its own memory, where that is so."""
    little = np.asarray(array, order="C").astype(array.dtype.newbyteorder("<"), copy=False)
    return little.reshape(-1).view(np.uint8).data


def array_of(name: str, dtype: str, shape: list[int], data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array of bytes that travelled, u8 [n], of which it is a view. BadAnswer when they are not its."""
    kind = _DTYPES.get(dtype)
    if kind is None:
        raise BadAnswer(f"tensor {name}: dtype {dtype} has no numpy equivalent")
    if math.prod(shape) * np.dtype(kind).itemsize != len(data):
        raise BadAnswer(f"tensor {name}: {len(data)} bytes are not its shape")
    whole: np.ndarray[Any, Any] = data.view(np.dtype(kind).newbyteorder("<")).reshape(shape)
    return whole


def encode_parts(
    envelope: Mapping[str, Any], tensors: Mapping[str, np.ndarray[Any, Any]] | None = None
) -> list[bytes | memoryview]:
    """A message from an envelope and its tensors, in pieces to be sent one after the other; they share the arrays'
    memory. BadRequest when JSON cannot hold the envelope."""
    try:
        text = json.dumps(envelope, ensure_ascii=False, allow_nan=False, default=_plain_number)
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRequest(f"the request's text is not valid Unicode: {error.reason}") from error
    except (TypeError, ValueError) as error:
        raise BadRequest(f"the request cannot be written as JSON: {error}") from error
    header: dict[str, Any] = {"__metadata__": {"lance": text}}
    pieces: list[bytes | memoryview] = []
    end = 0
    arrays = {name: np.asarray(array, order="C") for name, array in (tensors or {}).items()}
    # Wide numbers first, so that every tensor begins at a multiple of its width.
    for name, array in sorted(arrays.items(), key=lambda item: -item[1].itemsize):
        header[name] = {
            "dtype": dtype_name(name, array),
            "shape": list(array.shape),
            "data_offsets": [end, end + array.nbytes],
        }
        end += array.nbytes
        if array.nbytes > 0:
            pieces.append(bytes_of(array))
    start = json.dumps(header, ensure_ascii=False).encode("utf-8")
    start += b" " * (-len(start) % _ALIGNMENT)
    return [len(start).to_bytes(8, "little") + start, *pieces]


def encode(envelope: Mapping[str, Any], tensors: Mapping[str, np.ndarray[Any, Any]] | None = None) -> bytes:
    """A message in one piece; see encode_parts."""
    return b"".join(encode_parts(envelope, tensors))


def _whole(value: Any) -> bool:
    return type(value) is int and value >= 0


def _view(name: str, entry: Any, data: memoryview, start: int) -> np.ndarray[Any, Any]:
    """The tensor that begins at `start`, where the one before ended, as a view of the message's data."""
    if not isinstance(entry, dict):
        raise BadAnswer(f"tensor {name}: is not described by an object")
    dtype_name, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    dtype = _DTYPES.get(dtype_name) if isinstance(dtype_name, str) else None
    if dtype is None:
        raise BadAnswer(f"tensor {name}: dtype {dtype_name} has no numpy equivalent")
    if not isinstance(shape, list) or not all(map(_whole, shape)):
        raise BadAnswer(f"tensor {name}: its shape is no list of whole numbers")
    count = math.prod(shape)
    end = start + count * np.dtype(dtype).itemsize
    if offsets != [start, end] or end > len(data):
        raise BadAnswer(f"tensor {name}: its data are not where its shape and the other tensors put them")
    try:
        view: np.ndarray[Any, Any] = (
            np.frombuffer(data, dtype, count, start).reshape(shape) if count else np.empty(shape, dtype)
        )
    except ValueError as error:
        raise BadAnswer(f"tensor {name}: its shape is nothing for numpy: {error}") from error
    return view if view.flags.writeable else view.copy()


def decode(message: Buffer) -> tuple[dict[str, Any], Tensors]:
    """The envelope and the tensors of a message; the tensors are views of it where it can be written to, else copies.
    BadAnswer when it is not one."""
    whole = memoryview(message)
    data_start = 8 + int.from_bytes(whole[:8], "little")
    if len(whole) < 8 or data_start > len(whole):
        raise BadAnswer("the message is not a safetensors buffer: it ends within its header")
    try:
        header = json.loads(bytes(whole[8:data_start]))
        metadata = header.pop("__metadata__", None) or {}
        envelope = json.loads(metadata["lance"])
    except KeyError:
        raise BadAnswer("the message has no 'lance' envelope in its metadata") from None
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise BadAnswer(f"the message is not a safetensors buffer: {error}") from error
    if not isinstance(envelope, dict):
        raise BadAnswer("the message's envelope is not a JSON object")
    if not all(isinstance(text, str) for text in metadata.values()):
        raise BadAnswer("the message's metadata are not all text")
    data, tensors, end = whole[data_start:], Tensors(), 0
    for name, entry in sorted(header.items(), key=_start_of):
        tensors[name] = _view(name, entry, data, end)
        end += tensors[name].nbytes
    if end != len(data):
        raise BadAnswer(f"the message has {len(data) - end} bytes that belong to no tensor")
    return envelope, tensors


def _start_of(item: tuple[str, Any]) -> tuple[int, int]:
    """Where a tensor says that its data lie."""
    offsets = item[1].get("data_offsets") if isinstance(item[1], dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_whole, offsets)):
        raise BadAnswer(f"tensor {item[0]}: its data_offsets are not two whole numbers")
    return offsets[0], offsets[1]
