"""lanced as a process among others: a log that nobody reads, signals that writes and limits raise, little stack."""

from __future__ import annotations

import json
import os
import pty
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pynng
import pytest
import safetensors.numpy

from lanced_client import Client, LanceError
from lanced_client.wire import decode
from lanced_process import (
    ANSWER_SECONDS,
    DEMO_MODEL,
    LANCECTL,
    LANCED,
    LONG_REQUEST,
    REQUEST,
    SLOWER,
    START_SECONDS,
    Lanced,
)

END_SECONDS = 20 * SLOWER
LOST = b"lines are missing here: nobody read the log, or it could not be written"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a socket's may have about 100 characters."""
    with tempfile.TemporaryDirectory(prefix="lanced-") as name:
        yield Path(name)


def start(
    folder: Path, *arguments: str, stderr: Any, prepare: Callable[[], None] | None = None
) -> subprocess.Popen[bytes]:
    """A lanced at folder/s that answers."""
    command = [str(LANCED), "--model", str(DEMO_MODEL), "--endpoint", f"ipc://{folder}/s", *arguments]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, preexec_fn=prepare)
    deadline = time.monotonic() + START_SECONDS
    while not (folder / "s").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


def client_of(folder: Path) -> Client:
    return Client(f"ipc://{folder}/s", timeout=ANSWER_SECONDS)


@pytest.fixture
def ended() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes to end after the test, whatever it came to."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def test_a_log_that_nobody_reads_stops_neither_jobs_nor_sigterm_and_tells_what_is_missing(
    folder: Path, ended: list[subprocess.Popen[bytes]], expected: np.ndarray[Any, Any]
) -> None:
    reader, writer = os.pipe()
    process = start(folder, "--log-level", "debug", stderr=writer)
    ended.append(process)
    os.close(writer)
    with client_of(folder) as client:
        for _ in range(6000):  # a line each, of more than a pipe and the queue behind it hold
            client.hello()
        np.testing.assert_array_equal(client.generate("t2i", **REQUEST).pixels, expected)

        said = bytearray()

        def read() -> None:
            while piece := os.read(reader, 65536):
                said.extend(piece)

        thread = threading.Thread(target=read)
        thread.start()
        deadline = time.monotonic() + END_SECONDS
        while LOST not in said and time.monotonic() < deadline:
            time.sleep(0.05)
        client.hello()
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_SECONDS) == 0
        thread.join()
    os.close(reader)
    lines = bytes(said).splitlines()
    told = [line for line in lines if LOST in line]
    assert len(told) == 1
    hellos = sum(b" hello from " in line for line in lines)
    lost = int(told[0].split()[2])
    assert hellos < 6001 <= hellos + lost
    assert lines[-1].endswith(b"ended")


def test_sigterm_ends_a_lanced_whose_log_nobody_reads(folder: Path, ended: list[subprocess.Popen[bytes]]) -> None:
    reader, writer = os.pipe()
    process = start(folder, "--log-level", "debug", stderr=writer)
    ended.append(process)
    os.close(writer)
    with client_of(folder) as client:
        for _ in range(1500):
            client.hello()
    process.send_signal(signal.SIGTERM)
    assert process.wait(END_SECONDS) == 0
    os.close(reader)


def test_a_limit_on_the_size_of_files_costs_lines_of_the_log_and_nothing_else(
    folder: Path, ended: list[subprocess.Popen[bytes]], expected: np.ndarray[Any, Any]
) -> None:
    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))

    with (folder / "log").open("wb") as log:
        process = start(folder, stderr=log, prepare=prepare)
    ended.append(process)
    with client_of(folder) as client:
        np.testing.assert_array_equal(client.generate("t2i", **REQUEST).pixels, expected)
    process.send_signal(signal.SIGTERM)
    assert process.wait(END_SECONDS) == 0
    assert (folder / "log").stat().st_size == 300


