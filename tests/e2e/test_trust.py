"""Whom clients and daemon trust: folders of others, secrets that are none, text that steers a terminal."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lanced_client import BadRequest, Client, Unsupported
from lanced_client.endpoint import default_endpoint
from lanced_process import DEMO_MODEL, LANCECTL, LANCED, REQUEST, Lanced
from scripted_daemon import scripted_daemon

TOKEN = "open sesame, open sesame"
STEERING = "\x1b[2J\x9b31m\x7f\u202eevil\r\x07"  # clears, colours, turns around, goes back, rings


def run(program: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([str(program), *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
                          env={k: v for k, v in os.environ.items() if k != "LANCED_ENDPOINT"} | environment)


def steers_nothing(said: bytes) -> bool:
    text = said.decode()
    return not any((unicodedata.category(c) == "Cc" and c not in "\n\t") or c in "\u202e\u2066" for c in text)


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A short path: a socket's may have about 100 characters."""
    with tempfile.TemporaryDirectory(prefix="lanced-") as name:
        yield Path(name)


def make_open(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    folder.chmod(0o755)


def make_link(folder: Path) -> None:
    elsewhere = folder.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    folder.symlink_to(elsewhere)


def make_of_another_user(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    if os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(folder, 65534, 65534)


@pytest.mark.parametrize("make", [make_open, make_link, make_of_another_user])
def test_who_listens_in_a_folder_that_is_not_the_users_alone_gets_nothing(
    make: Any, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.delenv("LANCED_ENDPOINT", raising=False)
    make(runtime / "lanced")
    received: list[dict[str, Any]] = []

    def answer(envelope: dict[str, Any]) -> dict[str, Any]:
        received.append(envelope)
        return {"version": "0.1.0", "generation": "x"}

    with scripted_daemon(f"ipc://{runtime}/lanced/lanced.ipc", answer):
        done = run(LANCECTL, "status", LANCED_TOKEN=TOKEN)
        assert done.returncode == 4
        assert b"must be a folder of yours that nobody else can enter" in done.stderr
        with Client(token=TOKEN) as client, pytest.raises(Unsupported, match="that nobody else can enter"):
            client.hello()
    assert received == []


def test_without_a_runtime_folder_both_clients_look_in_tmp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere/at/all")
    monkeypatch.delenv("LANCED_ENDPOINT", raising=False)
    assert default_endpoint() == f"ipc:///tmp/lanced-{os.getuid()}/lanced.ipc"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", "/tmp")
        assert default_endpoint() == "ipc:///tmp/lanced/lanced.ipc"
    done = run(LANCECTL, "status")
    assert done.returncode == 0 or f"ipc:///tmp/lanced-{os.getuid()}/lanced.ipc".encode() in done.stderr


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_token_file_that_others_can_use_is_refused(mode: int, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text(f"{TOKEN}\n")
    secret.chmod(mode)
    done = run(LANCED, "--model", str(DEMO_MODEL), "--token-file", str(secret))
    assert done.returncode == 2
    assert b"chmod 600" in done.stderr
    assert TOKEN.encode() not in done.stderr


@pytest.mark.parametrize("token", ["open\x1bsesame, open sesame", "open\tsesame, open sesame", "open sesame \x7f open"])
def test_a_token_with_control_characters_is_refused(token: str, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text(f"{token}\n")
    secret.chmod(0o600)
    for done in (
        run(LANCED, "--model", str(DEMO_MODEL), "--token-file", str(secret)),
        run(LANCED, "--model", str(DEMO_MODEL), LANCED_TOKEN=token),
    ):
        assert done.returncode == 2
        assert b"without control characters" in done.stderr


@pytest.mark.parametrize("receipt", [STEERING, f'{{"prompt": "{STEERING[:2]}"', '{"prompt": "x\\u009b31m\\u202ey"}'])
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_show_prints_nothing_of_a_file_that_steers_a_terminal(receipt: str, form: list[str], tmp_path: Path) -> None:
    info = PngInfo()
    info.add(b"tEXt", b"lanced\0" + receipt.encode())
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "x.png", pnginfo=info)
    done = run(LANCECTL, "show", str(tmp_path / "x.png"), *form)
    assert done.returncode == 0
    assert steers_nothing(done.stdout)
    assert b"\\u001b" in done.stdout or b"\\u009b" in done.stdout


def test_nothing_that_a_daemon_says_steers_a_terminal(runtime: Path) -> None:
    endpoint = f"ipc://{runtime}/s"
    model = {"name": STEERING, "kind": STEERING, "tasks": [STEERING], "weight_bytes": 1, "path_hint": STEERING}

    def answer(envelope: dict[str, Any]) -> dict[str, Any]:
        hello = {"version": STEERING, "generation": STEERING, "backend": STEERING, "model": model, "models": [model]}
        if envelope["request"] == "stats":
            return hello | {"counters": {STEERING: STEERING}, STEERING: 7}
        if envelope["request"] == "cancel":
            return hello | {"ok": False, "error": {"code": "busy", "message": STEERING}}
        if envelope["request"] == "wait":
            text = {"event": "text", "seq": 1, "text": STEERING}
            return hello | {"events": [text, {"event": "done", "seq": 2}], "state": "done"}
        if envelope["request"] == "result":
            return hello | {"task": "x2t_image", "text": STEERING, "receipt": {"prompt": STEERING}}
        return hello

    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(runtime / "x.png")
    commands = [["status"], ["status", "--json"], ["models"], ["load", "x"], ["cancel", "x"]]
    commands += [["ask", str(runtime / "x.png"), "what?"], ["ask", str(runtime / "x.png"), "what?", "--json"]]
    with scripted_daemon(endpoint, answer):
        for command in commands:
            done = run(LANCECTL, *command, "--endpoint", endpoint)
            assert b"evil" in done.stdout + done.stderr, command
            assert steers_nothing(done.stdout), command
            assert steers_nothing(done.stderr), command
        with Client(endpoint) as client, pytest.raises(Exception, match="evil") as raised:
            client.cancel("x")
        assert steers_nothing(str(raised.value).encode())


def test_nothing_that_a_client_sends_steers_the_log(runtime: Path) -> None:
    with Lanced() as daemon, daemon.client() as client:
        with pytest.raises(BadRequest):
            client.submit(STEERING, **REQUEST)
        with pytest.raises(BadRequest):
            client.submit("t2i", **(REQUEST | {"noise_source": STEERING}))
        said = daemon.log.read_bytes()
    assert b"evil" in said
    assert steers_nothing(said)


def test_the_end_of_a_lanced_whose_folder_was_removed_leaves_its_successors_socket_alone(runtime: Path) -> None:
    folder = runtime / "x"
    folder.mkdir()
    endpoint = f"ipc://{folder}/lanced.ipc"
    with Lanced(endpoint=endpoint) as first:
        first.process.send_signal(signal.SIGSTOP)  # or it has its socket there again before the second one starts
        shutil.rmtree(folder)
        folder.mkdir()
        with Lanced(endpoint=endpoint) as second:
            first.process.send_signal(signal.SIGCONT)
            time.sleep(2.5)  # for the first one to notice
            first.process.terminate()
            assert first.process.wait(20) == 0
            with second.client() as client:
                assert client.hello().pid == second.process.pid
                assert client.generate("t2i", **REQUEST).pixels is not None
        assert "is not this lanced's any more (another program took it)" in first.log.read_text()


def test_a_socket_that_was_removed_is_there_again_and_gone_with_lanced(runtime: Path) -> None:
    path = runtime / "lanced.ipc"
    with Lanced(endpoint=f"ipc://{path}") as daemon:
        path.unlink()
        deadline = time.monotonic() + 10
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        with daemon.client() as client:
            assert client.hello().pid == daemon.process.pid
        daemon.process.terminate()
        assert daemon.process.wait(20) == 0
        assert [entry.name for entry in runtime.iterdir()] == ["lanced.ipc.lock"]
