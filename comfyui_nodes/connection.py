"""The handle that a Lance Model node hands on, and how it finds its daemon again.

A handle may outlive the daemon in ComfyUI's cache. So it is only a name: every use asks the
daemon who it is, and starts the daemon and loads the model again where that is needed.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from comfy.cli_args import args

from ..protocol.python.lanced_client import (
    Choice,
    Client,
    ConnectionFailed,
    Forbidden,
    LanceError,
    ModelInfo,
    default_endpoint,
)
from . import local_daemon

AUTOMATIC = "automatic"
_QUICK_SECONDS = 5.0  # for an answer that the whole prompt waits for
_NAME = f"ComfyUI at {socket.gethostname()}:{args.port}"  # each takes turns with the others
_PICTURES, _VIDEOS = "t2i", "t2v"  # tasks that stand for all that "automatic" may tell apart
_VIDEO_TASKS = ("t2v", "i2v", "video_edit", "x2t_video")
_OFFER_SECONDS = 2.0  # how long an answer about the offered models is good for the menu

_clients: dict[str, Client] = {}
_lock = threading.Lock()


def client_of(endpoint: str) -> Client:
    """The one client of an endpoint; "" is the default endpoint."""
    endpoint = endpoint.strip() or default_endpoint()
    with _lock:
        if endpoint not in _clients:
            _clients[endpoint] = Client(endpoint, name=_NAME)
        return _clients[endpoint]


def known_clients() -> list[Client]:
    """The clients of all endpoints that were used so far."""
    with _lock:
        return list(_clients.values())


@dataclass(frozen=True)
class ModelHandle:
    """A model of a daemon: what the LANCED_MODEL socket carries."""

    endpoint: str
    model: str  # a name, or AUTOMATIC: the daemon chooses for each task

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
        """Have the daemon load the model; what it holds then, in words. Where "automatic" stands for one model for
        pictures and another for videos, the node that needs one loads it. Blocks; LanceError if it cannot."""
        client = self.connect()
        name = self.model
        if name == AUTOMATIC:
            choices = client.automatic()
            if choices and choices[_PICTURES].model != choices[_VIDEOS].model:
                return _words_of_choices(choices)
            name = choices[_PICTURES].model if choices else client.hello().default_model
        daemon = client.hello()
        loaded = daemon.model
        if loaded is None or loaded.name != name:
            try:
                loaded = client.load(name)
            except Forbidden:  # the token is no admin's: the first job has it loaded
                return f"{name}: loaded by the first job"
        _Identity.of(self).resolved[loaded.name] = loaded.hash
        return _words_of(loaded, daemon.backend)

    def line(self) -> str | None:
        """What the daemon holds of this model now, in words. Asks only what is quick to answer; None: nothing."""
        try:
            daemon = self.client.hello(_QUICK_SECONDS)
            if daemon.model is None:
                return None
            if self.model == AUTOMATIC:
                choices = self.client.automatic()
                if choices and choices[_PICTURES].model != choices[_VIDEOS].model:
                    return _words_of_choices(choices)
        except LanceError:
            return None
        is_ours = self.model in (AUTOMATIC, daemon.model.name)
        return _words_of(daemon.model, daemon.backend) if is_ours else None

    def remark(self, task: str) -> str:
        """What is to be said of the model that "automatic" was for a task; "" if nothing."""
        if self.model != AUTOMATIC or task not in _VIDEO_TASKS:
            return ""
        try:
            choice = self.client.automatic().get(task)
        except LanceError:
            return ""
        return f"made with {choice.model}: {choice.why}" if choice and not choice.suits else ""

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
        if loaded is not None and is_ours and identity.resolved.get(loaded.name, loaded.hash) != loaded.hash:
            identity.revision += 1
            identity.resolved[loaded.name] = loaded.hash
        return f"revision {identity.revision}"


def _words_of(model: ModelInfo, backend: str) -> str:
    return f"{model.name}: {model.weight_bytes / 1e6:,.0f} MB in lanced, {backend}"


def _words_of_choices(choices: Mapping[str, Choice]) -> str:
    uses = {"pictures": choices[_PICTURES], "videos": choices[_VIDEOS]}
    return ";\n".join(f"{use}: {choice.model} ({choice.why})" for use, choice in uses.items())


@dataclass
class _Identity:
    """Which weights a handle stood for when it was last used, and how often that changed."""

    resolved: dict[str, str] = field(default_factory=dict)  # the weights' hash by the model's name
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
    """Names for the model menu: what the default endpoint's daemon offers, and what one of our own would."""
    if time.monotonic() - _offer.asked > _OFFER_SECONDS:
        names: list[str] = []
        try:
            with Client(timeout=0.3) as client:
                names = [model.name for model in client.models()]
        except LanceError:
            pass  # no daemon yet: the menu shows what a local one would be started with
        _offer.names = [AUTOMATIC, *dict.fromkeys([*names, *local_daemon.offered_models()])]
        _offer.asked = time.monotonic()
    return _offer.names
