"""Stands between clients and a daemon on local sockets: a line that can be slow, cut, held up, or wholly silent."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

PIECE_BYTES = 1 << 14


class _Direction:
    """What all connections together carry one way."""

    def __init__(self, bytes_per_second: float | None) -> None:
        self.bytes_per_second = bytes_per_second
        self.carried_bytes = 0
        self.flows = threading.Event()
        self.flows.set()
        self._lock = threading.Lock()
        self._free_at = 0.0

    def carry(self, count: int) -> None:
        """Returns when so many bytes have passed."""
        self.flows.wait()
        with self._lock:
            self.carried_bytes += count
            if self.bytes_per_second is None:
                return
            self._free_at = max(self._free_at, time.monotonic()) + count / self.bytes_per_second
            arrives_at = self._free_at
        time.sleep(max(0.0, arrives_at - time.monotonic()))


class Relay:
    """A context manager; clients connect to `endpoint`. `bytes_per_second`: what the line carries each way, for all its
    connections together; None: all there is. `cut_after`: numbers of bytes, of requests and answers together; when so
    many have passed, every connection is cut, and new ones are taken. `over_tcp`: clients connect by tcp on the
    loopback address; the daemon is at an ipc endpoint."""

    def __init__(
        self,
        daemon_endpoint: str,
        bytes_per_second: float | None = None,
        cut_after: Sequence[int] = (),
        over_tcp: bool = False,
    ) -> None:
        self._daemon_path = daemon_endpoint.removeprefix("ipc://")
        self._folder = tempfile.TemporaryDirectory(prefix="relay-")
        self._path = Path(self._folder.name) / "relay.ipc"
        self._over_tcp = over_tcp
        self._port = 0
        self.requests = _Direction(bytes_per_second)
        self.answers = _Direction(bytes_per_second)
        self._cuts = sorted(cut_after)
        self.cuts = 0  # so far
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._listener: socket.socket | None = None

    @property
    def endpoint(self) -> str:
        return f"tcp://127.0.0.1:{self._port}" if self._over_tcp else f"ipc://{self._path}"

    def __enter__(self) -> Relay:
        self.appear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.let_answers_flow()
        self.requests.flows.set()
        self.vanish()
        self._folder.cleanup()

    def appear(self) -> None:
        """Listen, at the same name as before."""
        listener = socket.socket(socket.AF_INET if self._over_tcp else socket.AF_UNIX)
        if self._over_tcp:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self._port))
            self._port = listener.getsockname()[1]
        else:
            listener.bind(str(self._path))
        listener.listen(128)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def vanish(self) -> None:
        """Take the name away, and every connection with it."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        listener, self._listener = self._listener, None
        if listener is not None:
            _close(listener)
        self.cut()

    def cut(self) -> None:
        """End every connection that there is; new ones are taken."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for line in sockets:
            _close(line)

    def hold_answers(self) -> None:
        """Requests go on to the daemon; what it says is kept back."""
        self.answers.flows.clear()

    def let_answers_flow(self) -> None:
        self.answers.flows.set()

    def fall_silent(self) -> None:
        """From now on connections are taken, and nothing passes, either way."""
        self.requests.flows.clear()
        self.answers.flows.clear()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                daemon = socket.socket(socket.AF_UNIX)
                with self._lock:
                    self._sockets += [client, daemon]
                try:
                    daemon.connect(self._daemon_path)
                except OSError:
                    client.close()
                    continue
                threading.Thread(target=self._carry, args=(client, daemon, self.requests), daemon=True).start()
                threading.Thread(target=self._carry, args=(daemon, client, self.answers), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, direction: _Direction) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(PIECE_BYTES):
                direction.carry(len(data))
                if self._is_to_be_cut():
                    self.cut()
                target.sendall(data)
        for line in (source, target):
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def _is_to_be_cut(self) -> bool:
        with self._lock:
            passed = self.requests.carried_bytes + self.answers.carried_bytes
            if not self._cuts or passed < self._cuts[0]:
                return False
            self._cuts.pop(0)
            self.cuts += 1
            return True


def _close(line: socket.socket) -> None:
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
    line.close()
