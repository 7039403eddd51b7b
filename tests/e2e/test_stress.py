"""Thirty-two clients that poll, cancel and hang up: the daemon lives, and no job is lost or done twice.

LANCED_STRESS_SECONDS: how long each test goes on, 5 by default."""

from __future__ import annotations

import os

import pytest

from lanced_process import Lanced
from stress import CLIENTS, Stress, busy_machine

pytestmark = pytest.mark.long_form
SECONDS = float(os.environ.get("LANCED_STRESS_SECONDS", "5"))
LOOPS_PER_CORE = 2


@pytest.mark.parametrize("load", [0, LOOPS_PER_CORE], ids=["idle machine", "busy machine"])
def test_clients_that_poll_cancel_and_hang_up_lose_no_job_and_end_no_daemon(load: int) -> None:
    with Lanced("--queue", str(2 * CLIENTS), "--results", str(2 * CLIENTS)) as daemon:
        stress = Stress(daemon)
        with daemon.client() as client:
            generation = client.hello().generation
        with busy_machine(load * (os.cpu_count() or 1)):
            stress.run(SECONDS)
        print(dict(stress.counts))
        assert stress.faults == []
        assert daemon.process.poll() is None
        with daemon.client() as client:
            assert client.hello().generation == generation
        assert "listening anew" not in daemon.log.read_text()
        assert stress.counts["done"] > 0 and stress.counts["cancelled"] > 0 and stress.counts["hung up"] > 0
