"""Inputs that several nodes have, so that they look and behave alike, and their checks before the run."""

from __future__ import annotations

import inspect
from typing import Any

from comfy_api.latest import io

from ..protocol.python.lanced_client.latent_shape import LEAST_SOURCE_SIDE
from ..protocol.python.lanced_client.parameters import parameters

CATEGORY = "lance"
PARAMETERS = parameters()  # what the daemon takes, whatever the model
SIZE_STEP: int = PARAMETERS["width"].multiple_of
MAX_SIZE: int = PARAMETERS["width"].maximum
DEFAULT_SIZE: int = PARAMETERS["width"].default_for("t2i")
MIN_SOURCE_SIZE = -(-LEAST_SOURCE_SIDE // SIZE_STEP) * SIZE_STEP  # the least multiple of it that the model sees
MAX_FRAMES: int = PARAMETERS["num_frames"].maximum
INTERVAL_LOW, INTERVAL_HIGH = map(float, PARAMETERS["guidance_interval"].default)

ModelSocket = io.Custom("LANCED_MODEL")


def schema(search: list[str], **others: Any) -> io.Schema:
    """A node's schema, with what all of ours have; `search`: other words that artists look for it by, where this
    ComfyUI knows of such."""
    if "search_aliases" in inspect.signature(io.Schema).parameters:
        others["search_aliases"] = search
    return io.Schema(**{"category": CATEGORY, "hidden": [io.Hidden.unique_id]} | others)


def rarely_used() -> dict[str, bool]:
    """Options of an input that most leave as it is: newer front ends fold it away."""
    return {"advanced": True} if "advanced" in inspect.signature(io.Float.Input).parameters else {}


def whole(parameter: str, **others: Any) -> dict[str, Any]:
    """Range and default of an input that is a parameter of the daemon's; `others` go before them."""
    known = PARAMETERS[parameter]
    return {"default": known.default, "min": known.minimum, "max": known.maximum} | others


def number(parameter: str, **others: Any) -> dict[str, Any]:
    """The same for floats."""
    return {name: float(value) for name, value in whole(parameter).items()} | others


def info_output() -> io.Output:
    return io.String.Output(
        display_name="info", tooltip="How it was made, as JSON: prompt, parameters as used, model, seed, times."
    )


def prompt_input(tooltip: str) -> io.String.Input:
    return io.String.Input("prompt", multiline=True, dynamic_prompts=True, tooltip=tooltip)


def size_inputs(width: int, height: int) -> list[io.Input]:
    return [
        io.Int.Input(
            name,
            default=default,
            min=SIZE_STEP,
            max=MAX_SIZE,
            step=SIZE_STEP,
            tooltip=f"A multiple of {SIZE_STEP}, at most {MAX_SIZE}.",
        )
        for name, default in (("width", width), ("height", height))
    ]


def batch_input(tooltip: str) -> io.Int.Input:
    return io.Int.Input("batch_size", **whole("batch_size"), tooltip=tooltip)


def frames_input() -> io.Int.Input:
    return io.Int.Input(
        "num_frames",
        **whole("num_frames"),
        step=4,
        tooltip=f"How many frames, at 12 a second: 1, 5, 9, ... {MAX_FRAMES}. Other numbers are rounded down to these.",
    )


def sampling_inputs(follows: str) -> list[io.Input]:
    """How the noise becomes a picture or a video. `follows` completes the tooltip of the guidance."""
    return [
        io.Int.Input("steps", **whole("num_inference_steps"), tooltip="Denoising steps."),
        io.Float.Input(
            "guidance",
            **number("guidance_scale"),
            step=0.1,
            round=0.01,
            tooltip=f"How closely {follows}; 1 or less is no guidance and twice as fast.",
        ),
        io.Float.Input(
            "shift",
            **number("timestep_shift"),
            step=0.1,
            round=0.01,
            tooltip="Timestep shift: higher values spend more steps on the composition, lower ones on detail.",
            **rarely_used(),
        ),
    ]


def guidance_inputs() -> list[io.Input]:
    """What guidance leads away from, and when it leads. Optional, and after the others: older graphs have none."""
    interval = PARAMETERS["guidance_interval"]
    common: dict[str, Any] = {"min": float(interval.minimum), "max": float(interval.maximum), "step": 0.05}
    common |= {"round": 0.001, "optional": True} | rarely_used()
    return [
        io.String.Input(
            "negative_prompt",
            default="",
            multiline=True,
            dynamic_prompts=True,
            optional=True,
            tooltip="What guidance leads away from. Empty is the official way: the model was made with that alone.",
            **rarely_used(),
        ),
        io.Float.Input(
            "interval_low",
            default=INTERVAL_LOW,
            tooltip="Guidance ends at this time of the schedule, which runs from 1 (all noise) to 0 (the result).",
            **common,
        ),
        io.Float.Input("interval_high", default=INTERVAL_HIGH, tooltip="Guidance begins at this time.", **common),
    ]


def seed_input(tooltip: str, randomize: bool = True) -> io.Int.Input:
    """randomize: with the control that changes the seed after each run. The front end adds it if it is not told."""
    return io.Int.Input("seed", **whole("seed", default=0), control_after_generate=randomize, tooltip=tooltip)


def resolution_inputs(task: str) -> list[io.Input]:
    """At which size the model works on what it is given: a preset of the official release, or a size."""
    return [
        io.Combo.Input(
            "resolution",
            options=list(PARAMETERS["resolution"].choices),
            default=PARAMETERS["resolution"].default_for(task),
            tooltip="How large the model sees the source: about so many pixels, in the nearest of six shapes from 21:9"
            " to 9:16. The source is cropped to that shape around its middle.",
        ),
        io.Int.Input(
            "width",
            display_name="width (0: resolution)",
            default=0,
            min=0,
            max=MAX_SIZE,
            step=SIZE_STEP,
            tooltip="Together with height: a size of your own instead of the resolution. 0: as the resolution says.",
        ),
        io.Int.Input(
            "height",
            display_name="height (0: resolution)",
            default=0,
            min=0,
            max=MAX_SIZE,
            step=SIZE_STEP,
            tooltip="See width.",
        ),
    ]


def fps_input(tooltip: str) -> io.Float.Input:
    fastest = float(PARAMETERS["fps"].maximum)
    return io.Float.Input("fps", default=12.0, min=1.0, max=fastest, step=1.0, round=0.001, tooltip=tooltip)


def video_inputs() -> list[io.Input]:
    """A video as one socket, and the frame rate that frames in an IMAGE do not know."""
    return [
        io.MultiType.Input("video", [io.Video, io.Image], tooltip="A VIDEO, or its frames as an IMAGE batch."),
        fps_input(
            "Frames per second of an IMAGE batch; a VIDEO knows its own. The model sees 12 frames a second of up to six"
            " seconds, and a longer video in as many frames."
        ),
    ]


def size_problem(name: str, value: int | None, lowest: int = SIZE_STEP) -> str | None:
    """What is wrong with a width or height, if anything. None: linked, known only when the node runs."""
    if value is None or (lowest <= value <= MAX_SIZE and value % SIZE_STEP == 0):
        return None
    return f"{name} must be a multiple of {SIZE_STEP} from {lowest} to {MAX_SIZE}, is {value}"


def own_size_problem(width: int | None, height: int | None) -> str | None:
    """What is wrong with a size that may be left to the resolution, if anything. None: linked, not known yet."""
    if width is not None and height is not None and (width == 0) != (height == 0):
        return f"give both width and height or neither (0): they are {width} and {height}"
    for name, value in (("width", width), ("height", height)):
        problem = size_problem(name, value, MIN_SOURCE_SIZE) if value else None
        if problem:
            return f"{problem} (0: as the resolution says)"
    return None


def resolution_of(resolution: str, width: int, height: int) -> str:
    """The daemon's parameter for a preset and a size of one's own."""
    if problem := own_size_problem(width, height):
        raise ValueError(problem)
    return f"{height}x{width}" if width else resolution
