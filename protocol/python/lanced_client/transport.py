"""How one request travels to the daemon and its answer back.

Two peers with one narrow interface. PynngPeer goes through the nng library, where pynng is installed. SocketPeer speaks
nng's wire format (SP, request/reply) over a plain socket, for the places where nothing can be installed, such as a
ComfyUI that only got this repository cloned into it; it copies less (tools/wire_bench.py measures both). The tests run
both.

A peer is used by one thread at a time. It tells a daemon that is gone (ConnectionFailed, at once) from one that is
there and says nothing (AnswerTimeout); how often that is tried again is the client's business. Every request of the
protocol may be repeated, so a peer that lost its connection simply connects again at the next request, and one whose
answer was late keeps its connection and skips that answer when it comes.
"""

from __future__ import annotations

import os
import secrets
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from .errors import AnswerTimeout, BadRequest, ConnectionFailed, ConnectionLost, Forbidden

try:
    import pynng
except ImportError:
    pynng = None

_LOOK_SECONDS = 0.1  # how often to look whether a connection still stands, where nothing tells
_QUEUE_SECONDS = 0.02  # until the next try where the kernel's queue of connections is full
_PIECE_BYTES = 1 << 20
_SEND_BUFFER_BYTES = 2 << 20  # for a piece of a payload, or what the system allows: to wait while one leaves takes time

Parts = Sequence[bytes | memoryview]  # of one message, one after the other
IsAlive = Callable[[], bool]


class Peer(Protocol):
    def request(self, message: Parts, timeout: float, is_alive: IsAlive | None = None) -> bytearray | memoryview:
        """Send a message and return the answer.

        ConnectionFailed when nobody is there, ConnectionLost when the connection broke. AnswerTimeout after `timeout`
        seconds of silence, unless is_alive(), which is asked then, knows that the daemon still answers others.
        """

    def close(self) -> None: ...


def open_peer(endpoint: str, ca: str | None = None) -> Peer:
    """A peer for `ipc://PATH`, `tcp://HOST:PORT` or `tls+tcp://HOST:PORT`: pynng where it is installed. `ca`: a file
    with the certificate of the CA that signed the daemon's; $LANCED_CA by default. Nothing is connected before the
    first request."""
    return PynngPeer(endpoint, ca) if pynng is not None else SocketPeer(endpoint, ca)


