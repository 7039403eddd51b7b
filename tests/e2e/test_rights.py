"""Named tokens on a real daemon: whose a job is, also after a restart; tokens read anew; where clients find theirs."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from certificates import TOKENS, write_tokens
from lanced_client import BadRequest, Client, Forbidden, LanceError, NotFound
from lanced_process import ANSWER_SECONDS, DEMO_MODEL, LANCECTL, LANCED, REQUEST, Lanced


@pytest.fixture(autouse=True)
def no_tokens_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LANCED_TOKEN", "LANCED_TOKEN_FILE", "LANCED_CA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return write_tokens(tmp_path / "tokens")


@pytest.fixture
def daemon(tokens: Path, tmp_path: Path) -> Iterator[Lanced]:
    with Lanced("--tokens", str(tokens), "--state", str(tmp_path / "state")) as daemon:
        yield daemon


def of(daemon: Lanced, name: str) -> Client:
    return Client(daemon.endpoint, token=TOKENS[name], timeout=ANSWER_SECONDS)


def history(client: Client) -> dict[str, str | None]:
    return {job["job"]: job["owner"] for job in client.call("history")[0]["jobs"]}


def listed(client: Client) -> dict[str, str | None]:
    return {job["job"]: job["owner"] for job in client.call("jobs")[0]["jobs"]}


def test_a_job_is_its_token_s_after_a_restart_too(daemon: Lanced, tmp_path: Path) -> None:
    with of(daemon, "alice") as alice:
        done = alice.submit("t2i", **REQUEST)
        pixels = done.result().pixels
        waits = alice.submit("t2i", **(REQUEST | {"num_inference_steps": 400, "width": 256, "height": 256}))
    daemon.process.kill()
    daemon.process.wait()
    daemon.start()
    both = {done.id: "alice", waits.id: "alice"}
    with of(daemon, "bob") as bob:
        assert listed(bob) == {}
        assert history(bob) == {}
        for request in ("wait", "result", "cancel"):
            for job in both:
                with pytest.raises(NotFound):
                    bob.call(request, job=job)
        with pytest.raises(Forbidden, match="another's"):
            bob.call("submit", job=waits.id, task="t2i", params=REQUEST)
        for job in both:
            bob.call("release", job=job)  # of what it does not know, which changes nothing
    with of(daemon, "ops") as ops:
        assert history(ops) == both
    with of(daemon, "alice") as alice:
        assert history(alice) == both
        _, tensors = alice.call("result", job=done.id)
        np.testing.assert_array_equal(tensors["pixels"], pixels)
        alice.call("cancel", job=waits.id)
    kept = [file for file in (tmp_path / "state").rglob("*") if file.is_file()]
    assert not any(secret.encode() in file.read_bytes() for secret in TOKENS.values() for file in kept)
    assert not any(secret in daemon.log.read_text() for secret in TOKENS.values())


def test_the_owner_of_the_socket_needs_no_token_and_a_wrong_one_is_refused(daemon: Lanced) -> None:
    with Client(daemon.endpoint) as owner, of(daemon, "alice") as alice:
        with alice.submit("t2i", **REQUEST) as job:
            job.result()
            assert listed(owner) == {job.id: "alice"}
        owner.load()
        with pytest.raises(Forbidden, match="of \"alice\" may not do this"):
            alice.load()
    with Client(daemon.endpoint, token="alice-alice-alicf") as stranger, pytest.raises(Forbidden, match="is wrong"):
        stranger.hello()


def said_anew(daemon: Lanced, words: str) -> None:
    before = daemon.log.read_text().count(words)
    daemon.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + ANSWER_SECONDS
    while daemon.log.read_text().count(words) == before:
        assert time.monotonic() < deadline and daemon.process.poll() is None
        time.sleep(0.02)


def test_tokens_are_read_anew_at_sighup(daemon: Lanced, tokens: Path) -> None:
    with of(daemon, "bob") as bob:
        bob.hello()
        tokens.write_text("alice alice-alice-alice\nalice2 short\n")
        said_anew(daemon, "line 2: secret: the token must have 16")
        bob.hello()
        tokens.write_text("alice alice-alice-alice\n")
        tokens.chmod(0o640)
        said_anew(daemon, "chmod 600")
        bob.hello()
        tokens.chmod(0o600)
        said_anew(daemon, "were read anew")
        with pytest.raises(Forbidden):
            bob.hello()
    with of(daemon, "alice") as alice:
        alice.hello()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_lanced_does_not_start_with_tokens_that_others_can_use(tokens: Path, mode: int) -> None:
    tokens.chmod(mode)
    done = subprocess.run([str(LANCED), "--model", str(DEMO_MODEL), "--lazy", "--tokens", str(tokens), "--endpoint",
                           f"ipc://{tokens}.ipc"], capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.returncode == 1
    assert "chmod 600" in done.stderr


def lancectl(daemon: Lanced, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(LANCECTL), *arguments, "--endpoint", daemon.endpoint], env=os.environ | environment,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)  # fmt: skip


def test_clients_find_their_token_in_a_file_that_is_theirs_alone(
    daemon: Lanced, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    mine.touch(mode=0o600)
    mine.write_text(f"{TOKENS['bob']}\n")
    with of(daemon, "alice") as alice, alice.submit("t2i", **REQUEST) as job:
        job.result()
        refused = lancectl(daemon, "cancel", job.id, LANCED_TOKEN_FILE=str(mine))
        assert refused.returncode == 4 and "is not known" in refused.stderr
        assert "no jobs" in lancectl(daemon, "jobs", LANCED_TOKEN_FILE=str(mine)).stdout
        assert job.id in lancectl(daemon, "jobs", LANCED_TOKEN_FILE=str(mine), LANCED_TOKEN=TOKENS["ops"]).stdout
    refused = lancectl(daemon, "shutdown", LANCED_TOKEN_FILE=str(mine))
    assert refused.returncode == 4 and "an admin" in refused.stderr
    monkeypatch.setenv("LANCED_TOKEN_FILE", str(mine))
    with Client(daemon.endpoint) as bob, pytest.raises(Forbidden, match="of \"bob\""):
        bob.call("shutdown")
    mine.chmod(0o644)
    assert "chmod 600" in lancectl(daemon, "jobs", LANCED_TOKEN_FILE=str(mine)).stderr
    with pytest.raises(BadRequest, match="chmod 600"):
        Client(daemon.endpoint)
    monkeypatch.setenv("LANCED_TOKEN_FILE", str(tmp_path / "none"))
    assert "No such file" in lancectl(daemon, "jobs").stderr
    with pytest.raises(LanceError, match="No such file"):
        Client(daemon.endpoint)
