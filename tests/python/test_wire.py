"""The codec: what it writes any safetensors reader opens, and what is damaged it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from lanced_client.errors import BadAnswer
from lanced_client.wire import Tensors, decode, encode


def test_a_message_comes_back_as_it_was() -> None:
    tensors: Tensors = {
        "pixels": np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3),
        "latents": np.linspace(-1, 1, 7, dtype=np.float32),
        "token_ids": np.array([1, -2], dtype=np.int32),
        "empty": np.zeros((0, 3), dtype=np.uint8),
    }
    envelope = {"protocol": 1, "text": 'ein Fuchs im Schnee 🦊 雪 "quoted"\n'}
    answer, arrays = decode(encode(envelope, tensors))
    assert answer == envelope
    assert arrays.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert arrays[name].dtype == tensor.dtype
        np.testing.assert_array_equal(arrays[name], tensor)


def test_a_part_of_a_larger_array_travels_as_it_looks() -> None:
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)[:, ::2]
    np.testing.assert_array_equal(decode(encode({}, {"p": picture}))[1]["p"], picture)


def test_every_truncation_is_refused() -> None:
    message = encode({"protocol": 1}, {"x": np.ones(4, dtype=np.float32)})
    for length in range(len(message)):
        with pytest.raises(BadAnswer):
            decode(message[:length])


@pytest.mark.parametrize("metadata", [None, {}, {"other": "{}"}])
def test_a_buffer_without_an_envelope_is_refused(metadata: dict[str, str] | None) -> None:
    buffer = safetensors.numpy.save({"x": np.ones(1)}, metadata=metadata)
    with pytest.raises(BadAnswer, match="envelope"):
        decode(buffer)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "nonsense"])
def test_an_envelope_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(BadAnswer):
        decode(safetensors.numpy.save({}, metadata={"lance": text}))


def test_a_dtype_numpy_lacks_is_named() -> None:
    header = {
        "__metadata__": {"lance": "{}"},
        "x": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]},
    }
    text = json.dumps(header).encode()
    with pytest.raises(BadAnswer, match=r"x.*BF16"):
        decode(len(text).to_bytes(8, "little") + text + b"\0\0")
