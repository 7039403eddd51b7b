"""lanced with a journal while what it asks the system and nng for fails: some tens of the calls that `make faults`
fails one by one."""

from __future__ import annotations

import os

import pytest

import failing

pytestmark = pytest.mark.skipif("LANCED_BUILD" in os.environ, reason="a sanitizer wants to be loaded first")


def test_a_failed_call_is_said_as_such_or_costs_nothing_and_the_journal_stays_whole() -> None:
    with failing.Trial(failing.CALLS, ["t2i", "image_edit", "load"], tells_leaks=False) as trial:
        assert sum(trial.try_once(name, at) for name, at in trial.some_calls(45, seed=2)) > 30
        trial.see_that_it_ends()
        assert trial.wrong == []
        assert any(words.startswith("io: journal ") for words in trial.told)


def test_a_start_during_which_a_call_fails_ends_in_words_or_serves() -> None:
    with failing.Trial(failing.CALLS, ["t2i"], tells_leaks=False) as trial:
        assert sum(trial.try_start(site) for site in trial.find_start_sites()[:8]) == 8
        assert trial.wrong == []
