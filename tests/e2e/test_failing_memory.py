"""lanced while its allocations fail: some tens of the places that `make faults` tries."""

from __future__ import annotations

import os

import pytest

import failing

pytestmark = pytest.mark.skipif("LANCED_BUILD" in os.environ, reason="a sanitizer's build has its own allocator")


def test_a_failed_allocation_is_said_as_such_or_costs_nothing_and_the_next_job_is_right() -> None:
    with failing.Trial() as trial:
        assert sum(trial.try_once(name, at) for name, at in trial.some_calls(84, seed=4)) > 60
        trial.see_that_nothing_leaked()
        assert trial.wrong == []
        assert trial.leaks() == trial.restarts == 0
        assert any(words.startswith("no_memory: ") for words in trial.told)
