"""Many jobs of all forms by clients that cancel, hang up and change models: a short form of `make soak`."""

from __future__ import annotations

from pathlib import Path

import soak
from lanced_process import Lanced

JOBS = 60


def test_every_job_of_a_mixed_crowd_ends_once_with_the_bytes_of_a_quiet_run(tmp_path: Path) -> None:
    with Lanced("--state", str(tmp_path / "state"), *soak.OPTIONS, models=soak.MODELS) as daemon:
        crowd = soak.Soak(daemon)
        crowd.run(JOBS)
    assert crowd.faults == []
    assert crowd.counts["ended"] == crowd.counts["done"] + crowd.counts["cancelled"] == JOBS
    assert crowd.counts["hung up"] and crowd.counts["submitted twice"]
