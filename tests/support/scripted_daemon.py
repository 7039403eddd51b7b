"""A peer that answers as the test says: for what a real lanced cannot be made to say, such as
another protocol version, a restart in the middle of a job, or an answer that comes too late."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pynng

from lanced_client.wire import decode, encode

Answer = Callable[[dict[str, Any]], "dict[str, Any] | bytes | None"]


@contextlib.contextmanager
def scripted_daemon(endpoint: str, answer: Answer) -> Iterator[None]:
    """Answer every request with what `answer(envelope)` returns; None is silence."""
    with pynng.Rep0(listen=endpoint, recv_timeout=50) as listener:
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                with contextlib.suppress(pynng.Timeout, pynng.Closed):
                    request, _ = decode(listener.recv())
                    reply = answer(request)
                    if isinstance(reply, dict):
                        reply = encode({"protocol": 2, "ok": True, **reply})
                    if reply is not None:
                        listener.send(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
