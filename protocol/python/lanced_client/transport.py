"""How one request travels to the daemon and its answer back.

Two peers with one narrow interface. PynngPeer goes through the nng library, where pynng is installed. SocketPeer speaks
nng's wire format (SP, request/reply) over a plain socket, for the places where nothing can be installed, such as a
ComfyUI that only got this repository cloned into it; it copies less (tools/wire_bench.py measures both). The tests run
both.

A peer is used by one thread at a time. Every request of the protocol may be repeated, so a
peer that lost its connection simply connects again at the next request.
"""

from __future__ import annotations

import secrets
import socket
import struct
import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from .errors import AnswerTimeout, ConnectionFailed

try:
    import pynng
except ImportError:
    pynng = None


Parts = Sequence[bytes | memoryview]  # of one message, one after the other


class Peer(Protocol):
    def request(self, message: Parts, timeout: float) -> bytes | memoryview:
        """Send a message and return the answer. ConnectionFailed when nobody is there or the
        connection broke, AnswerTimeout when `timeout` seconds pass first."""

    def close(self) -> None: ...


def open_peer(endpoint: str) -> Peer:
    """A peer for `ipc://PATH` or `tcp://HOST:PORT`: pynng where it is installed. Nothing is connected before the first
    request."""
    return PynngPeer(endpoint) if pynng is not None else SocketPeer(endpoint)


def _unreachable(endpoint: str, reason: object) -> ConnectionFailed:
    return ConnectionFailed(f"no lanced answers at {endpoint}: {reason}")


class PynngPeer:
    """An nng REQ socket; nng reconnects and repeats the request by itself while it waits."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._socket: pynng.Req0 | None = None

    def request(self, message: Parts, timeout: float) -> bytes | memoryview:
        milliseconds = max(1, round(timeout * 1000))
        try:
            if self._socket is not None and not self._socket.pipes:
                self.close()  # the daemon went away: dialling anew fails at once if it stays away
            if self._socket is None:
                self._socket = pynng.Req0(recv_max_size=0, resend_time=24 * 3600 * 1000)
                try:
                    self._socket.dial(self.endpoint, block=True)
                except BaseException:
                    self.close()
                    raise
            self._socket.send_timeout = milliseconds
            self._socket.recv_timeout = milliseconds
            self._socket.send(b"".join(message))
            return bytes(self._socket.recv_msg().bytes)
        except pynng.exceptions.Timeout:
            raise AnswerTimeout(f"lanced at {self.endpoint} did not answer within {timeout:g} s") from None
        except pynng.exceptions.NNGException as error:
            raise _unreachable(self.endpoint, error) from error

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class SocketPeer:
    """The SP protocol of nng by hand: an 8-byte greeting each way, then messages with a 64-bit
    length; a request starts with a 32-bit id (high bit set) that its answer repeats."""

    _GREETING = struct.Struct(">BBBBHH")
    _REQ, _REP = 0x30, 0x31

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._socket: socket.socket | None = None
        self._ipc = endpoint.startswith("ipc://")
        self._id = secrets.randbits(31)

    def request(self, message: Parts, timeout: float) -> bytes | memoryview:
        deadline = time.monotonic() + timeout
        try:
            if self._socket is None:
                self._connect(deadline)
            return self._exchange(message, deadline)
        except TimeoutError:
            self.close()  # a late answer must not be taken for the next request's
            raise AnswerTimeout(f"lanced at {self.endpoint} did not answer within {timeout:g} s") from None
        except OSError as error:
            self.close()
            raise _unreachable(self.endpoint, error.strerror or error) from error
        except BaseException:  # KeyboardInterrupt: the connection is in the middle of a message
            self.close()
            raise

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self, deadline: float) -> None:
        scheme, _, address = self.endpoint.partition("://")
        left = max(0.001, deadline - time.monotonic())
        if scheme == "ipc":
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.settimeout(left)
            self._socket.connect(address)
        elif scheme == "tcp":
            host, _, port = address.rpartition(":")
            if not port.isdecimal():
                raise OSError("the endpoint has no port number")
            self._socket = socket.create_connection((host.strip("[]"), int(port)), timeout=left)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            raise OSError("the endpoint must start with ipc:// or tcp://")
        self._send(self._GREETING.pack(0, ord("S"), ord("P"), 0, self._REQ, 0), deadline)
        greeting = self._GREETING.unpack(self._receive(self._GREETING.size, deadline))
        if greeting[:4] != (0, ord("S"), ord("P"), 0) or greeting[4] != self._REP:
            raise OSError("who answers there is no nng REP socket")

    def _exchange(self, message: Parts, deadline: float) -> memoryview:
        self._id = (self._id + 1) & 0x7FFFFFFF
        request_id = struct.pack(">I", self._id | 0x80000000)
        head = struct.pack(">Q", sum(map(len, message)) + 4) + request_id
        self._send(b"".join((b"\x01" if self._ipc else b"", head, message[0])), deadline)
        for part in message[1:]:
            self._send(part, deadline)
        while True:
            if self._ipc and self._receive(1, deadline)[0] != 1:
                raise OSError("the answer is not framed as nng frames it")
            (length,) = struct.unpack(">Q", self._receive(8, deadline))
            if length < 4:
                raise OSError("the answer carries no request id")
            answers_id = self._receive(4, deadline)
            answer = self._receive(length - 4, deadline)
            if answers_id == request_id:
                return answer

    def _send(self, data: bytes | memoryview, deadline: float) -> None:
        assert self._socket is not None
        self._socket.settimeout(max(0.001, deadline - time.monotonic()))
        self._socket.sendall(data)

    def _receive(self, length: int, deadline: float) -> memoryview:
        """Exactly `length` bytes. numpy asks for room that takes memory only as it is filled, so a lying length takes
        none, and for huge pages."""
        assert self._socket is not None
        try:
            data = np.empty(length, np.uint8).data
        except (MemoryError, ValueError):
            raise OSError(f"an answer of {length} bytes does not fit into memory") from None
        filled = 0
        while filled < length:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            received = self._socket.recv_into(data[filled:])
            if received == 0:
                raise ConnectionResetError("the daemon closed the connection")
            filled += received
        return data
