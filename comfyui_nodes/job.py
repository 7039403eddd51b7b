"""One job of the daemon as one node's work: progress, preview, text under the node, interrupt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import comfy.model_management
import comfy.utils

from ..protocol.python.lanced_client import (
    AnswerTimeout,
    ConnectionFailed,
    Event,
    Job,
    JobLost,
    Paused,
    Preview,
    Progress,
    Queued,
    Result,
    Started,
    Text,
    Transfer,
)
from .clips import Clip, clip_of
from .connection import ModelHandle
from .preview import ComfyPreview, MovingPreview, finished_preview, previews_are_wanted
from .texts import show_text

POLL_SECONDS = 0.05  # how long an interrupt may go unnoticed
_TRANSFER_SECONDS = 1.0  # between words about payloads on their way

T = TypeVar("T")


async def run_job(
    handle: ModelHandle, task: str, node_id: str, part: tuple[int, int] = (0, 1), **request: Any
) -> Result:
    """Run a job to its end. An interrupt, or a failing neighbour node, cancels it in the daemon within a step. When the
    daemon goes away under the job, it is found or started again, once, and the job submitted again: under the one id
    that it has from the start, so that a daemon which still has it, or its result, does nothing twice.

    part: (index, count) where this is one of several jobs of the node. request: what Client.job takes.
    """
    with _place_in_round(node_id) as (index, round_):
        # Left, and so released, whatever becomes of the answers: also when that to submit is late, or lost.
        with handle.client.job(task, model=handle.model, preview=previews_are_wanted(), **request) as job:
            display = _Display(node_id, part, index, round_)
            try:
                result = await _attempt(handle, job, display)
            except AnswerTimeout:
                raise  # it is there, and silent: another one cannot be started
            except (ConnectionFailed, JobLost):
                show_text("lanced went away; trying again", node_id)
                display = _Display(node_id, part, index, round_)
                result = await _attempt(handle, job, display)
        if result.pixels is not None and previews_are_wanted():
            finished = partial(finished_preview, result.pixels[0], result.fps or 1)
            display.show(finished() if result.pixels.shape[1] == 1 else await asyncio.to_thread(finished))
        display.finish(result, await asyncio.to_thread(handle.remark, task))
    return result


async def _attempt(handle: ModelHandle, job: Job, display: _Display) -> Result:
    await _submit(handle, job, display)
    while job.ended is None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        for event in await asyncio.to_thread(job.poll, POLL_SECONDS):
            display.take(event)
        display.animate()
    return await watched(partial(job.result, display.take_transfer))  # or what the job failed of


async def _submit(handle: ModelHandle, job: Job, display: _Display) -> None:
    """Queue the job; find or start the daemon first if none answers."""
    try:
        await watched(partial(job.submit, display.take_transfer))
    except AnswerTimeout:
        raise
    except ConnectionFailed:
        await watched(handle.connect)
        await watched(partial(job.submit, display.take_transfer))


async def read_clip(handle: ModelHandle, task: str, video: Any, fps: float) -> Clip:
    """What the daemon gets of a VIDEO, or of an IMAGE with `fps`; it is found or started to be asked what that is."""
    client = await watched(handle.connect)
    return await watched(lambda: clip_of(video, fps, partial(client.sampling, task)))


async def watched(work: Callable[[], T]) -> T:
    """Do blocking work that cannot be stopped, such as loading a model, but wait no longer than to an interrupt."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    while not task.done():
        await asyncio.wait([task], timeout=POLL_SECONDS)
        if not task.done():
            comfy.model_management.throw_exception_if_processing_interrupted()
    return task.result()


@dataclass
class _Round:
    """The runs of one node that ComfyUI started together, one for each item of a list of prompts or seeds."""

    started: int = 0
    ended: int = 0


_rounds: dict[str, _Round] = {}


