"""One lanced with the demo model for all tests that leave it as they found it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from lanced_client import Client
from lanced_client.transport import PynngPeer, SocketPeer
from lanced_process import LANCED, REQUEST, Lanced


@pytest.fixture(scope="session")
def lanced() -> Iterator[Lanced]:
    if not LANCED.exists():
        pytest.fail(f"{LANCED} is missing: run make first")
    with Lanced() as daemon, daemon.client() as client:
        client.load()
        yield daemon


@pytest.fixture(params=[PynngPeer, SocketPeer], ids=["pynng", "socket"])
def peer_factory(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def client(lanced: Lanced) -> Iterator[Client]:
    with lanced.client() as client:
        yield client


@pytest.fixture(scope="session")
def expected(lanced: Lanced) -> np.ndarray[Any, Any]:
    """The pixels of REQUEST, made before any test troubled the daemon."""
    with lanced.client() as client:
        pixels = client.generate("t2i", **REQUEST).pixels
    assert pixels is not None
    return pixels
