"""What a job tells while it runs, and what it leaves: plain data classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .latent_shape import CELL_PIXELS, LATENT_CHANNELS


def _known_fields(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in kind.__dataclass_fields__}


@dataclass(frozen=True)
class Event:
    """An event of a job. One this package does not know arrives as a plain Event."""

    sequence: int
    event: str


@dataclass(frozen=True)
class Queued(Event):
    position: int = 0


@dataclass(frozen=True)
class Started(Event):
    pass


@dataclass(frozen=True)
class Progress(Event):
    stage: str = ""
    step: int = 0
    steps: int = 0  # 0: unknown
    total_step: int = 0
    total_steps: int = 0  # over the whole job; 0: unknown
    eta_seconds: float | None = None
    step_seconds: float | None = None


@dataclass(frozen=True)
class Preview(Event):
    pixels: np.ndarray[Any, Any] | None = None  # u8 [frames, height, width, 3]; None: too old, no longer kept


@dataclass(frozen=True)
class Text(Event):
    text: str = ""


@dataclass(frozen=True)
class Paused(Event):
    """Other jobs go first; it goes on by itself."""


@dataclass(frozen=True)
class Done(Event):
    pass


@dataclass(frozen=True)
class Failed(Event):
    code: str = "internal"
    message: str = ""


@dataclass(frozen=True)
class CancelledEvent(Event):
    pass


ENDINGS = (Done, Failed, CancelledEvent)

_BY_NAME: dict[str, type[Event]] = {
    "queued": Queued,
    "paused": Paused,
    "started": Started,
    "progress": Progress,
    "preview": Preview,
    "text": Text,
    "done": Done,
    "failed": Failed,
    "cancelled": CancelledEvent,
}


def event_of(values: Mapping[str, Any], tensors: Mapping[str, np.ndarray[Any, Any]]) -> Event:
    """The event that an answer to `wait` holds."""
    kind = _BY_NAME.get(values.get("event", ""), Event)
    known = _known_fields(kind, values)
    if kind is Preview:
        known["pixels"] = tensors.get(f"preview.{values['sequence']}")
    return kind(**known)


@dataclass(frozen=True)
class ModelInfo:
    """The model a daemon has loaded."""

    name: str
    kind: str = ""
    hash: str = ""
    tasks: tuple[str, ...] = ()
    weight_bytes: int = 0
    hidden_size: int = 0
    layers: int = 0
    latent_channels: int = LATENT_CHANNELS
    spatial_stride: int = CELL_PIXELS
    load_seconds: float = 0.0

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> ModelInfo:
        known = _known_fields(cls, values)
        known["tasks"] = tuple(known.get("tasks", ()))
        return cls(**known)


@dataclass(frozen=True)
class OfferedModel:
    """A model that the daemon was told about and can load."""

    name: str
    kind: str | None = None  # None, like no tasks: not known before it has been loaded once
    tasks: tuple[str, ...] = ()
    path_hint: str = ""
    loaded: bool = False

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> OfferedModel:
        known = _known_fields(cls, values)
        known["tasks"] = tuple(known.get("tasks") or ())
        return cls(**known)


@dataclass(frozen=True)
class Choice:
    """What "automatic" stands for in a task."""

    model: str
    why: str
    suits: bool = True  # it was made for such a task

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Choice:
        return cls(**_known_fields(cls, values))


@dataclass(frozen=True)
class Hello:
    """Who answers at the endpoint."""

    version: str
    protocol: int
    generation: str  # random, another for every start of the daemon
    backend: str = ""
    build: str = ""  # the engine's sources and compiler
    pid: int = 0
    limits: Mapping[str, Any] = field(default_factory=dict)
    model: ModelInfo | None = None  # the loaded one
    default_model: str | None = None
    shutting_down: bool = False

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Hello:
        known = _known_fields(cls, values)
        known["model"] = ModelInfo.of(known["model"]) if known.get("model") else None
        return cls(**known)


@dataclass(frozen=True)
class Sampling:
    """What a task takes of a clip. A client that sends just these frames, and calls them `fps` a second, gets what it
    would get for the whole clip; so a clip may be of any length and size."""

    indices: tuple[int, ...]  # ascending
    fps: float
    max_seconds: float  # of a longer clip as many frames are taken, evenly over all of it
    height: int = 0  # at which they fit into a request: the clip's, or smaller; 0: not asked
    width: int = 0

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Sampling:
        known = _known_fields(cls, values)
        known["indices"] = tuple(known["indices"])
        return cls(**known)


@dataclass(frozen=True)
class Result:
    """What a job made."""

    task: str
    seed: int
    receipt: Mapping[str, Any]  # prompt, params as used, model, version, stages, times, memory
    width: int = 0
    height: int = 0
    frames: int = 0
    fps: float = 0.0
    text: str = ""
    pixels: np.ndarray[Any, Any] | None = None  # u8 [batch, frames, height, width, 3]
    latents: np.ndarray[Any, Any] | None = None  # f32 [batch, 48, t, h, w], raw Wan 2.2 VAE scale
    latent_state: np.ndarray[Any, Any] | None = None  # the same shape; where noise is left: makes going on exact
    token_ids: np.ndarray[Any, Any] | None = None  # i32 [tokens]

    @classmethod
    def of(cls, values: Mapping[str, Any], tensors: Mapping[str, np.ndarray[Any, Any]]) -> Result:
        known = {name: v for name, v in _known_fields(cls, values).items() if v is not None}
        known["seed"] = int(known.get("seed", 0))  # a large one comes as a decimal string
        known.setdefault("receipt", {})
        for name in ("pixels", "latents", "latent_state", "token_ids"):
            known[name] = tensors.get(name)
        return cls(**known)
