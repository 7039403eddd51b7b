"""What an operator sees: lancectl top, and a log for programs."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time

from lanced_process import LANCECTL, LONG_REQUEST, REQUEST, Lanced


def test_top_tells_in_a_pipe_once_what_runs_and_what_waits() -> None:
    with Lanced() as daemon, daemon.client() as client:
        running = client.submit("t2i", **LONG_REQUEST)
        waiting = client.submit("t2i", **REQUEST)
        next(event for event in running.events() if event.event == "progress")
        told = daemon.lancectl("top").stdout
        assert "jobs    1 running, 1 queued, 0 done" in told
        lines = {line.split()[0]: line for line in told.splitlines() if line}
        assert "running" in lines[running.id]
        assert "queued" in lines[waiting.id]
        answer = json.loads(daemon.lancectl("top", "--json").stdout)
        assert [job["job"] for job in answer["jobs"]] == [running.id, waiting.id]
        assert (answer["stats"]["jobs"]["running"], answer["steps_per_second"] > 0) == (1, True)
        assert daemon.lancectl("top", "--once").stdout.startswith("lanced ")
        running.cancel()


def test_top_follows_on_a_terminal_and_leaves_it_as_it_was() -> None:
    with Lanced() as daemon:
        ours, its = pty.openpty()
        environment = os.environ | {"LANCED_ENDPOINT": daemon.endpoint}
        top = subprocess.Popen([LANCECTL, "top"], env=environment, stdin=its, stdout=its, stderr=its)
        os.close(its)
        shown = b""
        deadline = time.monotonic() + 60
        while shown.count(b"lanced ") < 2:  # two looks
            assert time.monotonic() < deadline
            shown += os.read(ours, 65536)
        top.send_signal(signal.SIGINT)
        while not shown.endswith(b"\033[?1049l"):
            shown += os.read(ours, 65536)
        assert top.wait(60) == 0
        assert shown.startswith(b"\033[?1049h")
        os.close(ours)


def test_the_log_is_an_object_a_line_where_that_is_asked_for() -> None:
    with Lanced("--log-json") as daemon, daemon.client() as client:
        client.generate("t2i", **REQUEST, job_id="fox")
        client.call("hello")
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(60) == 0
        lines = [json.loads(line) for line in daemon.log.read_text().splitlines()]
        assert {tuple(line) for line in lines} <= {("time", "level", "message"), ("time", "level", "job", "message")}
        of_the_job = [line["message"] for line in lines if line.get("job") == "fox"]
        assert of_the_job[0].startswith("started: t2i")
        assert of_the_job[-1].startswith("done in ")
        assert lines[-1]["message"] == "ended"