@contextmanager
def _place_in_round(node_id: str) -> Iterator[tuple[int, _Round]]:
    """Which of the node's runs this is."""
    this = _rounds.setdefault(node_id, _Round())
    this.started += 1
    try:
        yield this.started - 1, this
    finally:
        this.ended += 1
        if this.ended == this.started and _rounds.get(node_id) is this:
            del _rounds[node_id]


class _Display:
    """What a node shows of its job: the progress bar, a preview, and a line of text or the answer as it grows."""

    def __init__(self, node_id: str, part: tuple[int, int], index: int, round_: _Round) -> None:
        self._node_id = node_id
        self._part_index, self._part_count = part
        self._round_index, self._round = index, round_
        self._bar = comfy.utils.ProgressBar(1, node_id=node_id)
        self._preview = MovingPreview()
        self._answer = ""
        self._transfer_direction = ""
        self._transfer_told = 0.0  # when its progress was last said

    @property
    def _index(self) -> int:
        return self._round_index * self._part_count + self._part_index

    @property
    def _count(self) -> int:
        return self._round.started * self._part_count

    def take(self, event: Event) -> None:
        if isinstance(event, Preview) and event.pixels is not None:
            self._preview.set_frames(event.pixels)  # goes out with the next step, so that each step is told once
        elif isinstance(event, Started):
            self._answer = ""  # a daemon that was started again tells it from the beginning
        elif isinstance(event, Text):
            self._answer += event.text
            show_text(self._answer, self._node_id)
        elif isinstance(event, Queued) and event.position > 0 and self._round_index == 0:  # else it waits for its own
            show_text(f"waits for {event.position} other job{'s' if event.position > 1 else ''}", self._node_id)
        elif isinstance(event, Paused) and not self._answer:
            show_text("paused: other jobs go first", self._node_id)
        elif isinstance(event, Progress):
            steps = event.total_steps or max(1, event.total_step)
            self._bar.update_absolute(self._index * steps + event.total_step, self._count * steps, self._preview.next())
            if not self._answer:
                show_text(self._words_of(event), self._node_id)

    def take_transfer(self, moved: Transfer) -> None:
        """How far large payloads have got; from any thread. What takes less than a second is not worth a word."""
        now = time.monotonic()
        if moved.direction != self._transfer_direction:
            self._transfer_direction, self._transfer_told = moved.direction, now
        if now - self._transfer_told >= _TRANSFER_SECONDS:
            self._transfer_told = now
            megabytes = f"{moved.bytes / 1e6:.1f} of {moved.of_bytes / 1e6:.1f} MB"
            show_text(f"{moved.direction} {megabytes}", self._node_id)

    def animate(self) -> None:
        """Between the steps: the next picture of a moving preview."""
        if self._preview.moves and (picture := self._preview.next()):
            self._bar.update_absolute(self._bar.current, None, picture)

    def show(self, picture: ComfyPreview) -> None:
        """In place of the last preview."""
        self._bar.update_absolute(self._bar.current, None, picture)

    def finish(self, result: Result, remark: str) -> None:
        """How long everything took, and a remark if any."""
        if not result.text:
            stages = [(entry["stage"], entry["seconds"]) for entry in result.receipt["stages"]]
            longer = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in stages if seconds >= 0.05)
            total = f"{result.receipt['total_seconds']:.1f} s"
            number = f"{self._index + 1} of {self._count}: " if self._count > 1 else ""
            line = f"{number}{total} ({longer})" if longer else f"{number}{total}"
            # Nodes 2.0 shows a line break as a space.
            show_text(f"{line};\n{remark}" if remark else line, self._node_id)

    def _words_of(self, event: Progress) -> str:
        parts = [f"{self._index + 1} of {self._count}"] if self._count > 1 else []
        parts.append(f"{event.stage} {event.step}/{event.steps}" if event.steps else f"{event.stage} {event.step}")
        if event.eta_seconds is not None and event.stage in ("denoise", "decode"):  # before, it is mere guessing
            parts.append(f"{event.eta_seconds:.0f} s left" if event.eta_seconds >= 1 else "almost done")
        return ", ".join(parts)
