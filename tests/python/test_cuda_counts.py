"""tools/cuda_counts.py: what it makes of what the emulated card counted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools import cuda_counts  # noqa: E402


def counted(step: int, token: int, nodes_set: int = 0) -> list[dict[str, Any]]:
    """Counts at each wait, of steps and tokens with so many kernels; the first ones have others."""
    kernels = [5000] + [step] * (cuda_counts.STEPS - 2) + [7000] + [token] * (cuda_counts.TOKENS - 2) + [3]
    return [{"kernels": sum(kernels[: end + 1]), "nodes_set": nodes_set * end, "of": {"norm": end}}
            for end in range(len(kernels))]  # fmt: skip


def test_a_step_and_a_token_are_what_lies_between_their_last_two_waits() -> None:
    pieces = list(cuda_counts.of_pieces(counted(1166, 220)).values())
    assert [piece["kernels"] for piece in pieces] == [1166, 220]
    assert pieces[0]["of"] == {"norm": 1}
    assert not cuda_counts.faults(cuda_counts.of_pieces(counted(1200, 250)))


@pytest.mark.parametrize(("step", "token", "said"), [(1201, 250, "a step"), (1200, 251, "a token")])
def test_more_kernels_than_its_ceiling_are_a_fault(step: int, token: int, said: str) -> None:
    (fault,) = cuda_counts.faults(cuda_counts.of_pieces(counted(step, token)))
    assert fault.startswith(said)


def test_graphs_that_a_step_or_a_token_changes_are_a_fault() -> None:
    step, token = cuda_counts.faults(cuda_counts.of_pieces(counted(1166, 221, nodes_set=1)))
    assert step == "a step of 768 x 768 with guidance: 1 nodes set anew, at most 0 are wanted"
    assert token.startswith("a token") and "1 nodes set anew" in token


def test_another_number_of_waits_than_steps_and_tokens_is_told() -> None:
    with pytest.raises(SystemExit, match="waits for graphs"):
        cuda_counts.of_pieces(counted(1166, 220)[1:])
