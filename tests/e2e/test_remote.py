"""lanced for other machines: TLS, who is refused there, and what strangers cost those who are let in."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import certificates
from certificates import TOKENS
from lanced_client import BadRequest, Client, Forbidden, LanceError
from lanced_client.transport import Peer
from lanced_process import ANSWER_SECONDS, DEMO_MODEL, LANCECTL, LANCED, REQUEST, Lanced, free_port

IDLE = 1000
MOST_GROWTH_BYTES = 256 << 20  # of the daemon, for them
GREETING = b"\0SP\0\0\x30\0\0"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates.make(tmp_path_factory.mktemp("ca"), "127.0.0.1,node.example")


@pytest.fixture(scope="module")
def remote(authority: Path) -> Iterator[Lanced]:
    options = certificates.options(authority, authority / "127.0.0.1.pem")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANCED_CA", str(authority / "ca.pem"))
        with Lanced(*options, endpoint=f"tls+tcp://127.0.0.1:{free_port()}", token=TOKENS["alice"]) as daemon:
            yield daemon


def port_of(daemon: Lanced) -> int:
    return int(daemon.endpoint.rpartition(":")[2])


def assert_serves(daemon: Lanced, peer_factory: Callable[..., Peer], expected: np.ndarray[Any, Any]) -> None:
    with daemon.client(peer_factory) as client:
        pixels = client.generate("t2i", **REQUEST).pixels
    assert pixels is not None
    np.testing.assert_array_equal(pixels, expected)


def encrypted(daemon: Lanced, authority: Path) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(authority / "ca.pem"))
    line = socket.create_connection(("127.0.0.1", port_of(daemon)), timeout=ANSWER_SECONDS)
    return context.wrap_socket(line, server_hostname="127.0.0.1")


def test_a_job_over_tls_has_the_same_bytes(
    remote: Lanced, peer_factory: Callable[..., Peer], expected: np.ndarray[Any, Any]
) -> None:
    assert_serves(remote, peer_factory, expected)


def test_lancectl_over_tls(remote: Lanced, authority: Path, tmp_path: Path) -> None:
    command = [str(LANCECTL), "t2i", "a red circle", "-o", str(tmp_path / "a.png"), "--size", "64x64", "--steps", "4",
               "--endpoint", remote.endpoint, "--ca", str(authority / "ca.pem")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS,
                          env={"PATH": "/usr/bin", "LANCED_TOKEN": TOKENS["alice"]})  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = subprocess.run(command[:-2], capture_output=True, text=True, timeout=ANSWER_SECONDS, env={})
    assert done.returncode == 4 and "LANCED_CA" in done.stderr


@pytest.mark.parametrize("token", [None, "alice-alice-alicf"])
def test_without_a_right_token_nothing_is_answered_over_tls(
    remote: Lanced, peer_factory: Callable[..., Peer], token: str | None, expected: np.ndarray[Any, Any]
) -> None:
    with Client(remote.endpoint, token=token, peer_factory=peer_factory) as client:
        for request in ("hello", "submit", "put", "jobs", "shutdown", "nonsense"):
            with pytest.raises(Forbidden, match="token"):
                client.call(request)
    assert_serves(remote, peer_factory, expected)


def refusals(endpoint: str, ca: Path, peer_factory: Callable[..., Peer]) -> tuple[str, str]:
    """What the Python client and lancectl say of a daemon that is not to be trusted."""
    with Client(endpoint, token="a-secret-of-mine-0", ca=str(ca), peer_factory=peer_factory) as client:
        with pytest.raises(Forbidden) as raised:
            client.hello()
    done = subprocess.run([str(LANCECTL), "status", "--endpoint", endpoint, "--ca", str(ca)], capture_output=True,
                          text=True, timeout=ANSWER_SECONDS)  # fmt: skip
    assert done.returncode == 4
    return str(raised.value), done.stderr


def test_a_daemon_of_another_ca_is_not_trusted(
    remote: Lanced, peer_factory: Callable[..., Peer], tmp_path: Path, expected: np.ndarray[Any, Any]
) -> None:
    other = certificates.make(tmp_path / "other")
    for said in refusals(remote.endpoint, other / "ca.pem", peer_factory):
        assert "is not trusted" in said
    assert_serves(remote, peer_factory, expected)


def test_a_daemon_under_another_name_is_not_trusted(
    remote: Lanced, authority: Path, peer_factory: Callable[..., Peer]
) -> None:
    with socket.create_server(("127.0.0.3", 0)) as taken:
        port = taken.getsockname()[1]
    options = certificates.options(authority, authority / "127.0.0.1.pem")
    with Lanced(*options, endpoint=f"tls+tcp://0.0.0.0:{port}", token=TOKENS["alice"], is_ready=False) as daemon:
        daemon.endpoint = f"tls+tcp://127.0.0.1:{port}"
        daemon.wait_until_ready()
        for said in refusals(f"tls+tcp://127.0.0.3:{port}", authority / "ca.pem", peer_factory):
            assert "is not trusted" in said


def test_an_expired_certificate_is_not_trusted(authority: Path, peer_factory: Callable[..., Peer]) -> None:
    options = certificates.options(authority, certificates.make_expired(authority))
    with Lanced(*options, endpoint=f"tls+tcp://127.0.0.1:{free_port()}", is_ready=False) as daemon:
        deadline = time.monotonic() + ANSWER_SECONDS
        while "answers at" not in daemon.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        python, c = refusals(daemon.endpoint, authority / "ca.pem", peer_factory)
    assert "expired" in python
    assert "is not trusted" in c


def test_who_listens_and_says_nothing_is_given_up_after_the_silence_that_was_asked_for(authority: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connections wait in its queue
        endpoint = f"tls+tcp://127.0.0.1:{silent.getsockname()[1]}"
        done = subprocess.run([str(LANCECTL), "status", "--endpoint", endpoint, "--ca", str(authority / "ca.pem")],
                              env=os.environ | {"LANCED_SILENCE_SECONDS": "1"}, capture_output=True, text=True,
                              timeout=ANSWER_SECONDS)  # fmt: skip
    assert done.returncode == 3
    assert "somebody listens there, but has not answered for 1 seconds" in done.stderr


def test_plain_clients_at_a_tls_endpoint_learn_nothing_and_disturb_nobody(
    remote: Lanced, peer_factory: Callable[..., Peer], expected: np.ndarray[Any, Any]
) -> None:
    with Client(f"tcp://127.0.0.1:{port_of(remote)}", token=TOKENS["alice"], timeout=2) as client:
        with pytest.raises(LanceError):
            client.hello()
    assert_serves(remote, peer_factory, expected)


def test_an_oversized_piece_is_refused_and_an_oversized_message_ends_its_connection(
    remote: Lanced, authority: Path, peer_factory: Callable[..., Peer], expected: np.ndarray[Any, Any]
) -> None:
    with remote.client(peer_factory) as client, pytest.raises(BadRequest, match="piece"):
        client.call("put", {"piece": np.zeros((1 << 20) + 1, np.uint8)}, blob="put-too-large", bytes=3 << 20)
    with encrypted(remote, authority) as line:
        line.sendall(GREETING + struct.pack(">Q", 1 << 30) + bytes(4096))
        with contextlib.suppress(ConnectionResetError):
            while line.recv(4096):
                pass  # its greeting; then the end, not the silence of one that waits for the rest
    assert_serves(remote, peer_factory, expected)


def resident_bytes(daemon: Lanced) -> int:
    return int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()


def test_pieces_that_drip_take_no_room_and_no_time_of_others(
    remote: Lanced, authority: Path, peer_factory: Callable[..., Peer], expected: np.ndarray[Any, Any]
) -> None:
    before = resident_bytes(remote)
    with contextlib.ExitStack() as stack:
        lines = []
        for _ in range(50):
            lines.append(stack.enter_context(encrypted(remote, authority)))
            lines[-1].sendall(GREETING + struct.pack(">Q", 4 << 20))  # at once: who does not greet is hung up on
        for _ in range(3):
            for line in lines:
                line.sendall(bytes(100))
            assert_serves(remote, peer_factory, expected)
        assert resident_bytes(remote) - before < MOST_GROWTH_BYTES
    assert_serves(remote, peer_factory, expected)


@pytest.fixture
def many_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < 4 * IDLE:
        pytest.skip(f"a process may have no more than {before[1]} files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4 * IDLE, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("many_files")
def test_a_thousand_idle_connections_leave_a_good_client_served(
    remote: Lanced, authority: Path, peer_factory: Callable[..., Peer], expected: np.ndarray[Any, Any]
) -> None:
    """Half of them say nothing at all, half have shaken hands and greeted."""
    before = resident_bytes(remote)
    with contextlib.ExitStack() as stack:
        for _ in range(IDLE // 2):
            stack.enter_context(socket.create_connection(("127.0.0.1", port_of(remote)), timeout=ANSWER_SECONDS))
        for _ in range(IDLE // 2):
            stack.enter_context(encrypted(remote, authority)).sendall(GREETING)
        assert_serves(remote, peer_factory, expected)
        assert resident_bytes(remote) - before < MOST_GROWTH_BYTES
    assert_serves(remote, peer_factory, expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--endpoint", "tls+tcp://0.0.0.0:8471", "--token-file", "TOKEN"], "--cert FILE and --key FILE"),
        (["--endpoint", "tls+tcp://0.0.0.0:8471", "--cert", "CERT", "--key", "KEY"], "--tokens FILE"),
        (["--endpoint", "tcp://0.0.0.0:8471", "--token-file", "TOKEN"], "not a loopback address"),
        (["--endpoint", "tcp://10.0.0.1:8471", "--tokens", "TOKENS"], "not a loopback address"),
        (["--cert", "CERT", "--key", "KEY"], "are for a tls+tcp:// endpoint"),
        (["--tokens", "TOKENS", "--token-file", "TOKEN"], "give one of them"),
    ],
)
def test_what_would_let_strangers_in_does_not_start(
    authority: Path, tmp_path: Path, options: list[str], words: str
) -> None:
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("a-secret-of-mine-0\n")
    names = {"TOKEN": token, "TOKENS": certificates.write_tokens(tmp_path / "tokens"),
             "CERT": authority / "127.0.0.1.pem", "KEY": authority / "127.0.0.1.key"}  # fmt: skip
    command = [str(LANCED), "--model", str(DEMO_MODEL), *(str(names.get(option, option)) for option in options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.parametrize(("mode", "words"), [(0o640, "chmod 600"), (0o600, "must be PEM files")])
def test_a_key_that_others_can_read_or_that_is_none_is_refused(
    authority: Path, tmp_path: Path, mode: int, words: str
) -> None:
    key = tmp_path / "key"
    key.touch(mode=mode)
    key.chmod(mode)
    key.write_text("no key\n")
    command = [str(LANCED), "--model", str(DEMO_MODEL), "--lazy", "--endpoint", f"tls+tcp://127.0.0.1:{free_port()}",
               "--cert", str(authority / "127.0.0.1.pem"), "--key", str(key),
               "--tokens", str(certificates.write_tokens(tmp_path / "tokens"))]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    assert done.returncode == 1
    assert words in done.stderr


def test_lancectl_ca_keeps_its_keys_to_itself_and_makes_what_is_new_alone(tmp_path: Path) -> None:
    folder = certificates.make(tmp_path / "ca", "a.example,10.0.0.1")
    first = (folder / "ca.pem").read_bytes()
    certificates.make(folder, "b.example", "fd00::1")
    assert (folder / "ca.pem").read_bytes() == first
    assert folder.stat().st_mode & 0o777 == 0o700
    names = ["a.example", "b.example", "ca", "fd00::1"]
    assert sorted(file.name for file in folder.iterdir()) == sorted(f"{n}.{e}" for n in names for e in ("key", "pem"))
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in folder.glob("*.key"))
    for wrong in ("ca", "a/b", "-x", ".x", "a b", "x\nDNS.9=evil", ""):
        done = subprocess.run([str(LANCECTL), "ca", str(folder), wrong], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2, wrong
    (folder / "ca.key").unlink()
    done = subprocess.run([str(LANCECTL), "ca", str(folder), "c"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 5 and "has no ca.key" in done.stderr
