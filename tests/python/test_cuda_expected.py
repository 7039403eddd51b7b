"""tools/cuda_expected.py: the bounds that follow from counts and published rates."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools.cuda_expected import CARDS, Counted, expected, step_seconds, token_seconds, unused  # noqa: E402

NOW = Counted(121, 220, 1166)


def test_a_token_is_bound_by_reading_until_its_instructions_take_longer() -> None:
    card = CARDS["H100 SXM"]
    token, reading = token_seconds(card, NOW)
    assert token == pytest.approx(reading + NOW.token_kernels * 1e-6)
    assert token_seconds(card, Counted(1000, 220, 1166))[0] > 1.5 * token


def test_a_step_is_longer_than_its_products_at_the_share_of_the_peak_that_is_taken_on_trust() -> None:
    for card in CARDS.values():
        products = 2 * 4608 * 36 * 2048 * (2 * 2048 + 512 + 3 * 11008) / (0.7 * card.tflops * 1e12)
        assert products < step_seconds(card, NOW) < 1.5 * products
        assert step_seconds(card, NOW, decodes=False) < step_seconds(card, NOW)


def test_every_card_stands_in_the_table_and_in_the_other_those_that_have_more() -> None:
    assert [line.split(" | ")[0] for line in expected(NOW)[2:]] == [f"| {name}" for name in CARDS]
    assert [line.split(" | ")[0] for line in unused(NOW)[2:]] == ["| H100 SXM", "| B200", "| RTX 5090"]
