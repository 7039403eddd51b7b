"""The client against a scripted peer: what it does when the daemon is odd, late or gone."""

from __future__ import annotations

import contextlib
import gc
import socket
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pynng
import pytest

import lanced_client
from lanced_client import (
    AnswerTimeout,
    BadAnswer,
    BadRequest,
    Busy,
    Client,
    ConnectionFailed,
    JobLost,
    Progress,
    TooLarge,
    Unsupported,
    VersionMismatch,
)
from lanced_client.transport import PynngPeer
from lanced_client.wire import encode
from scripted_daemon import scripted_daemon

HELLO = {"version": "0.1.0", "generation": "first", "limits": {"message_bytes": 1000, "piece_bytes": 1 << 20}}


def error(code: str, message: str) -> bytes:
    return encode({"protocol": 2, "ok": False, "error": {"code": code, "message": message}})


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, lanced_client; sys.exit('torch' in sys.modules)"
    package = Path(lanced_client.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=package)


def test_no_daemon_is_told_at_once_with_the_endpoint(endpoint: str, peer_factory: Any) -> None:
    started = time.monotonic()
    with pytest.raises(ConnectionFailed, match=endpoint):
        Client(endpoint, peer_factory=peer_factory).hello()
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("bad", ["tcp://127.0.0.1", "http://127.0.0.1:1", "tcp://127.0.0.1:x", ""])
def test_an_endpoint_that_is_none_is_a_connection_error(bad: str, peer_factory: Any) -> None:
    with pytest.raises(ConnectionFailed):
        Client(bad or "nonsense", peer_factory=peer_factory).hello()


@pytest.mark.parametrize(
    "far", ["tcp://10.0.0.1:8471", "tcp://127.example.org:8471", "tcp://127.0.0.1:1@far.example:8471", "tcp://[::]:1"]
)
def test_nothing_is_sent_in_the_clear_to_another_machine(far: str, peer_factory: Any) -> None:
    with pytest.raises(Unsupported, match=r"is not a loopback address.*tls\+tcp://"):
        Client(far, token="0123456789abcdef", peer_factory=peer_factory).hello()


def test_another_protocol_version_is_named_with_both_versions(endpoint: str, peer_factory: Any) -> None:
    def answer(_: dict[str, Any]) -> bytes:
        return encode({"protocol": 3, "ok": True, "version": "9.0"})

    with scripted_daemon(endpoint, answer), Client(endpoint, peer_factory=peer_factory) as client:
        with pytest.raises(VersionMismatch, match=r"speaks protocol 3 \(version 9.0\).*protocol 2"):
            client.hello()


def test_another_version_of_the_same_protocol_works_and_is_told_once(endpoint: str, peer_factory: Any) -> None:
    def answer(_: dict[str, Any]) -> bytes:
        return encode({"protocol": 2, "ok": True, "version": "9.0", "generation": "g"})

    with scripted_daemon(endpoint, answer), Client(endpoint, peer_factory=peer_factory) as client:
        with pytest.warns(UserWarning, match=r"has version 9\.0, this client 0\.1\.0"):
            assert client.hello().version == "9.0"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            client.hello()


def test_an_error_carries_the_daemons_own_words(endpoint: str, peer_factory: Any) -> None:
    with (
        scripted_daemon(endpoint, lambda _: error("unsupported", "no such request: dance")),
        Client(endpoint, peer_factory=peer_factory) as client,
        pytest.raises(Unsupported, match="^no such request: dance$"),
    ):
        client.call("dance")


@pytest.mark.parametrize("nonsense", [b"", b"\x00" * 7, b"hello world, this is not it", b"\xff" * 100])
def test_an_answer_that_is_no_message_is_a_bad_answer(nonsense: bytes, endpoint: str, peer_factory: Any) -> None:
    with (
        scripted_daemon(endpoint, lambda _: nonsense),
        Client(endpoint, peer_factory=peer_factory) as client,
        pytest.raises(BadAnswer),
    ):
        client.hello()


