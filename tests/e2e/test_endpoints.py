"""One lanced at several endpoints: the same daemon behind each of them."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import certificates
from certificates import TOKENS
from lanced_client import Client, LanceError
from lanced_process import ANSWER_SECONDS, DEMO_MODEL, LANCECTL, LANCED, REQUEST, Lanced, free_port


def test_one_daemon_serves_its_machine_by_ipc_and_others_by_tls(
    tmp_path: Path, expected: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LANCED_TOKEN", "LANCED_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    authority = certificates.make(tmp_path / "ca", "127.0.0.1")
    monkeypatch.setenv("LANCED_CA", str(authority / "ca.pem"))
    tls = f"tls+tcp://127.0.0.1:{free_port()}"
    options = certificates.options(authority, authority / "127.0.0.1.pem")
    with Lanced(*options, "--endpoint", tls) as daemon:
        with Client(daemon.endpoint) as near, Client(tls, token=TOKENS["alice"]) as far:
            assert near.hello().generation == far.hello().generation
            jobs = [client.submit("t2i", **REQUEST) for client in (near, far)]
            for job in jobs:
                pixels = job.result().pixels
                assert pixels is not None and np.array_equal(pixels, expected)
            near.submit("t2i", **REQUEST | {"num_inference_steps": 3}, job_id="of-the-owner")
            assert "of-the-owner" in [job["job"] for job in near.jobs()]
            assert "of-the-owner" not in [job["job"] for job in far.jobs()], "who sees what is the token's"
        with pytest.raises(LanceError, match="token"), Client(tls) as stranger:
            stranger.hello()
        told = subprocess.run([LANCECTL, "status"], env=os.environ | {"LANCED_ENDPOINT": daemon.endpoint},
                              capture_output=True, text=True, timeout=ANSWER_SECONDS)  # fmt: skip
        assert told.returncode == 0, told.stderr
        log = daemon.log.read_text()
        assert f"answers at {daemon.endpoint}" in log and f"answers at {tls}" in log


def test_each_socket_is_looked_after_and_both_go_with_the_daemon() -> None:
    with tempfile.TemporaryDirectory(prefix="lanced-") as folder, Lanced("--endpoint", f"ipc://{folder}/s") as daemon:
        second = Path(folder) / "s"
        first = Path(daemon.endpoint.removeprefix("ipc://"))
        for lost, other in ((first, second), (second, first)):
            lost.unlink()
            deadline = time.monotonic() + ANSWER_SECONDS
            while not lost.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            for path in (lost, other):
                with Client(f"ipc://{path}") as client:
                    assert client.hello().version
        daemon.process.terminate()
        assert daemon.process.wait(ANSWER_SECONDS) == 0
        assert not first.exists() and not second.exists()


@pytest.mark.parametrize(
    ("endpoints", "words"),
    [
        (["ipc:///tmp/a.ipc", "ipc:///tmp/a.ipc"], "is given twice"),
        ([f"ipc:///tmp/{i}.ipc" for i in range(5)], "at most 4"),
        (["ipc:///tmp/a.ipc", "tls+tcp://0.0.0.0:8471"], "--cert FILE and --key FILE"),
        (["ipc:///tmp/a.ipc", "tcp://0.0.0.0:8471"], "not a loopback address"),
    ],
)
def test_what_cannot_be_is_refused_in_words(endpoints: list[str], words: str) -> None:
    options = [word for endpoint in endpoints for word in ("--endpoint", endpoint)]
    done = subprocess.run([LANCED, "--model", DEMO_MODEL, *options], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and words in done.stderr
