"""Client: ask a lanced daemon for pictures, videos and text.

    client = Client()
    with client.submit("t2i", prompt="a red fox in snow", seed=7) as job:
        for event in job.events():
            print(event)
        result = job.result()          # result.pixels: u8 [batch, frames, height, width, 3]

    edited = client.generate("image_edit", prompt="make it night", source=picture)
    client.generate("x2t_video", on_event=print, prompt="What happens?", source=frames, fps=24.0).text

    latents = client.encode(frames)    # f32 [1, 48, t, h, w], the raw scale of the Wan 2.2 VAE
    half = client.generate("t2i", prompt="a red fox", latents=latents, denoise=0.6, decode=False)
    pixels = client.decode(half.latents)

Everything is synchronous. A Client may be shared by threads: each request borrows an idle
connection, or opens one more. Every request may be repeated, so a connection that breaks is
opened again and the request sent again; a job goes on in the daemon meanwhile.
"""

from __future__ import annotations

import contextlib
import operator
import os
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .endpoint import check_trust, default_endpoint
from .errors import (
    AnswerTimeout,
    BadAnswer,
    BadRequest,
    Cancelled,
    ConnectionFailed,
    JobLost,
    LanceError,
    NotFound,
    TooLarge,
    VersionMismatch,
    error_of,
)
from .events import (
    ENDINGS,
    CancelledEvent,
    Event,
    Failed,
    Hello,
    ModelInfo,
    OfferedModel,
    Result,
    event_of,
)
from .printable import printable
from .transport import Parts, Peer, open_peer
from .wire import PROTOCOL_VERSION, Tensors, decode, encode_parts

CLIENT_VERSION = "0.1.0"

_LOAD_SECONDS = 1800.0  # a large checkpoint from a slow disk
_LONG_POLL_SECONDS = 10.0
_RECONNECT_SECONDS = 0.02
_REFUSED_SECONDS = 1.0  # how long nobody may listen at the endpoint before a running job counts as lost
_ANSWER_MARGIN_SECONDS = 0.25  # what a long poll's answer may take beyond its own time


