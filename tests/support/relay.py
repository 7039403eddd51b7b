"""Stands between clients and a daemon on local sockets, as a line does that can be cut, held up, or slow."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType

PIECE_BYTES = 1 << 16


class Relay:
    """A context manager; clients connect to `endpoint`. `bytes_per_second`: what the line carries each way; None: all
    there is."""

    def __init__(self, daemon_endpoint: str, bytes_per_second: float | None = None) -> None:
        self._daemon_path = daemon_endpoint.removeprefix("ipc://")
        self._folder = tempfile.TemporaryDirectory(prefix="relay-")
        self._path = Path(self._folder.name) / "relay.ipc"
        self.endpoint = f"ipc://{self._path}"
        self.bytes_per_second = bytes_per_second
        self._answers_flow = threading.Event()
        self._answers_flow.set()
        self._sockets: list[socket.socket] = []
        self._listener: socket.socket | None = None

    def __enter__(self) -> Relay:
        self.appear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.let_answers_flow()
        self.vanish()
        self._folder.cleanup()

    def appear(self) -> None:
        """Listen, at the same name as before."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self._path))
        listener.listen(128)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def vanish(self) -> None:
        """Take the name away, and every connection with it."""
        sockets, self._sockets = self._sockets, []
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        for line in ([self._listener] if self._listener else []) + sockets:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()
        self._listener = None

    def hold_answers(self) -> None:
        """Requests go on to the daemon; what it says is kept back."""
        self._answers_flow.clear()

    def let_answers_flow(self) -> None:
        self._answers_flow.set()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                daemon = socket.socket(socket.AF_UNIX)
                self._sockets += [client, daemon]
                try:
                    daemon.connect(self._daemon_path)
                except OSError:
                    client.close()
                    continue
                threading.Thread(target=self._carry, args=(client, daemon, False), daemon=True).start()
                threading.Thread(target=self._carry, args=(daemon, client, True), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, are_answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(PIECE_BYTES):
                if are_answers:
                    self._answers_flow.wait()
                if self.bytes_per_second is not None:
                    time.sleep(len(data) / self.bytes_per_second)
                target.sendall(data)
        for line in (source, target):
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
