"""Daemons that programs start for themselves (nodes, demo, lancectl, a farm's worker) are started and ended alike."""

from __future__ import annotations

import re
from pathlib import Path

from lanced_client import starter

ROOT = Path(__file__).resolve().parents[2]
PLACES = {
    "lancectl": ROOT / "tools/lancectl/private_daemon.c",
    "Python": ROOT / "protocol/python/lanced_client/starter.py",
    "farm": ROOT / "tools/lance-farm/lance_farm/programs.py",
}


def seconds(place: str, name: str) -> float:
    found = re.search(rf"\b{name} = ([\d.]+)", PLACES[place].read_text())
    assert found, place
    return float(found[1])


def test_every_starter_has_its_daemon_end_with_it_and_cancel_its_jobs() -> None:
    for place, path in PLACES.items():
        text = path.read_text()
        assert all(f'"{word}"' in text for word in ("--until-eof", "--on-term", "cancel")), place


def test_every_starter_has_the_same_patience_with_an_end() -> None:
    assert {seconds(place, "END_SECONDS") for place in PLACES} == {starter.END_SECONDS}


def test_every_starter_has_the_same_patience_with_a_start_but_the_farms_which_waits_for_the_weights_too() -> None:
    assert seconds("lancectl", "START_SECONDS") == starter.START_SECONDS < seconds("farm", "START_SECONDS")
