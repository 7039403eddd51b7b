"""Fixtures of the client's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lanced_client.transport import PynngPeer, SocketPeer


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/peer.ipc"


@pytest.fixture(params=[PynngPeer, SocketPeer], ids=["pynng", "socket"])
def peer_factory(request: pytest.FixtureRequest) -> Any:
    return request.param
