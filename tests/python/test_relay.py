"""The line that tests of slow and broken ones stand on: tests/support/relay.py."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from relay import PIECE_BYTES, Relay


@pytest.fixture
def echo(endpoint: str) -> Iterator[str]:
    """The endpoint of a peer that says what it hears."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(endpoint.removeprefix("ipc://"))
    listener.listen()

    def serve(line: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := line.recv(1 << 16):
                line.sendall(data)
        line.close()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield endpoint
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def connected(relay: Relay) -> socket.socket:
    scheme, _, address = relay.endpoint.partition("://")
    line = socket.socket(socket.AF_UNIX if scheme == "ipc" else socket.AF_INET)
    line.settimeout(10)
    host, _, port = address.rpartition(":")
    line.connect(address if scheme == "ipc" else (host, int(port)))
    return line


def echoed(line: socket.socket, data: bytes) -> bytes:
    sender = threading.Thread(target=line.sendall, args=(data,))
    sender.start()
    back = b""
    with contextlib.suppress(ConnectionError):
        while len(back) < len(data) and (more := line.recv(1 << 16)):
            back += more
    sender.join()
    return back


@pytest.mark.parametrize("over_tcp", [False, True])
def test_a_slow_line_carries_everything_and_no_faster_than_it_may(echo: str, over_tcp: bool) -> None:
    data = bytes(range(256)) * 600
    with Relay(echo, bytes_per_second=300_000, over_tcp=over_tcp) as relay, connected(relay) as one:
        with connected(relay) as other:
            began = time.monotonic()
            thread = threading.Thread(target=echoed, args=(other, data))
            thread.start()
            assert echoed(one, data) == data
            thread.join()
            assert time.monotonic() - began >= 2 * len(data) / 300_000 - 0.1
        assert relay.requests.carried_bytes == relay.answers.carried_bytes == 2 * len(data)


def test_a_line_is_cut_where_the_test_says_and_takes_new_connections(echo: str) -> None:
    data = bytes(10 * PIECE_BYTES)
    with Relay(echo, bytes_per_second=2_000_000, cut_after=[PIECE_BYTES * 4]) as relay:
        with connected(relay) as line, contextlib.suppress(OSError):
            assert len(echoed(line, data)) < len(data)
        assert relay.cuts == 1
        with connected(relay) as line:
            assert echoed(line, data) == data


def test_a_line_that_fell_silent_takes_connections_and_says_nothing(echo: str) -> None:
    with Relay(echo) as relay:
        relay.fall_silent()
        with connected(relay) as line:
            line.sendall(b"hello")
            line.settimeout(0.3)
            with pytest.raises(TimeoutError):
                line.recv(1)