@pytest.mark.parametrize("program", [LANCED, LANCECTL])
def test_help_that_cannot_be_written_is_an_exit_status_not_a_signal(program: Path, folder: Path) -> None:
    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    with (folder / "help").open("wb") as out:
        done = subprocess.run(
            [str(program), "--help"], stdout=out, stderr=subprocess.PIPE, preexec_fn=prepare, timeout=60
        )
    assert done.returncode in (1, 5)
    assert b"cannot write to the standard output" in done.stderr


def test_a_limit_of_processor_time_ends_lanced_in_words(folder: Path, ended: list[subprocess.Popen[bytes]]) -> None:
    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (2 * SLOWER, 600))

    with (folder / "log").open("wb") as log:
        process = start(folder, stderr=log, prepare=prepare)
    ended.append(process)
    with client_of(folder) as client, pytest.raises(LanceError):
        client.generate("t2i", **LONG_REQUEST)
    assert process.wait(END_SECONDS) == 1
    said = (folder / "log").read_text()
    assert "\nlanced: ended because its limit of processor time (ulimit -t) is reached\n" in said


def test_lanced_under_nohup_stays_when_the_terminal_goes(folder: Path, ended: list[subprocess.Popen[bytes]]) -> None:
    def prepare() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = start(folder, stderr=subprocess.DEVNULL, prepare=prepare)
    ended.append(process)
    with client_of(folder) as client:
        client.hello()
        process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert client.hello().version
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_SECONDS) == 0


IN_THE_BACKGROUND = """
import os, subprocess, sys, termios
settings = termios.tcgetattr(2)
settings[3] |= termios.TOSTOP
termios.tcsetattr(2, termios.TCSANOW, settings)
process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, preexec_fn=lambda: os.setpgid(0, 0))
sys.exit(process.wait())
"""


def test_a_terminal_that_stops_background_programs_does_not_stop_lanced(folder: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        command = [str(LANCED), "--model", str(DEMO_MODEL), "--endpoint", f"ipc://{folder}/s"]
        os.execv(sys.executable, [sys.executable, "-c", IN_THE_BACKGROUND, *command])
    try:
        deadline = time.monotonic() + START_SECONDS
        while not (folder / "s").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        with client_of(folder) as client:
            assert client.generate("t2i", **REQUEST).pixels is not None
            client.shutdown()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        os.close(terminal)


def test_a_small_stack_is_enough_for_the_most_nested_message(
    folder: Path, ended: list[subprocess.Popen[bytes]]
) -> None:
    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_STACK, (48 << 10, 48 << 10))

    process = start(folder, "--lazy", stderr=subprocess.DEVNULL, prepare=prepare)
    ended.append(process)
    nested: Any = 1
    for _ in range(900):
        nested = [nested]
    text = json.dumps({"protocol": 2, "request": "hello", "x": nested})
    with client_of(folder) as client:
        with pynng.Req0(dial=client.endpoint, send_timeout=5000, recv_timeout=5000) as peer:
            peer.send(safetensors.numpy.save({}, metadata={"lance": text}))
            assert "protocol" in decode(peer.recv())[0]
        assert client.hello().version


ENDINGS = [(signal.SIGXCPU, False), (signal.SIGHUP, False), (signal.SIGHUP, True)]


@pytest.mark.parametrize(("number", "is_ignored"), ENDINGS)
def test_signals_of_limits_and_terminals_cancel_the_job_of_lancectl_but_not_under_nohup(
    number: signal.Signals, is_ignored: bool, lanced: Lanced, tmp_path: Path
) -> None:
    def prepare() -> None:  # whatever the tests themselves run under
        signal.signal(number, signal.SIG_IGN if is_ignored else signal.SIG_DFL)

    steps = "60" if is_ignored else "1000"
    command = [str(LANCECTL), "t2i", "a", "-o", str(tmp_path / "x.png"), "--size", "128x128", "--steps", steps]
    command += ["--endpoint", lanced.endpoint]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=prepare
    )
    try:
        assert process.stderr
        while b"denoise" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(number)
        process.communicate(timeout=60 * SLOWER)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == (0 if is_ignored else 128 + number)
    with lanced.client() as client:
        assert client.stats()["jobs"]["running"] == 0