class Client:
    def __init__(
        self,
        endpoint: str | None = None,
        timeout: float = 5.0,
        token: str | None = None,
        peer_factory: Callable[[str], Peer] = open_peer,
    ) -> None:
        """`timeout`: seconds without an answer after which the daemon counts as gone. `token`: for a
        daemon that asks for one; $LANCED_TOKEN by default. Nothing is connected before the first
        request."""
        self.endpoint = endpoint or default_endpoint()
        self.timeout = timeout
        self._token = token or os.environ.get("LANCED_TOKEN")
        self._peer_factory = peer_factory
        self._idle_peers: list[Peer] = []
        self._lock = threading.Lock()
        self._closed = False
        self._daemon: Hello | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Jobs go on in the daemon."""
        with self._lock:
            peers, self._idle_peers = self._idle_peers, []
            self._closed = True
        for peer in peers:
            peer.close()

    def hello(self) -> Hello:
        """Who answers: version, generation, limits, the loaded model. A daemon of another version with the same
        protocol works; one warning says so, since it may not know everything that this client knows."""
        answer, _ = self.call("hello", client=f"lanced_client {CLIENT_VERSION}")
        before, self._daemon = self._daemon, Hello.of(answer)
        if self._daemon.version != CLIENT_VERSION and (not before or before.version != self._daemon.version):
            warnings.warn(
                f"lanced at {self.endpoint} has version {printable(self._daemon.version)}, this client"
                f" {CLIENT_VERSION}: install both from the same release",
                stacklevel=2,
            )
        return self._daemon

    def models(self) -> list[OfferedModel]:
        """The models the daemon was told about."""
        answer, _ = self.call("models")
        return [OfferedModel.of(entry) for entry in answer["models"]]

    def load(self, model: str | None = None, timeout: float = _LOAD_SECONDS) -> ModelInfo:
        """Load a model by name, or the daemon's default one; returns at once when it is loaded already. Busy when it
        takes longer than `timeout`: loading goes on."""
        answer, _ = self.call("load", timeout=timeout + self.timeout, timeout_ms=round(timeout * 1000), model=model)
        return ModelInfo.of(answer["model"])

    def unload(self) -> bool:
        """Free the weights; whether there was something to free. While a job runs this returns at once, and they are
        freed when it has ended. The next job loads them again."""
        answer, _ = self.call("unload")
        return bool(answer.get("unloaded") or answer.get("pending"))

    def stats(self) -> dict[str, Any]:
        """The daemon's counters."""
        answer, _ = self.call("stats")
        return answer

    def shutdown(self, mode: str = "finish") -> None:
        """End the daemon: "finish" does the queued jobs first, "cancel" stops them."""
        self.call("shutdown", mode=mode)

    def cancel(self, job_id: str) -> str:
        """Stop a job within one step; returns its state. Harmless when it has ended."""
        answer, _ = self.call("cancel", job=job_id)
        return str(answer.get("state", ""))

    def submit(
        self,
        task: str,
        *,
        job_id: str | None = None,
        model: str | None = None,
        source: np.ndarray[Any, Any] | None = None,
        noise: np.ndarray[Any, Any] | None = None,
        latents: np.ndarray[Any, Any] | None = None,
        latent_state: np.ndarray[Any, Any] | None = None,
        latent_mask: np.ndarray[Any, Any] | None = None,
        **params: Any,
    ) -> Job:
        """Queue a job; parameters are those of protocol/PROTOCOL.md, defaults the daemon's.

        model: a name; the loaded one by default. source: u8 [frames, height, width, 3], RGB, or [height, width, 3] for
        one picture; a video also needs the parameter fps. noise: f32 [batch, tokens, 48]. latents: f32
        [batch, 48, t, h, w], what is decoded or where sampling starts; latent_state: the same shape, that of an earlier
        result; latent_mask: f32 [1 or batch, 1, t, h, w], 0 keeps. Submitting the same job_id twice starts one job.
        """
        params = {name: value for name, value in params.items() if value is not None}
        for name in ("seed", "source_seed"):
            if name in params:
                params[name] = _seed(name, params[name])
        tensors: Tensors = {}
        if source is not None:
            tensors["source"] = _source_tensor(source)
        if noise is not None:
            tensors["noise"] = np.ascontiguousarray(noise, dtype=np.float32)
            params.setdefault("noise_source", "client")
        for name, array in (("latents", latents), ("latent_state", latent_state), ("latent_mask", latent_mask)):
            if array is not None:
                tensors[name] = np.ascontiguousarray(array, dtype=np.float32)
        job_id = job_id or uuid.uuid4().hex
        daemon = self.hello()  # its generation and its limits as they are now
        answer, _ = self.call("submit", tensors, job=job_id, task=task, params=params, model=model)
        if answer.get("ignored"):
            warnings.warn(f"lanced does not know these parameters: {', '.join(answer['ignored'])}", stacklevel=2)
        return Job(self, job_id, daemon.generation)

    def generate(
        self,
        task: str,
        on_event: Callable[[Event], object] | None = None,
        **params: Any,
    ) -> Result:
        """Submit, wait and return the result; the job is cancelled when this is interrupted."""
        with self.submit(task, **params) as job:
            for event in job.events():
                if on_event is not None:
                    on_event(event)
            return job.result()

    def encode(self, source: np.ndarray[Any, Any], **params: Any) -> np.ndarray[Any, Any]:
        """Latents f32 [1, 48, t, h, w] of a picture or of a video's frames (u8, as `submit` takes them), in the raw
        scale of the Wan 2.2 VAE: the encoder's mean."""
        latents = self.generate("encode", source=source, **params).latents
        if latents is None:
            raise BadAnswer("the daemon's answer to encode has no latents")
        return latents

    def decode(self, latents: np.ndarray[Any, Any], **params: Any) -> np.ndarray[Any, Any]:
        """Frames u8 [batch, frames, height, width, 3] of latents f32 [batch, 48, t, h, w] in the raw scale."""
        pixels = self.generate("decode", latents=latents, **params).pixels
        if pixels is None:
            raise BadAnswer("the daemon's answer to decode has no pixels")
        return pixels

    def call(
        self,
        request: str,
        tensors: Tensors | None = None,
        timeout: float | None = None,
        **fields: Any,
    ) -> tuple[dict[str, Any], Tensors]:
        """One request of the protocol: its answer's envelope and tensors, or the daemon's error. A field that is None
        is left out."""
        fields["token"] = self._token
        fields = {name: value for name, value in fields.items() if value is not None}
        envelope = {"protocol": PROTOCOL_VERSION, "request": request, **fields}
        message = encode_parts(envelope, tensors)
        self._check_size(sum(map(len, message)))
        answer, answer_tensors = decode(self._exchange(message, timeout or self.timeout))
        if answer.get("protocol") != PROTOCOL_VERSION:
            raise VersionMismatch(
                f"lanced at {self.endpoint} speaks protocol {answer.get('protocol')}"
                f" (version {answer.get('version', 'unknown')}), this client protocol"
                f" {PROTOCOL_VERSION} (lanced_client {CLIENT_VERSION}): update the older of the two"
            )
        if answer.get("ok") is not True:
            error = answer.get("error") or {}
            raise error_of(str(error.get("code", "internal")), str(error.get("message", "no reason given")))
        return answer, answer_tensors

    def _check_size(self, message_bytes: int) -> None:
        """On a message far over its limit a daemon closes the connection without a word; so say it here."""
        limit = self._daemon.limits.get("message_bytes") if self._daemon else None
        if limit and message_bytes > limit:
            raise TooLarge(
                f"the request has {message_bytes} bytes, lanced at {self.endpoint} takes {limit}:"
                " send less, or start lanced with a higher limit"
            )

    def _exchange(self, message: Parts, timeout: float) -> bytes | memoryview:
        with self._lock:
            if self._closed:
                raise ConnectionFailed("this client is closed")
            if not self._idle_peers:
                check_trust(self.endpoint)
            peer = self._idle_peers.pop() if self._idle_peers else self._peer_factory(self.endpoint)
        try:
            try:
                answer = peer.request(message, timeout)
            except AnswerTimeout:
                raise
            except ConnectionFailed:  # perhaps the daemon was just restarted: ask once more
                time.sleep(_RECONNECT_SECONDS)
                answer = peer.request(message, timeout)
        except BaseException:
            peer.close()
            raise
        self._give_back(peer)
        return answer

    def _give_back(self, peer: Peer) -> None:
        with self._lock:
            if not self._closed:
                self._idle_peers.append(peer)
                return
        peer.close()


