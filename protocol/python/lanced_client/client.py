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
opened again and the request sent again; a job goes on in the daemon meanwhile. When a client
gives up is the rule of PROTOCOL.md, "When a daemon is gone", the same for all clients.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import os
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .endpoint import check_trust, default_endpoint, is_local
from .errors import (
    AnswerTimeout,
    BadAnswer,
    BadRequest,
    Cancelled,
    ConnectionFailed,
    ConnectionLost,
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
    Choice,
    Event,
    Failed,
    Hello,
    ModelInfo,
    OfferedModel,
    Result,
    Sampling,
    event_of,
)
from .printable import printable
from .token_file import default_token
from .transfer import Blobs, Line, OnTransfer, Received, submitted
from .transport import IsAlive, Parts, Peer, open_peer
from .version import PROTOCOL_VERSION
from .version import VERSION as CLIENT_VERSION
from .wire import Tensors, decode, encode_parts

_NAME = f"lanced_client {CLIENT_VERSION}"

SILENCE_SECONDS = 60.0  # how long a daemon that is there may owe an answer, by default
GONE_SECONDS = 3.0  # how long nobody may listen before a job counts as lost
_SECOND_OPINION_SECONDS = 5.0  # how long a hello on another connection may take
_LONGEST_SECONDS = 1800.0  # for one answer of a daemon that lives
_LOAD_SECONDS = 1800.0  # a large checkpoint from a slow disk
_EVENTS_OF_A_LIFE = 1_000_000_000
_LONG_POLL_SECONDS = 10.0
_RECONNECT_SECONDS = 0.02
_MOST_BREAKS = 8  # of the connection, during one request
_FAREWELL_SECONDS = 5.0  # for the release at the end of a `with` block, which nobody wants to wait for
_ANSWER_MARGIN_SECONDS = 0.25  # what a long poll's answer may take beyond its own time


def _default_silence() -> float:
    """$LANCED_SILENCE_SECONDS, else SILENCE_SECONDS."""
    text = os.environ.get("LANCED_SILENCE_SECONDS", "")
    return float(text) if text.isdecimal() and 1 <= int(text) <= 86400 else SILENCE_SECONDS


