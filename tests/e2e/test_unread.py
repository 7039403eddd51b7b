"""Clients that ask for large results and never read them: memory stays below the bound, and others are served."""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path

import numpy as np

from lanced_client import Client
from lanced_client.wire import encode
from lanced_process import Lanced

BATCH, SIDE = 8, 1024
RESULT_BYTES = BATCH * SIDE * SIDE * 3
CLIENTS, QUESTIONS = 8, 100
IN_ALL_BYTES = 256 << 20  # of answers that nobody reads, as PROTOCOL.md says; besides, each connection gets one
GREETING = b"\0SP\0\0\x30\0\0"


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")))


class NeverReads:
    """A connection that asks for a result again and again, and looks at no answer."""

    def __init__(self, endpoint: str, job: str) -> None:
        self._line = socket.socket(socket.AF_UNIX)
        self._line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._line.settimeout(20)
        self._line.connect(endpoint.removeprefix("ipc://"))
        self._line.sendall(GREETING)
        self._body = encode({"protocol": 2, "request": "get", "job": job, "tensor": "pixels"})

    def ask(self, number: int) -> None:
        message = struct.pack(">I", 0x80000000 | number) + self._body
        self._line.sendall(b"\1" + struct.pack(">Q", len(message)) + message)

    def close(self) -> None:
        self._line.close()


def test_clients_that_never_read_are_bounded_in_bytes_while_others_are_served() -> None:
    with Lanced() as lanced, lanced.client() as client:
        job = client.job("decode", latents=np.zeros((BATCH, 48, 1, SIDE // 16, SIDE // 16), np.float32))
        job.submit()
        pixels = job.result().pixels
        assert pixels is not None and pixels.nbytes == RESULT_BYTES
        before = resident_bytes(lanced.process.pid)
        readers = [NeverReads(lanced.endpoint, job.id) for _ in range(CLIENTS)]
        for number in range(QUESTIONS):
            for reader in readers:
                reader.ask(number)
        highest, end = 0, time.monotonic() + 3
        while time.monotonic() < end:
            highest = max(highest, resident_bytes(lanced.process.pid) - before)
            time.sleep(0.02)
        # Beside what is counted, nng holds one answer of each connection that it has begun to write.
        bound = IN_ALL_BYTES + 2 * CLIENTS * RESULT_BYTES
        print(
            f"{CLIENTS} clients, {QUESTIONS} results of {RESULT_BYTES / 1e6:.1f} MB asked by each: "
            f"{highest / 1e6:.0f} MB more, bound {bound / 1e6:.0f} MB"
        )
        assert highest < bound
        with Client(lanced.endpoint, timeout=20) as good:
            for _ in range(30):
                assert (
                    good.job("decode", job_id=job.id, latents=np.zeros((BATCH, 48, 1, 64, 64), np.float32)).result()
                    is not None
                )
        assert "answers unread and gets no more until it reads them" in lanced.log.read_text()
        for reader in readers:
            reader.close()
        deadline = time.monotonic() + 20
        while resident_bytes(lanced.process.pid) - before > IN_ALL_BYTES and time.monotonic() < deadline:
            time.sleep(0.1)
        assert client.stats()["jobs"]["running"] == 0
