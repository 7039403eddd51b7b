"""A program's own daemon, as the demo, the nodes and anybody's Python start it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lanced_client import Client, ConnectionFailed
from lanced_client.starter import OwnDaemon, daemon_answers
from lanced_process import DEMO_MODEL, LANCED


@pytest.fixture
def endpoint() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="lanced-") as folder:
        yield f"ipc://{folder}/lanced.ipc"


def test_a_daemon_of_ones_own_answers_ends_when_told_and_leaves_its_log_to_the_next(
    endpoint: str, tmp_path: Path
) -> None:
    log = tmp_path / "logs/lanced.log"
    for generation in range(2):
        daemon = OwnDaemon(LANCED, endpoint, ["--model", str(DEMO_MODEL), "--lazy"], log)
        daemon.ready()
        with Client(endpoint) as client:
            assert client.hello().version
        assert daemon.is_running() and daemon_answers(endpoint)
        daemon.end()
        assert not daemon.is_running() and not daemon_answers(endpoint)
        assert [path.name for path in sorted(log.parent.iterdir())] == ["lanced.log", "lanced.log.1"][: generation + 1]


def test_a_daemon_that_ends_while_it_starts_says_why(endpoint: str, tmp_path: Path) -> None:
    daemon = OwnDaemon(LANCED, endpoint, ["--model", str(tmp_path / "none")], tmp_path / "log")
    with pytest.raises(ConnectionFailed, match="ended with status 2 .*none: No such file"):
        daemon.ready()