def test_a_late_answer_is_not_taken_for_the_next_requests(endpoint: str, peer_factory: Any) -> None:
    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if request["request"] == "models":
            time.sleep(0.4)
            return {"models": []}
        return HELLO

    with scripted_daemon(endpoint, answer), Client(endpoint, peer_factory=peer_factory) as client:
        with pytest.raises(AnswerTimeout):
            client.call("models", timeout=0.1)
        assert client.hello().generation == "first"


def test_a_request_over_the_daemons_limit_is_refused_before_it_is_sent(endpoint: str, peer_factory: Any) -> None:
    with (
        scripted_daemon(endpoint, lambda _: HELLO),
        Client(endpoint, peer_factory=peer_factory) as client,
        pytest.raises(TooLarge, match="1000"),
    ):
        client.submit("image_edit", source=np.zeros((1, 64, 64, 3), np.uint8), prompt="x")


def test_text_that_is_no_unicode_and_nan_are_refused(endpoint: str) -> None:
    with scripted_daemon(endpoint, lambda _: HELLO), Client(endpoint) as client:
        with pytest.raises(BadRequest, match="Unicode"):
            client.submit("t2i", prompt="\ud800")
        with pytest.raises(BadRequest, match="JSON"):
            client.submit("t2i", prompt="a", guidance_scale=float("nan"))


def test_a_seed_travels_exactly(endpoint: str) -> None:
    seen: list[Any] = []

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if request["request"] == "submit":
            seen.append(request["params"]["seed"])
        return {**HELLO, "position": 0}

    with scripted_daemon(endpoint, answer), Client(endpoint) as client:
        client.submit("t2i", prompt="a", seed=2**64 - 1)
        client.submit("t2i", prompt="a", seed=np.uint64(2**64 - 1), width=np.int64(64), guidance_scale=np.float32(4))
        with pytest.raises(BadRequest, match=r"seed: must be a whole number .* not 1\.5"):
            client.submit("t2i", prompt="a", seed=1.5)
    assert seen == ["18446744073709551615"] * 2


def test_a_restarted_daemon_is_noticed_and_the_job_is_lost(endpoint: str, peer_factory: Any) -> None:
    def first(request: dict[str, Any]) -> dict[str, Any]:
        progress = {"sequence": 1, "event": "progress", "stage": "denoise", "step": 1, "steps": 30}
        return {**HELLO, "events": [progress] if request.get("after") == 0 else []}

    def second(request: dict[str, Any]) -> dict[str, Any] | bytes:
        if request["request"] == "hello":
            return {**HELLO, "generation": "second"}
        return error("not_found", "no such job")

    with Client(endpoint, peer_factory=peer_factory) as client:
        with scripted_daemon(endpoint, first):
            job = client.submit("t2i", prompt="a")
            events = job.poll(0.1)
            assert events == [Progress(1, "progress", "denoise", 1, 30)]
        assert job.poll(0.05) == []  # gone, but perhaps it comes back
        with scripted_daemon(endpoint, second), pytest.raises(JobLost, match="restarted"):
            for _ in range(40):
                job.poll(0.05)


def test_a_job_goes_on_after_a_lost_connection(endpoint: str, peer_factory: Any) -> None:
    def answer(request: dict[str, Any]) -> dict[str, Any]:
        after = request.get("after", 0)
        names = ["queued", "started", "done"]
        events = [{"sequence": after + 1, "event": names[after]}]
        return {**HELLO, "events": events}

    with Client(endpoint, peer_factory=peer_factory) as client:
        with scripted_daemon(endpoint, answer):
            job = client.submit("t2i", prompt="a")
            seen = job.poll(0.1)
        assert job.poll(0.05) == []
        with scripted_daemon(endpoint, answer):
            seen += job.events()
    assert [event.event for event in seen] == ["queued", "started", "done"]


