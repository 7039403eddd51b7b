"""When a daemon is gone, silent, or back: one rule (PROTOCOL.md), the same for every client."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lanced_client import Client
from lanced_process import LANCECTL, ROOT, SLOWER, Lanced
from relay import Relay

# Polls as the ComfyUI nodes do, and says how it ended with lancectl's exit codes.
PYTHON_CLIENT = """
import sys
from lanced_client import Client, ConnectionFailed, JobLost, transport
endpoint, peer, output, steps = sys.argv[1:]
try:
    with Client(endpoint, peer_factory=getattr(transport, peer)) as client:
        job = client.submit("t2i", prompt="a red circle", width=256, height=256, num_inference_steps=int(steps), seed=5)
        while job.ended is None:
            job.poll(0.05)
        open(output, "wb").write(job.result().pixels.tobytes())
except JobLost as error:
    sys.exit(print(error, file=sys.stderr) or 4)
except ConnectionFailed as error:
    sys.exit(print(error, file=sys.stderr) or 3)
"""


def lancectl(endpoint: str, output: Path, steps: int) -> list[str]:
    return [str(LANCECTL), "t2i", "a red circle", "--size", "256x256", "--steps", str(steps), "--seed", "5", "-q",
            "--endpoint", endpoint, "-o", f"{output}.png"]  # fmt: skip


def python_over(peer: str) -> Callable[[str, Path, int], list[str]]:
    return lambda endpoint, output, steps: [
        sys.executable, "-c", PYTHON_CLIENT, endpoint, peer, str(output), str(steps)
    ]  # fmt: skip


CLIENTS = {
    "lancectl": lancectl,
    "Python over pynng": python_over("PynngPeer"),
    "Python over its own transport": python_over("SocketPeer"),
}
DONE, GONE, LOST = 0, 3, 4
QUICK, LONG = 40, 1000  # steps


class Followers:
    """Each of CLIENTS with a job of its own, under way."""

    def __init__(self, endpoint: str, folder: Path, steps: int, silence_seconds: int | None = None) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT / "protocol/python")}
        if silence_seconds is not None:
            environment["LANCED_SILENCE_SECONDS"] = str(silence_seconds)
        self._processes = {
            name: subprocess.Popen(
                command(endpoint, folder / str(number), steps), env=environment, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )
            for number, (name, command) in enumerate(CLIENTS.items())
        }  # fmt: skip

    def have_not_given_up(self) -> bool:
        return all(process.poll() in (None, DONE) for process in self._processes.values())

    def ends(self, seconds: float) -> tuple[dict[str, int], str]:
        """How each ended, and all that they said."""
        deadline = time.monotonic() + seconds * SLOWER
        said = ""
        try:
            for process in self._processes.values():
                said += process.communicate(timeout=max(0.1, deadline - time.monotonic()))[1]
        except subprocess.TimeoutExpired:
            pass  # its code is None then
        finally:
            for process in self._processes.values():
                if process.poll() is None:
                    process.kill()
                    said += "killed by the test; "
        return {name: process.returncode for name, process in self._processes.items()}, said


def all_of(code: int) -> dict[str, int]:
    return dict.fromkeys(CLIENTS, code)


def wait_for_jobs(client: Client, count: int) -> None:
    """Until so many jobs were submitted."""
    deadline = time.monotonic() + 60 * SLOWER
    while client.stats()["jobs"]["submitted"] < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_daemon_is_told_by_every_client_and_by_none_before_three_seconds(tmp_path: Path) -> None:
    with Lanced() as daemon, daemon.client() as client:
        followers = Followers(daemon.endpoint, tmp_path, LONG)
        wait_for_jobs(client, len(CLIENTS))
        daemon.process.kill()
        daemon.process.wait()
        time.sleep(1.5)
        assert followers.have_not_given_up()
        ends, said = followers.ends(15)
    assert ends == all_of(GONE), said
    assert said.count("went away") == len(CLIENTS)
    assert said.count("nobody has listened there for 3 s") == len(CLIENTS)


def test_a_daemon_that_is_stopped_for_a_while_is_waited_for_by_every_client(tmp_path: Path) -> None:
    with Lanced() as daemon, daemon.client() as client:
        followers = Followers(daemon.endpoint, tmp_path, QUICK)
        wait_for_jobs(client, len(CLIENTS))
        daemon.process.send_signal(signal.SIGSTOP)
        time.sleep(8)
        daemon.process.send_signal(signal.SIGCONT)
        ends, said = followers.ends(60)
        assert ends == all_of(DONE), said
        assert client.stats()["jobs"]["submitted"] == len(CLIENTS)


def test_a_daemon_that_stays_silent_is_given_up_in_words_after_the_limit_that_is_set(tmp_path: Path) -> None:
    with Lanced() as daemon, daemon.client() as client:
        followers = Followers(daemon.endpoint, tmp_path, LONG, silence_seconds=2)
        wait_for_jobs(client, len(CLIENTS))
        daemon.process.send_signal(signal.SIGSTOP)
        ends, said = followers.ends(30)
        daemon.process.send_signal(signal.SIGCONT)
    assert ends == all_of(GONE), said
    assert said.count("is it stopped?") == len(CLIENTS)


def test_a_socket_whose_name_is_away_for_a_moment_makes_no_client_give_up(tmp_path: Path) -> None:
    with Lanced() as daemon, daemon.client() as client, Relay(daemon.endpoint) as relay:
        followers = Followers(relay.endpoint, tmp_path, QUICK)
        wait_for_jobs(client, len(CLIENTS))
        relay.vanish()
        time.sleep(2)
        relay.appear()
        ends, said = followers.ends(60)
        assert ends == all_of(DONE), said
        assert client.stats()["jobs"]["submitted"] == len(CLIENTS)


def test_a_restarted_daemon_has_lost_the_job_and_every_client_says_so(tmp_path: Path) -> None:
    with Lanced() as daemon, daemon.client() as client:
        followers = Followers(daemon.endpoint, tmp_path, LONG)
        wait_for_jobs(client, len(CLIENTS))
        daemon.process.kill()
        daemon.process.wait()
        daemon.start()
        ends, said = followers.ends(30)
    assert ends == all_of(LOST), said
    assert said.count("was restarted") == len(CLIENTS)


@pytest.mark.parametrize("trouble", [pytest.param("late", marks=pytest.mark.deep), "lost"])
def test_a_submit_whose_answer_is_late_or_lost_makes_one_job(trouble: str, tmp_path: Path) -> None:
    with Lanced() as daemon, daemon.client() as client, Relay(daemon.endpoint) as relay:
        for number, (name, command) in enumerate(CLIENTS.items()):
            before = client.stats()["requests"]["hello"]
            process = subprocess.Popen(
                command(relay.endpoint, tmp_path / str(number), QUICK), stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                env=os.environ | {"PYTHONPATH": str(ROOT / "protocol/python")},
            )  # fmt: skip
            while client.stats()["requests"]["hello"] == before:
                assert process.poll() is None, name
            relay.hold_answers()  # before submit's, or that of hello with it
            if trouble == "lost":
                time.sleep(0.5)
                relay.vanish()
                relay.appear()
                relay.let_answers_flow()
            else:
                time.sleep(7)
                relay.let_answers_flow()
            _, said = process.communicate(timeout=60 * SLOWER)
            assert process.returncode == DONE, f"{name}: {said}"
            assert client.stats()["jobs"]["submitted"] == number + 1