def _seed(name: str, value: Any) -> str:
    """A seed as text: exact in every JSON library."""
    if isinstance(value, str):
        return value
    try:
        return str(operator.index(value))
    except TypeError:
        raise BadRequest(f"{name}: must be a whole number from 0 to 2^64-1, not {value!r}") from None


def _source_tensor(source: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The protocol's source: u8 [frames, height, width, 3]. Other number types are refused rather than guessed at: a
    float picture may be meant as 0..1 or as 0..255."""
    array = np.asarray(source)
    if array.dtype != np.uint8:
        raise BadRequest(f"source: must be 8-bit RGB (uint8), not {array.dtype}")
    return np.ascontiguousarray(array[np.newaxis] if array.ndim == 3 else array)


class Job:
    """A job in the daemon. Leaving its `with` block cancels it if it runs, and forgets it."""

    def __init__(self, client: Client, job_id: str, generation: str) -> None:
        self.client = client
        self.id = job_id
        self.ended: Event | None = None  # the event that ended it
        self._generation = generation
        self._after = 0
        self._last_answer = time.monotonic()

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(LanceError):  # the daemon forgets it by itself; an error on its way out matters more
            self.release()

    def poll(self, timeout: float) -> list[Event]:
        """The events since the last call; [] when none comes within `timeout` seconds.

        Returns in about that time even when the daemon does not answer, so a caller can look at
        its own cancel button in between. ConnectionFailed after the client's timeout of silence
        beyond that, or a second in which nobody listens at the endpoint; JobLost when the daemon
        was restarted.
        """
        if self.ended is not None:
            return []
        before = time.monotonic()
        try:
            answer, tensors = self.client.call(
                "wait",
                timeout=timeout + _ANSWER_MARGIN_SECONDS,
                job=self.id,
                after=self._after,
                timeout_ms=round(timeout * 1000),
            )
        except NotFound as error:
            generation = self.client.hello().generation
            if generation == self._generation:
                raise
            raise JobLost(
                f"lanced at {self.client.endpoint} was restarted while job {self.id} ran, and the"
                " job is lost: submit it again"
            ) from error
        except ConnectionFailed as error:
            silence = time.monotonic() - self._last_answer
            slow = isinstance(error, AnswerTimeout)
            # An answer that is late by less than the client's timeout is late, not lost: the machine may be busy.
            patience = timeout + self.client.timeout if slow else min(self.client.timeout, _REFUSED_SECONDS)
            if silence > patience:
                raise ConnectionFailed(
                    f"lanced at {self.client.endpoint} went away while job {self.id} ran"
                    f" (no answer for {silence:.0f} s)"
                ) from error
            time.sleep(max(0.0, min(timeout, 0.1) - (time.monotonic() - before)))
            return []
        self._last_answer = time.monotonic()
        events = [event_of(entry, tensors) for entry in answer["events"]]
        for event in events:
            if event.sequence != self._after + 1:
                raise BadAnswer(f"event {event.sequence} came after event {self._after}")
            self._after = event.sequence
            if isinstance(event, ENDINGS):
                self.ended = event
        return events

    def events(self) -> Iterator[Event]:
        """Every event in order, until the job has ended; goes on after a lost connection."""
        while self.ended is None:
            yield from self.poll(_LONG_POLL_SECONDS)

    def result(self) -> Result:
        """Wait for the end and fetch the result; raises what the job failed of."""
        for _ in self.events():
            pass
        if isinstance(self.ended, Failed):
            raise error_of(self.ended.code, self.ended.message)
        if isinstance(self.ended, CancelledEvent):
            raise Cancelled(f"job {self.id} was cancelled")
        answer, tensors = self.client.call("result", timeout=60.0, job=self.id)
        return Result.of(answer, tensors)

    def cancel(self) -> str:
        """Stop within one step; returns the job's state."""
        return self.client.cancel(self.id)

    def release(self) -> None:
        """Let the daemon forget the job and its result; cancels it first if it runs."""
        self.client.call("release", job=self.id)
