"""Payloads in pieces: a request's large tensors on their way to the daemon, a result's on their way back.

No message is large. A tensor goes as a blob in pieces of the size that the daemon asks for (`put`), and the daemon says
which of them it lacks; a result comes the same way (`get`). Several pieces are in
flight, each with a thread and a connection of its own, so a line that breaks costs the pieces whose answers were lost,
and the limit on silence counts anew with every answer to any of them. Progress is told on the caller's thread.
"""

from __future__ import annotations

import hashlib
import math
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from .errors import BadAnswer, Cancelled, NotFound
from .wire import Tensors, array_of, bytes_of, dtype_name

IN_FLIGHT = 4  # pieces on their way at the same time, at most
INLINE_BYTES = 64 << 10  # a request's tensors up to this, together, go within its message
_HASHED_BYTES = 1 << 20  # in next to no time
_LONGEST_SECONDS = 1800.0  # without any answer to a transfer, of a daemon that answers others
_ROUNDS = 16  # of asking what the daemon lacks of a blob; it names at most 64 ranges at once
_TICK_SECONDS = 0.1
_QUICK_SECONDS = 0.25  # that a piece may take so that more are sent beside it

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Transfer:
    """How far payloads have got: not an event of the daemon's, but of the line to it."""

    direction: str  # "sending" or "receiving"
    bytes: int
    of_bytes: int


OnTransfer = Callable[[Transfer], object]


@dataclass(frozen=True)
class _Done(Generic[Outcome]):
    """What became of a piece."""

    outcome: Outcome | None = None
    seconds: float = 0.0
    error: BaseException | None = None


class Call(Protocol):
    """One request, from any thread: its answer's envelope and tensors, or the daemon's error. may_go_on() is asked when
    the limit on silence is over."""

    def __call__(
        self, request: str, tensors: Tensors | None, may_go_on: Callable[[], bool], /, **fields: Any
    ) -> tuple[dict[str, Any], Tensors]: ...


class Line:
    """The requests of one transfer. The limit on silence is theirs together: it counts anew when one is answered, and
    when `is_alive`, asked after `limit` seconds of it, knows that the daemon answers others. Any thread."""

    def __init__(self, call: Call, limit: float, is_alive: Callable[[], bool], is_unwanted: Callable[[], bool]) -> None:
        self._call = call
        self._limit = limit
        self._is_alive = is_alive
        self._is_unwanted = is_unwanted
        self._is_given_up = False
        self._lock = threading.Lock()  # one question is enough for all
        self._answered = self._sign = time.monotonic()  # the last answer, and the last sign of life

    def ask(self, request: str, tensors: Tensors | None = None, /, **fields: Any) -> tuple[dict[str, Any], Tensors]:
        answer = self._call(request, tensors, self._may_go_on, **fields)
        self._answered = self._sign = time.monotonic()
        return answer

    def give_up(self) -> None:
        """From now on nothing is waited for."""
        self._is_given_up = True

    @property
    def is_given_up(self) -> bool:
        return self._is_given_up or self._is_unwanted()

    def _may_go_on(self) -> bool:
        with self._lock:
            now = time.monotonic()
            if self.is_given_up or now - self._answered > _LONGEST_SECONDS:
                return False
            if now - self._sign >= self._limit:
                if not self._is_alive():
                    return False
                self._sign = time.monotonic()
            return True


def _in_flight(work: Callable[[Item], Outcome], items: Sequence[Item], line: Line) -> Iterator[Outcome]:
    """What `work` returns for each of `items`, in the order of their ends; the first failure ends all of it. A slow
    line is full with one piece, and several would only be lost together: there are as many as are quick to move."""
    todo: queue.SimpleQueue[Item] = queue.SimpleQueue()
    done: queue.SimpleQueue[_Done[Outcome]] = queue.SimpleQueue()
    for item in items:
        todo.put(item)

    def run() -> None:
        try:
            while not line.is_given_up:
                item = todo.get_nowait()
                began = time.monotonic()
                done.put(_Done(work(item), time.monotonic() - began))
        except queue.Empty:
            return
        except BaseException as error:
            done.put(_Done(error=error))

    workers = 0
    try:
        left = len(items)
        is_quick = True
        while left:
            if is_quick and workers < min(IN_FLIGHT, left):
                workers += 1
                threading.Thread(target=run, daemon=True).start()  # who gives up does not wait for silent ones
            try:
                end = done.get(timeout=_TICK_SECONDS)
            except queue.Empty:
                if line.is_given_up:
                    raise Cancelled("the transfer was given up") from None
                is_quick = False
                continue
            if end.error is not None:
                raise end.error
            is_quick = end.seconds < _QUICK_SECONDS
            left -= 1
            yield end.outcome  # type: ignore[misc]  # None only beside an error
    except BaseException:
        line.give_up()
        raise


class _Report:
    """Tells how many of all bytes have moved."""

    def __init__(self, direction: str, of_bytes: int, on_transfer: OnTransfer | None) -> None:
        self._direction = direction
        self._of_bytes = of_bytes
        self._on_transfer = on_transfer
        self._bytes = 0

    def add(self, count: int) -> None:
        self._bytes += count
        if self._on_transfer is not None and count > 0:
            self._on_transfer(Transfer(self._direction, self._bytes, self._of_bytes))


# --- Sending -----------------------------------------------------------------------------------------------------


