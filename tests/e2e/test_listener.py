"""The socket of a real lanced: it is there and takes connections, whatever the machine or its clients do."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from lanced_client.transport import SocketPeer
from lanced_process import REQUEST, SLOWER, Lanced
from stress import busy_machine

STARVING_SECONDS = 8
LISTENING_ANEW = "listening anew"


@contextlib.contextmanager
def watched(path: Path) -> Iterator[list[float]]:
    """The times at which there was no such name."""
    missing: list[float] = []
    enough = threading.Event()

    def watch() -> None:
        while not enough.wait(0.001):
            if not path.exists():
                missing.append(time.monotonic())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield missing
    finally:
        enough.set()
        thread.join()


def starve_all_threads_but_the_first(process: int) -> None:
    for thread in Path(f"/proc/{process}/task").iterdir():
        if int(thread.name) != process:
            os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))


def test_threads_of_nng_that_get_no_processor_are_not_taken_for_a_broken_listener() -> None:
    with Lanced() as daemon:
        path = Path(daemon.endpoint.removeprefix("ipc://"))
        with daemon.client() as client:
            generation = client.hello().generation
        starve_all_threads_but_the_first(daemon.process.pid)
        with watched(path) as missing, busy_machine(4 * (os.cpu_count() or 1)):
            time.sleep(STARVING_SECONDS)
        assert LISTENING_ANEW not in daemon.log.read_text()
        assert missing == []
        with daemon.client() as client:
            assert client.hello().generation == generation
            client.generate("t2i", **REQUEST)


def hang_up_while_connecting(path: Path, times: int) -> None:
    for _ in range(times):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(1)
            peer.connect(str(path))


def test_a_broken_listener_is_replaced_without_its_name_ever_missing_and_jobs_go_on() -> None:
    with Lanced() as daemon, daemon.client(SocketPeer) as client:
        path = Path(daemon.endpoint.removeprefix("ipc://"))
        generation = client.hello().generation
        job = client.submit("t2i", **REQUEST)
        deadline = time.monotonic() + 60 * SLOWER
        with watched(path) as missing:
            while LISTENING_ANEW not in daemon.log.read_text() and time.monotonic() < deadline:
                hang_up_while_connecting(path, 20)
                time.sleep(0.1)
        assert LISTENING_ANEW in daemon.log.read_text()
        assert missing == []
        assert client.hello().generation == generation
        assert job.result().pixels is not None
