"""lanced and lancectl where memory or threads are short: a few of the levels of tests/support/limits.py."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import limits
from lanced_process import LANCED, Lanced

TASKS = [0, 6]  # a picture, and a question about a clip


@pytest.fixture(scope="module", autouse=True)
def without_sanitizers() -> None:
    if b"__asan_init" in LANCED.read_bytes() or b"__tsan_init" in LANCED.read_bytes():
        pytest.skip("a sanitizer needs terabytes of address space")


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A short path: a socket's may have about 100 characters."""
    with tempfile.TemporaryDirectory(prefix="lanced-") as name:
        yield Path(name)


@pytest.mark.parametrize("mebibytes", [50, 70, 90, 110, 150])
def test_lanced_in_little_address_space_serves_or_says_why_not(mebibytes: int, folder: Path) -> None:
    wanted = [limits.tasks(folder)[i] for i in TASKS]
    assert limits.daemon_under(limits.address_space(mebibytes), wanted, folder).wrong == []


@pytest.mark.parametrize("most", [1, 6, 8, 11, 13, 16, 17])
def test_lanced_with_few_threads_serves_or_says_why_not(most: int, folder: Path) -> None:
    if not limits.can_limit_processes():
        pytest.skip("no control group of processes can be made here")
    wanted = [limits.tasks(folder)[i] for i in TASKS]
    with limits.processes(most) as prepare:
        assert limits.daemon_under(prepare, wanted, folder).wrong == []


@pytest.mark.parametrize("most", [1, 7, 11, 13, 15, 40])
def test_lancectl_with_few_threads_does_its_job_or_says_why_not(most: int, lanced: Lanced, folder: Path) -> None:
    if not limits.can_limit_processes():
        pytest.skip("no control group of processes can be made here")
    wanted = [limits.tasks(folder)[i] for i in TASKS]
    with limits.processes(most) as prepare:
        assert limits.clients_under(prepare, wanted, lanced).wrong == []


@pytest.mark.parametrize("mebibytes", [150, 230, 270, 310, 400])
def test_lancectl_in_little_address_space_does_its_job_or_says_why_not(
    mebibytes: int, lanced: Lanced, folder: Path
) -> None:
    wanted = [limits.tasks(folder)[i] for i in TASKS]
    assert limits.clients_under(limits.address_space(mebibytes), wanted, lanced).wrong == []
