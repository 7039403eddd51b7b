"""The handle that a Lance Model node hands on, and how it finds its daemon again.

A handle may outlive the daemon in ComfyUI's cache. So it is only a name: every use asks the
daemon who it is, and starts the daemon and loads the model again where that is needed.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from ..protocol.python.lanced_client import Client, ConnectionFailed, LanceError, default_endpoint
from . import local_daemon

AUTOMATIC = "automatic"
_QUICK_SECONDS = 5.0  # for an answer that the whole prompt waits for
_OFFER_SECONDS = 2.0  # how long an answer about the offered models is good for the menu

_clients: dict[str, Client] = {}
_lock = threading.Lock()


def client_of(endpoint: str) -> Client:
    """The one client of an endpoint; "" is the default endpoint."""
    endpoint = endpoint.strip() or default_endpoint()
    with _lock:
        if endpoint not in _clients:
            _clients[endpoint] = Client(endpoint)
        return _clients[endpoint]


def known_clients() -> list[Client]:
    """The clients of all endpoints that were used so far."""
    with _lock:
        return list(_clients.values())


@dataclass(frozen=True)
class ModelHandle:
    """A model of a daemon: what the LANCE_MODEL socket carries."""

    endpoint: str
    model: str  # a name, or AUTOMATIC

    @property
    def name_to_ask_for(self) -> str | None:
        """For a request: None is the daemon's loaded model, else its default one."""
        return None if self.model == AUTOMATIC else self.model

    @property
    def client(self) -> Client:
        return client_of(self.endpoint)

    def connect(self) -> Client:
        """A client whose daemon runs; starts it if that can be done. LanceError says why not."""
        client = self.client
        try:
            client.hello()
        except ConnectionFailed:
            local_daemon.start(client.endpoint)
            client.hello()
        return client

    def load(self) -> str:
        """Have the daemon load the model; what it holds then, in words. Blocks while it loads; LanceError if it
        cannot."""
        client = self.connect()
        daemon = client.hello()
        loaded = daemon.model
        if loaded is None or self.model not in (AUTOMATIC, loaded.name):
            loaded = client.load(self.name_to_ask_for)
        _Identity.of(self).resolved = loaded.hash
        return f"{loaded.name}: {loaded.weight_bytes / 1e6:,.0f} MB in lanced, {daemon.backend}"

    def fingerprint(self) -> str:
        """Changes when the daemon is seen to have other weights under this handle than those last used.

        Asks only what is quick to answer and starts nothing: a daemon that is down, or has the model not loaded,
        says nothing about the weights, and what ComfyUI has cached stays good.
        """
        identity = _Identity.of(self)
        try:
            loaded = self.client.hello(_QUICK_SECONDS).model
        except LanceError:
            loaded = None
        is_ours = loaded is not None and self.model in (AUTOMATIC, loaded.name)
        if loaded is not None and is_ours and identity.resolved not in ("", loaded.hash):
            identity.revision += 1
            identity.resolved = loaded.hash
        return f"revision {identity.revision}"


@dataclass
class _Identity:
    """Which weights a handle stood for when it was last used, and how often that changed."""

    resolved: str = ""
    revision: int = 0

    @staticmethod
    def of(handle: ModelHandle) -> _Identity:
        return _identities.setdefault(handle, _Identity())


_identities: dict[ModelHandle, _Identity] = {}


@dataclass
class _Offer:
    names: list[str] = field(default_factory=list)
    asked: float = float("-inf")


_offer = _Offer()


def offered_models() -> list[str]:
    """Names for the model menu: what the default endpoint's daemon offers, and what this machine has on disk."""
    if time.monotonic() - _offer.asked > _OFFER_SECONDS:
        names: list[str] = []
        try:
            with Client(timeout=0.3) as client:
                names = [model.name for model in client.models()]
        except LanceError:
            pass  # no daemon yet: the menu shows what a local one would be started with
        _offer.names = [AUTOMATIC, *dict.fromkeys([*names, *local_daemon.find_models()])]
        _offer.asked = time.monotonic()
    return _offer.names
