"""lanced and lancectl where memory or threads are short: a few of the levels of tests/support/limits.py."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import limits
from lanced_client import NoMemory, TooLarge
from lanced_process import LANCED, REQUEST, Lanced

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


def own_memory_group() -> Path | None:
    """Of the hierarchy of control groups that limits memory here, the group of this process."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for _, mount, kind, options, *_ in mounts:
            is_older = kind == "cgroup" and "memory" in controllers.split(",") and "memory" in options.split(",")
            is_unified = kind == "cgroup2" and not controllers and Path(mount + path, "memory.max").exists()
            if is_older or is_unified:
                return Path(mount + path)
    return None


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group with 300 MiB of memory, and one in it without a limit of its own."""
    own = own_memory_group()
    outer = own / f"lanced-test-{os.getpid()}" if own else Path("/nowhere")
    try:
        (outer / "inner").mkdir(parents=True)
    except OSError:
        pytest.skip("no control group of memory can be made here")
    limit = outer / ("memory.max" if (outer / "memory.max").exists() else "memory.limit_in_bytes")
    if not limit.exists():
        pytest.skip("control groups that are made here limit no memory")
    limit.write_text(str(300 << 20))
    yield outer / "inner"
    for group in (outer / "inner", outer):
        for _ in range(100):  # what has ended may take a moment to leave
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.05)


def test_a_job_too_large_for_the_group_that_lanced_lies_in_is_refused_not_killed(small_group: Path) -> None:
    daemon = Lanced()
    join = 'echo $$ > "$0" && exec "$@"'
    daemon.command = ["sh", "-c", join, str(small_group / "cgroup.procs"), *daemon.command]
    with daemon, daemon.client() as client:
        client.load()
        assert 0 < client.stats()["memory"]["job_limit_bytes"] < 300 << 20
        with pytest.raises(TooLarge, match="the limit is"):
            client.generate("t2v", **(REQUEST | {"width": 848, "height": 480, "num_frames": 121}))
        assert client.generate("t2i", **REQUEST).pixels is not None


def test_a_job_that_finds_no_memory_says_so_and_the_next_one_works() -> None:
    """Admission is told that there is enough, so that the allocations themselves fail."""
    daemon = Lanced("--memory", "64G")
    limit = 'ulimit -v "$0" && exec "$@"'
    daemon.command = ["sh", "-c", limit, str(250 << 10), *daemon.command]
    with daemon, daemon.client() as client:
        expected = client.generate("t2i", **REQUEST).pixels
        with pytest.raises(NoMemory):
            client.encode(np.zeros((5, 1152, 1152, 3), np.uint8))
        np.testing.assert_array_equal(client.generate("t2i", **REQUEST).pixels, expected)
