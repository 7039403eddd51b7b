"""`lancectl metrics`: what Prometheus reads of a daemon that has done some jobs."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from lanced_client import Client
from lanced_process import Lanced

STEPS = 3


@pytest.fixture
def text(client: Client, lanced: Lanced) -> str:
    """The metrics right after a picture of STEPS steps."""
    client.generate("t2i", prompt="a large red circle on the left on a blue background", num_inference_steps=STEPS)
    printed = lanced.lancectl("metrics")
    assert printed.returncode == 0, printed.stderr
    return printed.stdout


def value(text: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found, name
    return float(found[1])


def test_metrics_count_what_stats_counts(client: Client, text: str) -> None:
    stats = client.stats()
    assert value(text, "lanced_jobs_done_total") == stats["jobs"]["done"] > 0
    assert value(text, "lanced_model_loads_total") == stats["loads"]
    assert value(text, 'lanced_requests_total{request="submit"}') == stats["requests"]["submit"]
    assert value(text, 'lanced_memory_bytes{what="weight_bytes"}') == stats["memory"]["weight_bytes"]


def test_histograms_count_every_job_and_step_and_their_buckets_never_fall(text: str) -> None:
    jobs = value(text, 'lanced_job_run_seconds_count{task="t2i"}')
    assert jobs == value(text, 'lanced_job_queue_seconds_count{task="t2i"}') >= 1
    steps = value(text, 'lanced_job_step_seconds_count{stage="denoise"}')
    assert steps >= STEPS * jobs
    assert value(text, 'lanced_job_step_seconds_sum{stage="denoise"}') <= value(text, "lanced_busy_seconds_total")
    pattern = r'^lanced_job_step_seconds_bucket\{stage="denoise",le="[^"]+"\} (\d+)$'
    buckets = [float(count) for count in re.findall(pattern, text, re.MULTILINE)]
    assert buckets == sorted(buckets) and buckets[-1] == steps


def test_promtool_finds_nothing_wrong_with_them(text: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not there: Debian's package prometheus has it")
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