def test_an_answer_that_is_late_by_less_than_the_timeout_ends_no_job(endpoint: str, peer_factory: Any) -> None:
    waits: list[int] = []

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if request["request"] == "wait":
            waits.append(1)
            if len(waits) == 1:
                time.sleep(1.6)  # the client asked for an answer within 1 s, and has a timeout of 0.5 s itself
                return {**HELLO, "events": []}
            return {**HELLO, "events": [{"sequence": 1, "event": "done"}]}
        return HELLO

    with scripted_daemon(endpoint, answer), Client(endpoint, timeout=0.5, peer_factory=peer_factory) as client:
        job = client.submit("t2i", prompt="a")
        assert job.poll(1.0) == []
        assert [event.event for event in job.poll(1.0)] == ["done"]


def test_a_daemon_that_stays_away_ends_the_wait_and_every_poll_is_short(endpoint: str, peer_factory: Any) -> None:
    with Client(endpoint, timeout=1.0, peer_factory=peer_factory) as client:
        with scripted_daemon(endpoint, lambda _: {**HELLO, "events": []}):
            job = client.submit("t2i", prompt="a")
            job.poll(0.05)
        polls = 0
        last = time.monotonic()
        with pytest.raises(ConnectionFailed, match="went away while job"):
            while True:
                job.poll(0.05)
                polls += 1
                assert time.monotonic() - last < 0.5
                last = time.monotonic()
        assert polls > 2


def test_a_job_is_released_whatever_becomes_of_the_answer_to_its_submit(endpoint: str, peer_factory: Any) -> None:
    seen: list[tuple[str, str]] = []

    def answer(request: dict[str, Any]) -> dict[str, Any] | None:
        seen.append((request["request"], request.get("job", "")))
        return None if request["request"] == "submit" else HELLO

    with scripted_daemon(endpoint, answer), Client(endpoint, timeout=0.3, peer_factory=peer_factory) as client:
        client.is_alive = lambda: False  # type: ignore[method-assign]  # so that it gives up
        with pytest.raises(AnswerTimeout):
            client.submit("t2i", prompt="a")
        with pytest.raises(AnswerTimeout):
            client.generate("t2i", prompt="a")
    submitted = [job for request, job in seen if request == "submit"]
    assert len(set(submitted)) == 2
    assert [job for request, job in seen if request == "release"] == submitted


def test_a_job_that_is_refused_or_was_never_sent_is_not_released(endpoint: str) -> None:
    seen: list[str] = []

    def answer(request: dict[str, Any]) -> dict[str, Any] | bytes:
        seen.append(request["request"])
        return error("busy", "the queue is full") if request["request"] == "submit" else HELLO

    with scripted_daemon(endpoint, answer), Client(endpoint) as client:
        with pytest.raises(Busy), client.job("t2i", prompt="a", job_id="somebody-elses") as job:
            job.submit()
        with client.job("t2i", prompt="a"):
            pass
    assert "release" not in seen


def test_a_job_that_is_left_while_it_is_submitted_is_released_after_it(endpoint: str, peer_factory: Any) -> None:
    seen: list[str] = []
    is_submitting = threading.Event()

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        seen.append(request["request"])
        if request["request"] == "submit":
            is_submitting.set()
            time.sleep(0.5)
        return HELLO

    with scripted_daemon(endpoint, answer), Client(endpoint, peer_factory=peer_factory) as client:
        job = client.job("t2i", prompt="a")
        submitting = threading.Thread(target=job.submit)
        submitting.start()
        is_submitting.wait()
        job.leave()
        submitting.join()
    assert seen[-1] == "release"
    assert seen.count("submit") == 1


def test_a_full_queue_of_the_kernel_is_tried_again(endpoint: str, peer_factory: Any) -> None:
    path = endpoint.removeprefix("ipc://")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(0)
    callers = [socket.socket(socket.AF_UNIX) for _ in range(4)]
    for caller in callers:
        caller.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            caller.connect(path)
    with Client(endpoint, timeout=0.5, peer_factory=peer_factory) as client, pytest.raises(AnswerTimeout):
        client.hello()
    for line in (listener, *callers):
        line.close()


