"""Payloads in pieces: what is put is what the job gets, what is got is what the job made, byte for byte."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from lanced_client.transfer import INLINE_BYTES
from lanced_client.transport import SocketPeer
from lanced_client.wire import decode, encode
from lanced_process import ANSWER_SECONDS, Lanced

SIDE = 400  # pixels; 3 pieces of pixels, 1 of latents
LATENTS = np.random.default_rng(1).standard_normal((2, 48, 1, SIDE // 16, SIDE // 16), np.float32)


class Asking:
    """Requests one by one."""

    def __init__(self, endpoint: str) -> None:
        self.peer = SocketPeer(endpoint)

    def answer(self, request: str, payload: dict[str, Any] | None = None, **fields: Any) -> tuple[dict[str, Any], Any]:
        message = encode({"protocol": 2, "request": request, **fields}, payload)
        return decode(self.peer.request([message], ANSWER_SECONDS))

    def get(self, request: str, payload: dict[str, Any] | None = None, **fields: Any) -> tuple[dict[str, Any], Any]:
        envelope, answered = self.answer(request, payload, **fields)
        assert envelope["ok"], envelope
        return envelope, answered

    def end_of(self, job: str) -> str:
        after, name = 0, ""
        while name not in ("done", "failed", "cancelled"):
            events = self.get("wait", job=job, after=after, timeout_ms=60000)[0]["events"]
            for event in events:
                after, name = event["sequence"], event["event"]
        return name

    def put(self, data: bytes, name: str = "") -> str:
        piece_bytes = self.get("hello")[0]["limits"]["piece_bytes"]
        name = name or hashlib.sha256(data).hexdigest()
        state, _ = self.get("put", blob=name, bytes=len(data))
        while not state["complete"]:
            offset = state["missing"][-1][0]
            piece = np.frombuffer(data, np.uint8)[offset : offset + piece_bytes]
            state, _ = self.get("put", {"piece": piece}, blob=name, bytes=len(data), offset=offset)
        return name

    def pull(self, job: str) -> dict[str, Any]:
        envelope, inline = self.get("result", job=job)
        tensors = dict(inline)
        for name, tensor in envelope["tensors"].items():
            data = b""
            while name not in inline and len(data) < tensor["bytes"]:
                data += self.get("get", job=job, tensor=name, offset=len(data))[1]["piece"].tobytes()
            if name not in inline:
                tensors[name] = np.frombuffer(data, np.uint8 if tensor["dtype"] == "U8" else np.float32).reshape(
                    tensor["shape"]
                )
        return tensors


@pytest.fixture
def asking(lanced: Lanced) -> Iterator[Asking]:
    asking = Asking(lanced.endpoint)
    yield asking
    asking.peer.close()


def decode_job(job: str) -> dict[str, Any]:
    return {"job": job, "task": "decode", "params": {}}


def named(blob: str, tensor: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {"latents": {"blob": blob, "dtype": "F32", "shape": list(tensor.shape)}}


def test_a_job_of_pieces_gives_the_bytes_of_one_in_two_messages(asking: Asking) -> None:
    assert LATENTS.nbytes > INLINE_BYTES  # which clients send so; a message has room for more
    asking.get("submit", {"latents": LATENTS}, **decode_job("whole"))
    assert asking.end_of("whole") == "done"
    whole = asking.pull("whole")

    blob = asking.put(LATENTS.tobytes())
    asking.get("submit", **decode_job("pieces"), tensors=named(blob, LATENTS))
    assert asking.end_of("pieces") == "done"
    pieces = asking.pull("pieces")
    assert pieces.keys() == whole.keys()
    for name, tensor in whole.items():
        np.testing.assert_array_equal(pieces[name], tensor)
    for job in ("whole", "pieces"):
        asking.get("release", job=job)


def test_a_job_is_the_same_whatever_its_blob_is_called(asking: Asking) -> None:
    asked = set()
    for job, name in (("hash", ""), ("chosen", "put-latents.1")):
        asking.get("submit", **decode_job(job), tensors=named(asking.put(LATENTS.tobytes(), name), LATENTS))
        assert asking.end_of(job) == "done"
        asked.add(asking.get("result", job=job)[0]["receipt"]["request"])
        asking.get("release", job=job)
    assert len(asked) == 1


@pytest.mark.parametrize("is_local", [True, False])
def test_what_the_daemon_has_is_put_again_only_where_that_is_as_quick_as_its_hash(is_local: bool) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with Lanced(endpoint=None if is_local else f"tcp://127.0.0.1:{port}") as daemon, daemon.client() as client:
        puts = []
        for _ in range(2):
            client.encode(np.zeros((700, 700, 3), np.uint8), width=64, height=64)
            puts.append(client.stats()["requests"]["put"])
    first = 3  # the question, and the pieces
    assert puts == [first, 2 * first if is_local else first]
