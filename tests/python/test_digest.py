"""Names of requests and results, against the vectors that the daemon's are tested against too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lanced_client.digest import request_hash, request_lines, result_digest

VECTORS = Path(__file__).resolve().parents[2] / "protocol/vectors/digests.json"
DIGESTS: list[dict[str, Any]] = json.loads(VECTORS.read_text())["digests"]
DTYPES: dict[str, np.dtype[Any]] = {"U8": np.dtype("u1"), "F32": np.dtype("<f4")}


def tensors_of(vector: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    tensors = {}
    for name, described in vector["tensors"].items():
        dtype = DTYPES[described["dtype"]]
        content = b"\x3f" * (dtype.itemsize * int(np.prod(described["shape"])))
        tensors[name] = np.frombuffer(content, dtype=dtype).reshape(described["shape"])
    return tensors


@pytest.mark.parametrize("vector", DIGESTS, ids=lambda vector: vector["name"])
def test_requests_and_results_have_the_names_that_are_written_down(vector: dict[str, Any]) -> None:
    tensors = tensors_of(vector)
    assert list(request_lines(vector["task"], vector["params"], tensors)) == vector["lines"]
    request = request_hash(vector["task"], vector["params"], tensors)
    assert request == vector["request"]
    assert result_digest(request, vector["model"], vector["backend"], vector["build"]) == vector["digest"]