def test_a_daemon_that_ends_just_before_a_request_is_sent_is_gone_not_silent(endpoint: str, peer_factory: Any) -> None:
    """A connection that stood a moment ago: nng alone would wait for the next one, for all of the timeout."""
    peer = peer_factory(endpoint)
    hello = encode({"protocol": 1, "request": "hello"})
    with contextlib.ExitStack() as daemon:
        daemon.enter_context(scripted_daemon(endpoint, lambda _: HELLO))
        peer.request([hello], 5.0)

        class Request(list[bytes]):  # is read when the connection was looked at
            def __iter__(self) -> Iterator[bytes]:
                daemon.close()
                time.sleep(0.5)  # so that nng notices
                return super().__iter__()

        with pytest.raises(ConnectionFailed) as failed:
            peer.request(Request([hello]), 5.0)
    assert not isinstance(failed.value, AnswerTimeout)
    peer.close()


class EndFirst:
    """The lock that pynng's callbacks take, for one pipe whose end is told before its use: libnng tells of these from
    two threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._dialer: int | None = None  # the thread that tells of the beginning, and then of the use
        self._end_was_told = threading.Event()

    def __enter__(self) -> None:
        me = threading.get_ident()
        if self._dialer is None:
            self._dialer = me
        elif self._dialer == me:
            assert self._end_was_told.wait(30)
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        if threading.get_ident() != self._dialer:
            self._end_was_told.set()


def test_a_connection_that_nobody_closed_waits_for_no_garbage_collector(endpoint: str) -> None:
    """It may run on a thread of nng's, where closing a socket waits for that thread for ever."""
    gc.disable()
    try:
        with scripted_daemon(endpoint, lambda _: HELLO):
            peer = PynngPeer(endpoint)
            peer.request([encode({"protocol": 2, "request": "hello"})], 5.0)
            is_there = weakref.ref(peer)
            del peer
            assert is_there() is None
    finally:
        gc.enable()


def test_a_connection_whose_end_is_told_before_its_use_is_not_there(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Req0(pynng.Req0):  # type: ignore[misc]  # pynng has no types
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self._pipe_notify_lock = EndFirst()

    monkeypatch.setattr(pynng, "Req0", Req0)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(endpoint.removeprefix("ipc://"))
        listener.listen()

        def greet_two_and_end() -> None:
            for _ in range(2):  # the client's look at who is there, and nng
                line, _ = listener.accept()
                with line:
                    line.sendall(bytes([0, ord("S"), ord("P"), 0, 0, 0x31, 0, 0]))
                    line.recv(8)
            listener.close()

        daemon = threading.Thread(target=greet_two_and_end)
        daemon.start()
        peer = PynngPeer(endpoint)
        with pytest.raises(ConnectionFailed) as failed:
            peer.request([encode({"protocol": 1, "request": "hello"})], 5.0)
        daemon.join()
    assert not isinstance(failed.value, AnswerTimeout)
    peer.close()


def test_an_event_that_is_missing_is_a_bad_answer(endpoint: str) -> None:
    answer = {**HELLO, "events": [{"sequence": 2, "event": "done"}]}
    with scripted_daemon(endpoint, lambda _: answer), Client(endpoint) as client:
        job = client.submit("t2i", prompt="a")
        with pytest.raises(BadAnswer, match="event 2 came after event 0"):
            job.poll(0.1)


def test_an_unknown_event_passes_through(endpoint: str) -> None:
    answer = {**HELLO, "events": [{"sequence": 1, "event": "sparkle", "colour": "blue"}]}
    with scripted_daemon(endpoint, lambda _: answer), Client(endpoint) as client:
        assert client.submit("t2i", prompt="a").poll(0.1)[0].event == "sparkle"


def test_a_parameter_the_daemon_does_not_know_is_warned_about(endpoint: str) -> None:
    answer = {**HELLO, "ignored": ["stepz"]}
    with scripted_daemon(endpoint, lambda _: answer), Client(endpoint) as client, pytest.warns(match="stepz"):
        client.submit("t2i", prompt="a", stepz=3)
