"""One job of the daemon as one node's work: progress, preview, text under the node, interrupt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import comfy.model_management
import comfy.utils
from PIL import Image

from ..protocol.python.lanced_client import ConnectionFailed, JobLost, Preview, Progress, Result
from .connection import ModelHandle

POLL_SECONDS = 0.05  # how long an interrupt may go unnoticed
PREVIEW_PIXELS = 512

T = TypeVar("T")


async def run_job(handle: ModelHandle, task: str, node_id: str, **request: Any) -> Result:
    """Run a job to its end. An interrupt, or a failing neighbour node, cancels it in the daemon within a step. When the
    daemon goes away under the job, it is found or started again, once, and the job begins anew."""
    try:
        return await _attempt(handle, task, node_id, request)
    except (ConnectionFailed, JobLost):
        _show_text("lanced went away; trying again", node_id)
        return await _attempt(handle, task, node_id, request)


async def _attempt(handle: ModelHandle, task: str, node_id: str, request: dict[str, Any]) -> Result:
    client = await watched(handle.connect)
    bar = comfy.utils.ProgressBar(1, node_id=node_id)
    preview: tuple[str, Image.Image, int] | None = None  # goes out with the next step, so that each step is told once
    with await asyncio.to_thread(client.submit, task, model=handle.name_to_ask_for, **request) as job:
        while job.ended is None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            for event in await asyncio.to_thread(job.poll, POLL_SECONDS):
                if isinstance(event, Preview) and event.pixels is not None:
                    preview = ("JPEG", Image.fromarray(event.pixels[0]), PREVIEW_PIXELS)
                elif isinstance(event, Progress):
                    bar.update_absolute(event.total_step, event.total_steps or None, preview)
                    preview = None
                    _show_text(_progress_text(event), node_id)
        result = await asyncio.to_thread(job.result)
    _show_text(_receipt_text(result), node_id)
    return result


async def watched(work: Callable[[], T]) -> T:
    """Do blocking work that cannot be stopped, such as loading a model, but wait no longer than to an interrupt."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    while not task.done():
        await asyncio.wait([task], timeout=POLL_SECONDS)
        if not task.done():
            comfy.model_management.throw_exception_if_processing_interrupted()
    return task.result()


def _progress_text(event: Progress) -> str:
    parts = [f"{event.stage} {event.step}/{event.steps}" if event.steps else f"{event.stage} {event.step}"]
    if event.eta_seconds is not None:
        parts.append(f"{event.eta_seconds:.0f} s left" if event.eta_seconds >= 1 else "almost done")
    return ", ".join(parts)


def _receipt_text(result: Result) -> str:
    stages = ", ".join(f"{entry['stage']} {entry['seconds']:.1f} s" for entry in result.receipt.get("stages", []))
    return f"{result.receipt.get('total_seconds', 0):.1f} s ({stages})"


def _show_text(text: str, node_id: str) -> None:
    from server import PromptServer  # only there while ComfyUI's server runs

    PromptServer.instance.send_progress_text(text, node_id)
