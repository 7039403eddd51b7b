"""The codec: what it writes any safetensors reader opens, and what is damaged it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from lanced_client.errors import BadAnswer, BadRequest
from lanced_client.wire import Tensors, decode, encode, encode_parts


def test_a_message_comes_back_as_it_was() -> None:
    tensors: Tensors = {
        "pixels": np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3),
        "latents": np.linspace(-1, 1, 7, dtype=np.float32),
        "token_ids": np.array([1, -2], dtype=np.int32),
        "empty": np.zeros((0, 3), dtype=np.uint8),
    }
    envelope = {"protocol": 2, "text": 'ein Fuchs im Schnee 🦊 雪 "quoted"\n'}
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
    message = encode({"protocol": 2}, {"x": np.ones(4, dtype=np.float32)})
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


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (3, "data_offsets are not two whole numbers"),
        ({"dtype": "U8", "shape": [2]}, "data_offsets are not two whole numbers"),
        ({"dtype": "U8", "shape": [2], "data_offsets": [0, True]}, "data_offsets are not two whole numbers"),
        ({"dtype": "U8", "shape": [2], "data_offsets": [0.0, 2]}, "data_offsets are not two whole numbers"),
        ({"dtype": ["U8"], "shape": [2], "data_offsets": [0, 2]}, "has no numpy equivalent"),
        ({"dtype": "U8", "shape": "2", "data_offsets": [0, 2]}, "shape is no list of whole numbers"),
        ({"dtype": "U8", "shape": [-2], "data_offsets": [0, 2]}, "shape is no list of whole numbers"),
        ({"dtype": "U8", "shape": [2**70], "data_offsets": [0, 2]}, "not where its shape"),
        ({"dtype": "U8", "shape": [2**40, 2**40, 0], "data_offsets": [0, 2]}, "not where its shape"),
        ({"dtype": "U8", "shape": [2**40, 2**40, 0], "data_offsets": [0, 0]}, "shape is nothing for numpy"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0, 2]}, "not where its shape"),
        ({"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}, "not where its shape"),
        ({"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}, "not where its shape"),
        ({"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "1 bytes that belong to no tensor"),
    ],
)
def test_a_tensor_that_lies_about_its_data_is_refused(entry: object, words: str) -> None:
    text = json.dumps({"__metadata__": {"lance": "{}"}, "x": entry}).encode()
    with pytest.raises(BadAnswer, match=words):
        decode(len(text).to_bytes(8, "little") + text + b"\0\0")


def test_what_is_written_the_safetensors_library_reads() -> None:
    tensors: Tensors = {"source": np.arange(9, dtype=np.uint8).reshape(3, 1, 3), "latents": np.ones((1, 2), ">f4")}
    read = safetensors.numpy.load(encode({"protocol": 2}, tensors))
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(read[name], tensor)


def test_numbers_that_cannot_travel_are_named() -> None:
    with pytest.raises(BadRequest, match=r"x: numbers of type complex128"):
        encode({}, {"x": np.ones(1, np.complex128)})


def test_large_tensors_are_not_copied() -> None:
    array = np.zeros(1000, np.float32)
    assert np.shares_memory(np.frombuffer(encode_parts({}, {"x": array})[1], np.float32), array)
    message = bytearray(encode({}, {"x": array}))
    assert np.shares_memory(decode(message)[1]["x"], np.frombuffer(message, np.uint8))
