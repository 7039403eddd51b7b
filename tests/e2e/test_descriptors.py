"""A lanced that runs out of file descriptors: who is connected goes on, who comes is told, the log says what it is."""

from __future__ import annotations

import contextlib
import time

from lanced_client import Busy, Client, ConnectionFailed
from lanced_client.transport import SocketPeer
from lanced_process import REQUEST, SLOWER, Lanced

LIMIT = 160
WATCH_SECONDS = 12  # longer than lanced waits before it says that nng is at fault


def test_when_descriptors_run_out_new_clients_are_told_and_the_others_go_on() -> None:
    daemon = Lanced()
    daemon.command = ["prlimit", f"--nofile={LIMIT}:{LIMIT}", *daemon.command]
    with daemon, daemon.client(SocketPeer) as early, contextlib.ExitStack() as others:
        generation = early.hello().generation
        words, refused = "", 0
        for _ in range(2 * LIMIT):
            client = others.enter_context(Client(daemon.endpoint, timeout=5 * SLOWER, peer_factory=SocketPeer))
            try:
                client.hello()
            except Busy as error:
                words = str(error)
            except ConnectionFailed:
                refused += 1
                if refused == 3:
                    break
        assert "no file descriptors left" in words and str(LIMIT) in words
        assert refused == 3
        time.sleep(WATCH_SECONDS)
        assert early.generate("t2i", **REQUEST).pixels is not None
        others.close()
        deadline = time.monotonic() + 30 * SLOWER
        while True:
            with daemon.client(SocketPeer) as late:
                try:
                    assert late.hello().generation == generation
                    break
                except (Busy, ConnectionFailed):
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
        log = daemon.log.read_text()
        assert f"file descriptors run out ({LIMIT} are allowed" in log
        assert "nng" not in log and "listening anew" not in log