class Client:
    def __init__(
        self,
        endpoint: str | None = None,
        timeout: float | None = None,
        token: str | None = None,
        peer_factory: Callable[..., Peer] = open_peer,
        ca: str | None = None,
        name: str | None = None,
    ) -> None:
        """`timeout`: seconds for which a daemon that is there may owe an answer, before it counts as gone;
        $LANCED_SILENCE_SECONDS by default, else 60. `token`: for a daemon that asks for one; $LANCED_TOKEN
        by default, else what $LANCED_TOKEN_FILE holds. `ca`: a file with the certificate of the CA that signed that of
        a daemon at tls+tcp://HOST:PORT; $LANCED_CA by default. `name`: whose jobs these are, by which the daemon has
        clients take turns; $LANCED_CLIENT by default, else this package's. Nothing is connected before the first
        request."""
        self.endpoint = endpoint or default_endpoint()
        self.timeout = _default_silence() if timeout is None else timeout
        self.name = name or os.environ.get("LANCED_CLIENT") or _NAME
        self._token = token or default_token()
        self._peer_factory = functools.partial(peer_factory, ca=ca) if ca else peer_factory
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

    def hello(self, timeout: float | None = None) -> Hello:
        """Who answers: version, generation, limits, the loaded model. A daemon of another version with the same
        protocol works; one warning says so, since it may not know everything that this client knows."""
        answer, _ = self.call("hello", timeout=timeout, client=self.name)
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

    def automatic(self) -> dict[str, Choice]:
        """By task: the model that the name "automatic" stands for, and why. Empty: a daemon that does not choose."""
        answer, _ = self.call("models")
        return {task: Choice.of(choice) for task, choice in answer.get("automatic", {}).items()}

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

    def jobs(self) -> list[dict[str, Any]]:
        """The daemon's jobs: job, task, state, age_seconds, asked_seconds, client, the beginning of the prompt."""
        jobs: list[dict[str, Any]] = []
        more = True
        while more:
            answer, _ = self.call("jobs", after=jobs[-1].get("number", 0) if jobs else 0)
            jobs += answer["jobs"]
            more = bool(answer.get("more") and answer["jobs"])
        return jobs

    def sampling(
        self, task: str, frames: int, fps: float | None = None, height: int | None = None, width: int | None = None
    ) -> Sampling:
        """Which of a clip's frames the task looks at, and how large to send them. Tasks that take a video need fps."""
        answer, _ = self.call("sampling", task=task, frames=frames, fps=fps, height=height, width=width)
        return Sampling.of(answer)

    def shutdown(self, mode: str = "finish") -> None:
        """End the daemon: "finish" does the queued jobs first, "cancel" stops them."""
        self.call("shutdown", mode=mode)

    def cancel(self, job_id: str) -> str:
        """Stop a job within one step; returns its state. Harmless when it has ended."""
        answer, _ = self.call("cancel", job=job_id)
        return str(answer.get("state", ""))

    def job(
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
        cache: bool = True,
        **params: Any,
    ) -> Job:
        """A job that is still to be submitted; parameters are those of protocol/PROTOCOL.md, defaults the daemon's.

        model: a name; the loaded one by default. source: u8 [frames, height, width, 3], RGB, or [height, width, 3] for
        one picture; a video also needs the parameter fps. noise: f32 [batch, tokens, 48]. latents: f32
        [batch, 48, t, h, w], what is decoded or where sampling starts; latent_state: the same shape, that of an earlier
        result; latent_mask: f32 [1 or batch, 1, t, h, w], 0 keeps. cache=False: it is made, also where the daemon has
        kept the result of the same request. Jobs with the same job_id are one job.

            with client.job("t2i", prompt="a red fox") as job:   # released whatever becomes of the answer to submit
                job.submit()
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
        fields = {"task": task, "params": params, "model": model, "cache": None if cache else False}
        return Job(self, job_id or uuid.uuid4().hex, fields, tensors)

    def submit(self, task: str, **request: Any) -> Job:
        """Queue a job; `request` is what `job` takes. When the answer does not come, a job whose id was chosen here is
        released: nobody else could."""
        job = self.job(task, **request)
        try:
            job.submit()
        except BaseException:
            if not request.get("job_id"):
                job.leave()
            raise
        return job

    def generate(
        self,
        task: str,
        on_event: Callable[[Event], object] | None = None,
        on_transfer: OnTransfer | None = None,
        **params: Any,
    ) -> Result:
        """Submit, wait and return the result; the job is cancelled when this is interrupted. `on_transfer` hears how
        far large payloads have got, before the job's first event and after its last."""
        with self.job(task, **params) as job:
            job.submit(on_transfer)
            for event in job.events():
                if on_event is not None:
                    on_event(event)
            return job.result(on_transfer)

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
        is left out. `timeout`: seconds of silence; this client's by default, and then for as long as the daemon answers
        others."""
        patience = GONE_SECONDS if "job" in fields else 0.0  # with a job at stake
        is_alive = None if timeout is not None or request == "hello" else self._second_opinion()
        return self._call(request, tensors, timeout or self.timeout, patience, is_alive, **fields)

    def _call(
        self,
        request: str,
        tensors: Tensors | None,
        timeout: float,
        patience: float,
        is_alive: IsAlive | None,
        /,
        **fields: Any,
    ) -> tuple[dict[str, Any], Tensors]:
        message = self._message(request, tensors, **fields)
        self._check_size(sum(map(len, message)))
        answer, answer_tensors = decode(self._exchange(message, timeout, patience, is_alive))
        if answer.get("protocol") != PROTOCOL_VERSION:
            raise VersionMismatch(
                f"lanced at {self.endpoint} speaks protocol {answer.get('protocol')}"
                f" (version {answer.get('version', 'unknown')}), this client protocol"
                f" {PROTOCOL_VERSION} (lanced_client {CLIENT_VERSION}): update the older of the two"
            )
        if answer.get("ok") is not True:
            error = answer.get("error") or {}
            failure = error_of(str(error.get("code", "internal")), str(error.get("message", "no reason given")))
            if isinstance(failure, NotFound):
                failure.missing_blobs = tuple(map(str, answer.get("missing_blobs") or ()))
            raise failure
        return answer, answer_tensors

    def _line(self, is_unwanted: Callable[[], bool]) -> Line:
        """For the requests of one transfer."""

        def call(
            request: str, tensors: Tensors | None, may_go_on: IsAlive, /, **fields: Any
        ) -> tuple[dict[str, Any], Tensors]:
            return self._call(request, tensors, self.timeout, GONE_SECONDS, may_go_on, **fields)

        return Line(call, self.timeout, self.is_alive, is_unwanted)

    def _message(self, request: str, tensors: Tensors | None = None, /, **fields: Any) -> Parts:
        fields["token"] = self._token
        fields = {name: value for name, value in fields.items() if value is not None}
        return encode_parts({"protocol": PROTOCOL_VERSION, "request": request, **fields}, tensors)

    def _second_opinion(self) -> IsAlive:
        """For an answer that is late: whether the daemon answers others, until it has taken unreasonably long."""
        deadline = time.monotonic() + _LONGEST_SECONDS
        return lambda: time.monotonic() < deadline and self.is_alive()

    def is_alive(self) -> bool:
        """Whether the daemon that said hello before answers now, on a connection of its own."""
        peer = self._peer_factory(self.endpoint)
        try:
            answer, _ = decode(peer.request(self._message("hello", client=self.name), _SECOND_OPINION_SECONDS))
        except LanceError:
            return False
        finally:
            peer.close()
        return self._daemon is None or answer.get("generation") == self._daemon.generation

    def _check_size(self, message_bytes: int) -> None:
        """On a message far over its limit a daemon closes the connection without a word; so say it here."""
        limit = self._daemon.limits.get("message_bytes") if self._daemon else None
        if limit and message_bytes > limit:
            raise TooLarge(
                f"the request has {message_bytes} bytes, lanced at {self.endpoint} takes {limit} in one message"
            )

    def _exchange(
        self, message: Parts, timeout: float, patience: float, is_alive: IsAlive | None
    ) -> bytearray | memoryview:
        """Tries again while nobody listens: at least once, for the daemon may have been restarted since, and for
        `patience` seconds; and where the connection breaks, unless it does so again and again."""
        with self._lock:
            if self._closed:
                raise ConnectionFailed("this client is closed")
            if not self._idle_peers:
                check_trust(self.endpoint)
            peer = self._idle_peers.pop() if self._idle_peers else self._peer_factory(self.endpoint)
        gone_since: float | None = None
        breaks = 0
        try:
            while True:
                try:
                    answer = peer.request(message, timeout, is_alive)
                    break
                except AnswerTimeout:
                    raise
                except ConnectionLost:
                    breaks += 1
                    if breaks == _MOST_BREAKS:
                        raise
                    gone_since = None
                    time.sleep(_RECONNECT_SECONDS)
                except ConnectionFailed:
                    now = time.monotonic()
                    if gone_since is not None and now - gone_since >= patience:
                        raise
                    gone_since = gone_since or now
                    time.sleep(_RECONNECT_SECONDS)
        except AnswerTimeout:
            self._give_back(peer)  # whose connection may stand: the daemon is silent, not gone
            raise
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
    """A job for the daemon, under one id from before it is first sent until it is forgotten. Leaving its `with` block
    cancels it if it runs, and forgets it."""

    def __init__(self, client: Client, job_id: str, request: dict[str, Any], tensors: Tensors) -> None:
        self.client = client
        self.id = job_id
        self.ended: Event | None = None  # the event that ended it
        self._request = request
        self._tensors = tensors
        self._blobs: Blobs | None = None  # the same, as they are sent in pieces
        self._received: Received | None = None  # of the result, as far as it has come
        self._is_there = False  # in the daemon, as far as can be known: it was sent, and not refused
        self._was_left = False
        self._generation = ""
        self._after = 0
        self._last_answer = time.monotonic()
        self._gone_since: float | None = None  # since when nobody has listened

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def submit(self, on_transfer: OnTransfer | None = None) -> None:
        """Queue it, after its large tensors have been sent, of which `on_transfer` hears. May be repeated when the
        answer did not come, which starts nothing anew; in a daemon that was restarted it does, and the events begin
        anew."""
        daemon = self.client.hello()  # its generation and its limits as they are now
        if daemon.generation != self._generation:
            self._generation, self._after, self.ended = daemon.generation, 0, None
            self._received = None
        was_there, self._is_there = self._is_there, True
        try:
            answer = self._submit(int(daemon.limits["piece_bytes"]), on_transfer)
        except ConnectionFailed:
            raise
        except LanceError:  # refused
            self._is_there = was_there
            raise
        self._last_answer, self._gone_since = time.monotonic(), None
        if self._was_left:  # by another thread meanwhile; whose release may have come before
            self.leave()
        if answer.get("ignored"):
            warnings.warn(f"lanced does not know these parameters: {', '.join(answer['ignored'])}", stacklevel=3)

    def _submit(self, piece_bytes: int, on_transfer: OnTransfer | None) -> dict[str, Any]:
        blobs = self._blobs = self._blobs or Blobs(self._tensors, is_local(self.client.endpoint))
        line = self.client._line(lambda: self._was_left)
        return submitted(
            lambda: line.ask(
                "submit",
                blobs.inline,
                job=self.id,
                client=self.client.name,
                tensors=blobs.named or None,
                **self._request,
            )[0],
            lambda missing: blobs.send(missing, piece_bytes, line, on_transfer),
        )

    def poll(self, timeout: float) -> list[Event]:
        """The events since the last call; [] when none comes within `timeout` seconds.

        Returns in about that time even when the daemon does not answer, so a caller can look at
        its own cancel button in between. ConnectionFailed when the daemon is gone, AnswerTimeout when
        it stays silent; JobLost when it was restarted.
        """
        if self.ended is not None:
            return []
        try:
            answer, tensors = self.client._call(
                "wait",
                None,
                timeout + _ANSWER_MARGIN_SECONDS,
                0.0,
                None,
                job=self.id,
                after=self._after,
                timeout_ms=round(timeout * 1000),
            )
        except NotFound as error:
            raise self._explain(error) from error
        except ConnectionFailed as error:
            self._take_silence(error, timeout)
            return []
        self._last_answer, self._gone_since = time.monotonic(), None
        events = [event_of(entry, tensors) for entry in answer["events"]]
        for event in events:
            # A daemon that was started again goes on behind the next multiple.
            is_first_of_a_life = event.sequence > self._after and event.sequence % _EVENTS_OF_A_LIFE == 1
            if event.sequence != self._after + 1 and not is_first_of_a_life:
                raise BadAnswer(f"event {event.sequence} came after event {self._after}")
            self._after = event.sequence
            if isinstance(event, ENDINGS):
                self.ended = event
        return events

    def _take_silence(self, error: ConnectionFailed, timeout: float) -> None:
        """No answer: raise if that has lasted too long, or else wait a little."""
        now = time.monotonic()
        if isinstance(error, AnswerTimeout):
            self._gone_since = None
            silence = now - self._last_answer
            if silence <= timeout + self.client.timeout:
                return
            if self.client.is_alive():
                self._last_answer = time.monotonic()
                return
            kind: type[ConnectionFailed] = AnswerTimeout
            why = f"it is there, but has not answered for {silence:.0f} s; is it stopped?"
        else:
            self._gone_since = self._gone_since or now
            if now - self._gone_since < GONE_SECONDS:
                time.sleep(min(timeout, 0.1))
                return
            kind = ConnectionFailed
            why = f"nobody has listened there for {now - self._gone_since:.0f} s"
        raise kind(f"lanced at {self.client.endpoint} went away while job {self.id} ran: {why}") from error

    def _explain(self, error: NotFound) -> LanceError:
        """Of a job that is not known: whether that is because the daemon was restarted."""
        if self.client.hello().generation == self._generation:
            return error
        return JobLost(
            f"lanced at {self.client.endpoint} was restarted while job {self.id} ran, and the"
            " job is lost: submit it again"
        )

    def events(self) -> Iterator[Event]:
        """Every event in order, until the job has ended; goes on after a lost connection."""
        while self.ended is None:
            yield from self.poll(_LONG_POLL_SECONDS)

    def result(self, on_transfer: OnTransfer | None = None) -> Result:
        """Wait for the end and fetch the result; raises what the job failed of. `on_transfer` hears how far its large
        tensors have come. Asked again after a failure of the line, it goes on with those that have not."""
        for _ in self.events():
            pass
        if isinstance(self.ended, Failed):
            raise error_of(self.ended.code, self.ended.message)
        if isinstance(self.ended, CancelledEvent):
            raise Cancelled(f"job {self.id} was cancelled")
        try:
            piece_bytes = int(self.client.hello().limits["piece_bytes"])
            answer, tensors = self.client.call("result", job=self.id)
            self._received = self._received or Received(self.id, answer["tensors"], tensors)
            tensors = self._received.receive(piece_bytes, self.client._line(lambda: self._was_left), on_transfer)
        except NotFound as error:
            raise self._explain(error) from error
        self._received = None
        return Result.of(answer, tensors)

    def cancel(self) -> str:
        """Stop within one step; returns the job's state."""
        return self.client.cancel(self.id)

    def release(self) -> None:
        """Let the daemon forget the job and its result; cancels it first if it runs."""
        self.client.call("release", job=self.id)

    def leave(self) -> None:
        """Release it, if the daemon may have it; without a word when that cannot be said to the daemon, which forgets
        it by itself later."""
        self._was_left = True
        if self._is_there:
            with contextlib.suppress(LanceError):
                self.client._call("release", None, min(_FAREWELL_SECONDS, self.client.timeout), 0.0, None, job=self.id)