def _split(address: str) -> tuple[str, int]:
    """HOST:PORT, where an IPv6 address has brackets."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise OSError("the endpoint has no port number")
    return host.strip("[]"), int(port)


def _unreachable(endpoint: str, reason: object, was_connected: bool) -> ConnectionFailed:
    kind = ConnectionLost if was_connected else ConnectionFailed
    return kind(f"no lanced answers at {endpoint}: {reason}")


def _silent(endpoint: str, timeout: float) -> AnswerTimeout:
    return AnswerTimeout(f"lanced at {endpoint} did not answer within {timeout:g} s")


class _Line:
    """A plain connection to a REP socket of nng, with the greeting that each side begins with. The kernel refuses it
    where nobody listens; a process that is stopped is connected to, but greets late. The connection is kept meanwhile:
    nng 1.5 stops listening when a client hangs up in the middle of the greeting."""

    _GREETING = struct.Struct(">BBBBHH")
    _REQ, _REP = 0x30, 0x31

    def __init__(self, endpoint: str, ca: str | None = None) -> None:
        self.endpoint = endpoint
        self._ca = ca
        self.socket: socket.socket | None = None
        self._has_greeted = False

    def open(self, timeout: float) -> socket.socket:
        """The connection, made if there is none; OSError says why there is none to be had, TimeoutError after
        `timeout` seconds."""
        deadline = time.monotonic() + timeout
        if self.socket is None:
            self.socket = self._connect(deadline)
            self.socket.sendall(self._GREETING.pack(0, ord("S"), ord("P"), 0, self._REQ, 0))
        self.socket.settimeout(max(0.001, deadline - time.monotonic()))
        if not self._has_greeted:
            said = self.socket.recv(self._GREETING.size)
            if said != self._GREETING.pack(0, ord("S"), ord("P"), 0, self._REP, 0):
                raise OSError("who answers there is no nng REP socket")
            self._has_greeted = True
        return self.socket

    def ca(self) -> str | None:
        """The file to trust by; None where there is no TLS."""
        if not self.endpoint.startswith("tls+tcp://"):
            return None
        ca = self._ca or os.environ.get("LANCED_CA")
        if not ca:
            raise BadRequest(
                f"endpoint {self.endpoint}: needs the certificate of the CA that signed the daemon's: LANCED_CA, or"
                " Client(ca=) (ca.pem of lancectl ca)"
            )
        return ca

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
        self.socket, self._has_greeted = None, False

    def _connect(self, deadline: float) -> socket.socket:
        while True:
            try:
                return self._connect_now(max(0.001, deadline - time.monotonic()))
            except BlockingIOError:  # the kernel's queue is full: somebody listens, and has many callers
                if time.monotonic() >= deadline:
                    raise TimeoutError from None
                time.sleep(_QUEUE_SECONDS)

    def _connect_now(self, timeout: float) -> socket.socket:
        scheme, _, address = self.endpoint.partition("://")
        if scheme == "ipc":
            if not hasattr(socket, "AF_UNIX"):
                raise OSError("this system's Python has no local sockets: use a tcp:// endpoint")
            line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            try:
                line.settimeout(timeout)
                line.connect(address)
            except BaseException:
                line.close()
                raise
            return line
        if scheme in ("tcp", "tls+tcp"):
            host, port = _split(address)
            ca = self.ca()
            line = socket.create_connection((host, port), timeout=timeout)
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return line if ca is None else self._encrypted(line, host, ca)
        raise OSError("the endpoint must start with ipc://, tcp:// or tls+tcp://")

    def _encrypted(self, line: socket.socket, host: str, ca: str) -> socket.socket:
        """The connection with TLS over it. Forbidden where the daemon's certificate is not to be trusted."""
        try:
            try:
                context = ssl.create_default_context(cafile=ca)
            except OSError as error:  # ssl.SSLError too
                raise BadRequest(
                    f"CA {ca}: {error.strerror or error}; it must be a PEM file of certificates"
                ) from error
            return context.wrap_socket(line, server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            line.close()
            raise Forbidden(
                f"lanced at {self.endpoint} is not trusted: {error.verify_message} (by the CA in {ca})"
            ) from error
        except BaseException:
            line.close()
            raise


def _wait_readable(file: int, seconds: float) -> bool:
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(file, select.POLLIN)
        return bool(poll.poll(max(0, round(seconds * 1000))))
    return bool(select.select([file], [], [], seconds)[0])


class _Watch:
    """Whether a pynng socket has a connection, as nng's threads tell. It knows nothing of the socket or its peer: in a
    circle with them, one that nobody closed would be closed by the garbage collector, perhaps on a thread of nng's,
    which then waits for itself for ever."""

    def __init__(self) -> None:
        self.is_connected = False

    def begin(self, _: object) -> None:
        self.is_connected = True

    def end(self, _: object) -> None:
        self.is_connected = False


def _nng_message(parts: Parts) -> pynng.Message:
    """The parts one after the other in a message of nng's, each copied once: pynng itself takes one bytes object alone,
    for which a piece of a payload would have to be copied twice."""
    message = pynng.Message(b"")
    for part in parts:
        if pynng.lib.nng_msg_append(message._nng_msg, pynng.ffi.from_buffer(part), len(part)) != 0:
            raise MemoryError(f"no memory for a message with {len(part)} bytes")
    return message


class PynngPeer:
    """An nng REQ socket; nng reconnects and repeats the request by itself while it waits. It does not say where nobody
    listens, and waits for ever: so a plain connection asks first, and whether the socket has one is watched meanwhile.

    The socket's own list of pipes is no guide: nng tells of a pipe's use and of its end from two threads, and one that
    ended soon stays in the list for ever when these come the other way round."""

    def __init__(self, endpoint: str, ca: str | None = None) -> None:
        self.endpoint = endpoint
        self._line = _Line(endpoint, ca)
        self._socket: pynng.Req0 | None = None
        self._answers = -1  # its file, which can be read when an answer is there
        self._tls_config: pynng.TLSConfig | None = None  # nng before 1.9 (pynng 0.8) holds none before it dials
        self._watch = _Watch()

    def __del__(self) -> None:
        self.close()

    def request(self, message: Parts, timeout: float, is_alive: IsAlive | None = None) -> bytearray | memoryview:
        was_connected = False
        try:
            line = self._connect(timeout)
            was_connected = True
            self._send(line, _nng_message(message), timeout)
            self._wait(timeout, is_alive)
            answer = line.recv_msg()
            return bytearray(answer._buffer)  # one copy, in which its arrays lie
        except (TimeoutError, pynng.exceptions.Timeout):
            raise _silent(self.endpoint, timeout) from None
        except (OSError, pynng.exceptions.NNGException) as error:
            self.close()
            raise _unreachable(self.endpoint, getattr(error, "strerror", None) or error, was_connected) from error

    def close(self) -> None:
        self._line.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self, timeout: float) -> pynng.Req0:
        if self._socket is not None and not self._watch.is_connected:
            self.close()  # the daemon went away
        if self._socket is None:
            self._line.open(timeout)
            self._tls_config = self._tls()
            self._socket = pynng.Req0(
                recv_max_size=0,
                resend_time=24 * 3600 * 1000,
                send_timeout=round(_LOOK_SECONDS * 1000),
                tls_config=self._tls_config,
            )
            self._answers = self._socket.recv_fd
            self._watch = _Watch()
            self._socket.add_pre_pipe_connect_cb(self._watch.begin)
            self._socket.add_post_pipe_remove_cb(self._watch.end)
            self._socket.dial(self.endpoint, block=True)
            self._line.close()
        return self._socket

    def _tls(self) -> pynng.TLSConfig | None:
        ca = self._line.ca()
        if ca is None:
            return None
        host, _ = _split(self.endpoint.partition("://")[2])
        return pynng.TLSConfig(
            pynng.TLSConfig.MODE_CLIENT,
            server_name=host,
            ca_files=[ca],
            auth_mode=pynng.TLSConfig.AUTH_MODE_REQUIRED,
        )

    def _send(self, line: pynng.Req0, message: pynng.Message, timeout: float) -> None:
        """To nng, which takes nothing while it has no connection."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line.send_msg(message)
                return
            except pynng.exceptions.Timeout:
                self._check_connection()
                if time.monotonic() >= deadline:
                    raise

    def _wait(self, timeout: float, is_alive: IsAlive | None) -> None:
        """Until the answer is there."""
        deadline = time.monotonic() + timeout
        while not _wait_readable(self._answers, min(_LOOK_SECONDS, max(0.0, deadline - time.monotonic()))):
            self._check_connection()
            if time.monotonic() >= deadline:
                if is_alive is None or not is_alive():
                    raise TimeoutError
                deadline = time.monotonic() + timeout

    def _check_connection(self) -> None:
        if not self._watch.is_connected:
            raise ConnectionResetError("the daemon closed the connection")


class SocketPeer:
    """The SP protocol of nng by hand: an 8-byte greeting each way, then messages with a 64-bit
    length; a request starts with a 32-bit id (high bit set) that its answer repeats."""

    def __init__(self, endpoint: str, ca: str | None = None) -> None:
        self.endpoint = endpoint
        self._line = _Line(endpoint, ca)
        self._ipc = endpoint.startswith("ipc://")
        self._id = secrets.randbits(31)
        self._is_midway = False  # in a message, so that nothing else can follow on this connection

    def request(self, message: Parts, timeout: float, is_alive: IsAlive | None = None) -> bytearray | memoryview:
        was_connected = False
        try:
            line = self._line.open(timeout)
            was_connected = True
            line.settimeout(timeout)  # for each piece: what counts is silence
            return self._exchange(line, message, is_alive)
        except TimeoutError:
            if self._is_midway:
                self.close()
            raise _silent(self.endpoint, timeout) from None
        except OSError as error:
            self.close()
            raise _unreachable(self.endpoint, error.strerror or error, was_connected) from error
        except BaseException:  # KeyboardInterrupt: the connection may be in the middle of a message
            self.close()
            raise

    def close(self) -> None:
        self._line.close()
        self._is_midway = False

    def _exchange(self, line: socket.socket, message: Parts, is_alive: IsAlive | None) -> memoryview:
        self._id = (self._id + 1) & 0x7FFFFFFF
        request_id = struct.pack(">I", self._id | 0x80000000)
        head = struct.pack(">Q", sum(map(len, message)) + 4) + request_id
        self._is_midway = True
        self._send(line, b"".join((b"\x01" if self._ipc else b"", head, message[0])), is_alive)
        for part in message[1:]:
            self._send(line, part, is_alive)
        while True:
            self._is_midway = False
            begin = self._receive(line, 13 if self._ipc else 12, is_alive)
            if self._ipc and begin[0] != 1:
                raise OSError("the answer is not framed as nng frames it")
            (length,) = struct.unpack(">Q", begin[-12:-4])
            if length < 4:
                raise OSError("the answer carries no request id")
            answer = self._receive(line, length - 4, is_alive)
            if begin[-4:] == request_id:
                self._is_midway = False
                return answer

    @staticmethod
    def _send(line: socket.socket, data: bytes | memoryview, is_alive: IsAlive | None) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[line.send(left[:_PIECE_BYTES]) :]
            except TimeoutError:
                if is_alive is None or not is_alive():
                    raise

    def _receive(self, line: socket.socket, length: int, is_alive: IsAlive | None) -> memoryview:
        """Exactly `length` bytes. numpy asks for room that takes memory only as it is filled, so a lying length takes
        none, and for huge pages."""
        try:
            data = np.empty(length, np.uint8).data
        except (MemoryError, ValueError):
            raise OSError(f"an answer of {length} bytes does not fit into memory") from None
        filled = 0
        while filled < length:
            try:
                received = line.recv_into(data[filled:])
            except TimeoutError:
                if is_alive is None or not is_alive():
                    raise
                continue
            if received == 0:
                raise ConnectionResetError("the daemon closed the connection")
            self._is_midway = True
            filled += received
        return data
