"""The messages of protocol/vectors, which the C side reads too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lanced_client.errors import BadAnswer
from lanced_client.wire import decode, encode

VECTORS = sorted((Path(__file__).resolve().parents[2] / "protocol/vectors").glob("*.safetensors"))
DTYPES = {"U8": "uint8", "I32": "int32", "F32": "float32"}


def expected_of(vector: Path) -> dict[str, Any]:
    expected: dict[str, Any] = json.loads(vector.with_suffix(".json").read_text(encoding="utf-8"))
    return expected


def named(vectors: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", vectors, ids=[vector.stem for vector in vectors])


@named([vector for vector in VECTORS if expected_of(vector)["good"]])
def test_a_good_message_is_understood(vector: Path) -> None:
    expected = expected_of(vector)
    envelope, tensors = decode(vector.read_bytes())
    assert envelope == expected["envelope"]
    assert tensors.keys() == expected["tensors"].keys()
    for name, tensor in expected["tensors"].items():
        assert tensors[name].dtype == DTYPES[tensor["dtype"]]
        assert list(tensors[name].shape) == tensor["shape"]
        assert tensors[name].tobytes().hex() == tensor["hex"]
    assert decode(encode(envelope, tensors))[0] == envelope


@named([v for v in VECTORS if not expected_of(v)["good"] and not expected_of(v)["strict"]])
def test_a_bad_message_is_refused(vector: Path) -> None:
    with pytest.raises(BadAnswer):
        decode(vector.read_bytes())


def test_there_are_vectors() -> None:
    assert len(VECTORS) >= 30
