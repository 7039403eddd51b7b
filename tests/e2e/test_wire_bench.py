"""tools/wire_bench.py, which ends `make bench`: it measures what it says, and leaves the daemon as it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from lanced_client import Client
from lanced_process import ROOT, Lanced


def test_the_benchmark_of_the_wire_measures_both_transports_and_leaves_nothing_behind(
    lanced: Lanced, client: Client
) -> None:
    command = [sys.executable, str(ROOT / "tools/wire_bench.py"), "--endpoint", lanced.endpoint, "--megabytes", "1"]
    done = subprocess.run(
        [*command, "--json"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "protocol/python")},
        check=True,
        capture_output=True,
        timeout=300,
    )
    figures = json.loads(done.stdout)
    assert set(figures) == {"socket", "pynng"}
    for measured in figures.values():
        assert set(measured) == {"hello_ms", "submit_wait_ms", "up_gb_per_s", "down_gb_per_s"}
        assert all(value > 0 for figure in measured.values() for value in figure.values())
        assert measured["hello_ms"]["best"] <= measured["hello_ms"]["median"]
        assert measured["up_gb_per_s"]["best"] >= measured["up_gb_per_s"]["median"]
    memory = client.stats()["memory"]
    assert (memory["queue_bytes"], client.stats()["jobs"]["queued"]) == (0, 0)


def test_another_tree_is_measured_beside_this_one() -> None:
    command = [sys.executable, str(ROOT / "tools/wire_bench.py"), "--start", "--beside", str(ROOT), "--megabytes", "1"]
    done = subprocess.run(
        [*command, "--json"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "protocol/python")},
        check=True,
        capture_output=True,
        timeout=300,
    )
    for measured in json.loads(done.stdout).values():
        for figure in measured.values():
            assert figure["beside"].keys() == figure.keys() - {"beside", "times_as_fast"}
            assert 0.2 < figure["times_as_fast"] < 5  # it is the same


def test_make_bench_ends_with_it() -> None:
    said = subprocess.run(["make", "-n", "bench"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert said.index("lance-bench") < said.index("bench-wire")
