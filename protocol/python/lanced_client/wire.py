"""The message format: one safetensors buffer whose __metadata__["lance"] is the JSON envelope.

safetensors itself checks the layout (offsets, overlaps, sizes); here its tensors become
numpy arrays and the envelope a dictionary.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from .errors import BadAnswer, BadRequest

PROTOCOL_VERSION = 1

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

Tensors = dict[str, np.ndarray[Any, Any]]


def _plain_number(value: object) -> Any:
    """A number of numpy's as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no number, text, list or dictionary")


def encode(envelope: Mapping[str, Any], tensors: Mapping[str, np.ndarray[Any, Any]] | None = None) -> bytes:
    """A message from an envelope and its tensors. BadRequest when JSON cannot hold the envelope."""
    try:
        text = json.dumps(envelope, ensure_ascii=False, allow_nan=False, default=_plain_number)
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRequest(f"the request's text is not valid Unicode: {error.reason}") from error
    except (TypeError, ValueError) as error:
        raise BadRequest(f"the request cannot be written as JSON: {error}") from error
    # asarray: safetensors writes the memory as it lies, also that of a strided view
    plain = {name: np.asarray(tensor, order="C") for name, tensor in (tensors or {}).items()}
    return bytes(safetensors.numpy.save(plain, metadata={"lance": text}))


def decode(message: bytes) -> tuple[dict[str, Any], Tensors]:
    """The envelope and the tensors of a message. BadAnswer when it is not one."""
    try:
        entries = safetensors.deserialize(message)  # type: ignore[no-untyped-call]
        header_end = 8 + int.from_bytes(message[:8], "little")
        metadata = json.loads(message[8:header_end]).get("__metadata__") or {}
        envelope = json.loads(metadata["lance"])
    except KeyError:
        raise BadAnswer("the message has no 'lance' envelope in its metadata") from None
    except (safetensors.SafetensorError, ValueError) as error:
        raise BadAnswer(f"the message is not a safetensors buffer: {error}") from error
    if not isinstance(envelope, dict):
        raise BadAnswer("the message's envelope is not a JSON object")
    tensors: Tensors = {}
    for name, entry in entries:
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise BadAnswer(f"tensor {name}: dtype {entry['dtype']} has no numpy equivalent")
        tensors[name] = np.frombuffer(entry["data"], dtype=dtype).reshape(entry["shape"])
    return envelope, tensors