class Blobs:
    """The large tensors of a request. The arrays stay the caller's, and as they are. They are called by their hash, for
    the daemon may have them; but within the machine (`is_local`), where bytes are sent as fast as they are hashed, the
    largest get names by chance."""

    def __init__(self, tensors: Tensors, is_local: bool) -> None:
        self.inline: Tensors = {}  # these go within the request,
        self.named: dict[str, dict[str, Any]] = {}  # and these are its field `tensors`
        self._data: dict[str, memoryview] = {}
        room = INLINE_BYTES
        for name, array in sorted(tensors.items(), key=lambda item: item[1].nbytes):
            if array.nbytes <= room:
                self.inline[name] = array
                room -= array.nbytes
                continue
            data = bytes_of(array)
            is_hashed = not is_local or array.nbytes <= _HASHED_BYTES
            blob = hashlib.sha256(data).hexdigest() if is_hashed else f"put-{uuid.uuid4().hex}"
            self._data[blob] = data
            self.named[name] = {"blob": blob, "dtype": dtype_name(name, array), "shape": list(array.shape)}

    def send(self, missing: Sequence[str], piece_bytes: int, line: Line, on_transfer: OnTransfer | None) -> None:
        """Have the daemon take those that it says are missing."""
        wanted = {blob: self._data[blob] for blob in missing if blob in self._data}
        if not wanted:
            raise BadAnswer("the daemon lacks a blob that the request does not name")
        report = _Report("sending", sum(map(len, wanted.values())), on_transfer)
        for blob, data in wanted.items():
            _send(blob, data, piece_bytes, line, report)


def _send(blob: str, data: memoryview, piece_bytes: int, line: Line, report: _Report) -> None:
    known = 0  # bytes of it that the daemon has, as far as was told
    for _ in range(_ROUNDS):
        answer, _tensors = line.ask("put", blob=blob, bytes=len(data), offset=0)
        pieces = [
            (offset, min(piece_bytes, begin + length - offset))
            for begin, length in answer.get("missing", [])
            for offset in range(begin, begin + length, piece_bytes)
        ]
        if answer.get("complete") is True or not pieces:
            report.add(len(data) - known)
            return
        there = len(data) - sum(length for _, length in pieces)
        report.add(max(0, there - known))
        known = max(known, there)

        def put(piece: tuple[int, int]) -> tuple[int, bool]:
            offset, length = piece
            view = np.frombuffer(data[offset : offset + length], np.uint8)
            answer, _ = line.ask("put", {"piece": view}, blob=blob, bytes=len(data), offset=offset)
            return length, answer.get("complete") is True

        is_complete = False
        for length, is_last in _in_flight(put, pieces, line):
            is_complete = is_complete or is_last
            known += length
            report.add(length)
        if is_complete:
            return
    raise BadAnswer(f"the daemon does not keep the pieces of a tensor of {len(data)} bytes")


# --- Receiving ---------------------------------------------------------------------------------------------------


class Received:
    """A result's tensors, as far as they have come; asked again, it goes on from there."""

    def __init__(self, job: str, described: Mapping[str, Any], inline: Tensors) -> None:
        self._job = job
        self._tensors = dict(inline)
        self._large: dict[str, tuple[str, list[int], np.ndarray[Any, Any]]] = {}
        self._had: set[tuple[str, int]] = set()
        for name, entry in described.items():
            if name not in inline:
                self._large[name] = _room_of(name, entry)

    def receive(self, piece_bytes: int, line: Line, on_transfer: OnTransfer | None) -> Tensors:
        """All of them, in the end."""
        pieces = [
            (name, offset, min(piece_bytes, len(data) - offset))
            for name, (_, _, data) in self._large.items()
            for offset in range(0, len(data), piece_bytes)
        ]

        def get(piece: tuple[str, int, int]) -> tuple[str, int, int]:
            name, offset, length = piece
            _, tensors = line.ask("get", job=self._job, tensor=name, offset=offset, length=length)
            part = tensors.get("piece")
            if part is None or part.dtype != np.uint8 or part.shape != (length,):
                raise BadAnswer(f"tensor {name}: its piece at {offset} does not have {length} bytes")
            self._large[name][2][offset : offset + length] = part
            return piece

        report = _Report("receiving", sum(length for _, _, length in pieces), on_transfer)
        missing = [piece for piece in pieces if piece[:2] not in self._had]
        if len(missing) < len(pieces):
            report.add(sum(length for name, offset, length in pieces if (name, offset) in self._had))
        for name, offset, length in _in_flight(get, missing, line):
            self._had.add((name, offset))
            report.add(length)
        return self._tensors | {name: array_of(name, *entry) for name, entry in self._large.items()}


def _room_of(name: str, entry: Any) -> tuple[str, list[int], np.ndarray[Any, Any]]:
    """dtype, shape and the room for the bytes of a tensor that `result` describes."""
    try:
        dtype, shape, size = str(entry["dtype"]), [int(side) for side in entry["shape"]], int(entry["bytes"])
        if min([size, *shape]) < 0 or math.prod(shape) > size:
            raise ValueError("its shape has more elements than it has bytes")
        return dtype, shape, np.empty(size, np.uint8)  # which takes memory only as it is filled
    except (KeyError, TypeError, ValueError, MemoryError) as error:
        raise BadAnswer(f"tensor {name}: is described in a way that is not understood: {error}") from error


def submitted(submit: Callable[[], Outcome], send: Callable[[Sequence[str]], object]) -> Outcome:
    """Submit, and again when blobs that the daemon lacked, or has lost meanwhile, have been sent."""
    for _ in range(_ROUNDS):
        try:
            return submit()
        except NotFound as error:
            if not error.missing_blobs:
                raise
            send(error.missing_blobs)
    raise BadAnswer("the daemon does not keep the request's tensors")
