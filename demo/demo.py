"""`make demo`: starts a daemon of its own on the demo model, renders demo/prompts.json, draws a contact sheet, and
counts how many pictures show what was asked for.

    PYTHONPATH=protocol/python .venv/bin/python -m demo.demo [--model demo/lance-demo-nvfp4]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from demo.shapes import Look, Pixels, Scene, look, scene_of_caption
from lanced_client import Client, ConnectionFailed, Event, ModelInfo, Progress

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 60
ATTRIBUTES = ("colour", "background", "place", "size", "shape")


@dataclass
class Picture:
    prompt: str
    wanted: Scene
    seen: Look
    pixels: Pixels  # [height, width, 3]
    seconds: float

    def right(self, *attributes: str) -> bool:
        return self.seen.matches(self.wanted, *attributes)

    def mistakes(self) -> list[str]:
        wrong = [name for name in ATTRIBUTES if not self.right(name)]
        return [f"{name} looks like {getattr(self.seen, name) or 'none'}" for name in wrong]


class ProgressBar:
    """One line over all pictures on a terminal; elsewhere one line a picture."""

    WIDTH = 30

    def __init__(self, total: int) -> None:
        self.total, self.started = total, time.monotonic()
        self.on_terminal = sys.stdout.isatty()

    def show(self, finished: int, part: float, prompt: str) -> None:
        if not self.on_terminal:
            return
        done = (finished + part) / self.total
        filled = round(done * self.WIDTH)
        elapsed = time.monotonic() - self.started
        left = f"{elapsed / done - elapsed:3.0f} s left" if done > 0.02 else ""
        bar = "█" * filled + "░" * (self.WIDTH - filled)
        print(f"\r\033[K{bar} {finished}/{self.total} {left}  {prompt[:50]}", end="", flush=True)

    def finished(self, count: int, picture: Picture) -> None:
        if not self.on_terminal:
            print(f"{count:3}/{self.total}  {picture.seconds:5.2f} s  {picture.prompt}", flush=True)
        elif count == self.total:
            print("\r\033[K", end="", flush=True)


@contextmanager
def private_daemon(binary: Path, model: Path, log_path: Path) -> Iterator[Client]:
    """A daemon on a socket that nobody else knows; it ends with the block."""
    with tempfile.TemporaryDirectory(prefix="lanced-demo-") as folder, log_path.open("wb") as log:
        endpoint = f"ipc://{folder}/lanced.ipc"
        command = [str(binary), "--endpoint", endpoint, "--model", str(model)]
        # A session of its own: Ctrl-C is for this program, which then cancels its job and ends the daemon.
        daemon = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            with Client(endpoint) as client:
                wait_until_it_answers(client, daemon, log_path)
                yield client
                client.shutdown()
            daemon.wait(timeout=10)
        finally:
            if daemon.poll() is None:
                daemon.terminate()
                try:
                    daemon.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()


def wait_until_it_answers(client: Client, daemon: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            client.hello()
            return
        except ConnectionFailed as error:
            if daemon.poll() is not None:
                log = log_path.read_text(errors="replace")
                raise SystemExit(f"{log}\nlanced ended with status {daemon.returncode}; its log is above") from error
            if time.monotonic() > deadline:
                raise SystemExit(f"lanced did not answer within {START_SECONDS} s; see {log_path}") from error
            time.sleep(0.05)


def render(client: Client, prompts: list[dict[str, Any]], sizes: dict[str, Any]) -> list[Picture]:
    """One picture after the other, at the size and with the sampler settings the demo model was trained for."""
    sampler, image = sizes["sampler"], sizes["image"]
    bar = ProgressBar(len(prompts))
    pictures: list[Picture] = []
    for entry in prompts:
        prompt: str = entry["prompt"]

        def on_event(event: Event, prompt: str = prompt) -> None:
            if isinstance(event, Progress) and event.total_steps:
                bar.show(len(pictures), event.total_step / event.total_steps, prompt)

        started = time.monotonic()
        result = client.generate(
            "t2i",
            on_event,
            prompt=prompt,
            seed=entry["seed"],
            width=image["width"],
            height=image["height"],
            num_inference_steps=sampler["steps"],
            timestep_shift=sampler["shift"],
            guidance_scale=sampler["cfg"],
            guidance_interval=sampler["cfg_interval"],
            guidance_renorm=sampler["cfg_renorm"],
        )
        assert result.pixels is not None
        pixels: Pixels = result.pixels[0, 0]
        pictures.append(Picture(prompt, scene_of_caption(prompt), look(pixels), pixels, time.monotonic() - started))
        bar.finished(len(pictures), pictures[-1])
    return pictures


def wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def draw_contact_sheet(pictures: list[Picture], title: str, path: Path) -> None:
    """Every picture enlarged, its prompt under it, and in red what does not show what was asked for."""
    columns, side, gap, line = 4, 256, 24, 21
    title_font, font = ImageFont.load_default(size=24), ImageFont.load_default(size=16)
    row_height = side + 3 * line + gap + 8
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (side + gap) + gap, rows * row_height + 3 * gap), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, gap // 2 + 4), title, "black", title_font)
    for i, picture in enumerate(pictures):
        x, y = gap + i % columns * (side + gap), 2 * gap + 12 + i // columns * row_height
        enlarged = Image.fromarray(picture.pixels).resize((side, side), Image.Resampling.BICUBIC)
        sheet.paste(enlarged, (x, y))
        draw.rectangle((x - 1, y - 1, x + side, y + side), outline="gray")
        texts = [(text, "black") for text in wrap(picture.prompt, font, side)]
        texts += [(text, "firebrick") for text in wrap(", ".join(picture.mistakes()), font, side)]
        for k, (text, colour) in enumerate(texts):
            draw.text((x, y + side + 6 + k * line), text, colour, font)
    sheet.save(path)


def describe(model: ModelInfo | None, directory: Path) -> str:
    return f"{model.name} ({model.kind})" if model else directory.name


def main() -> None:
    parser = argparse.ArgumentParser(description="Renders the demo prompts with a daemon of its own.")
    parser.add_argument("--model", type=Path, default=ROOT / "demo/lance-demo-awq", help="a form of the demo model")
    parser.add_argument("--prompts", type=Path, default=ROOT / "demo/prompts.json")
    parser.add_argument("--lanced", type=Path, default=ROOT / "build/lanced")
    parser.add_argument("--out", type=Path, default=ROOT / "demo/out")
    args = parser.parse_args()
    prompts = json.loads(args.prompts.read_text())
    sizes = json.loads((args.model / "demo.json").read_text())
    args.out.mkdir(parents=True, exist_ok=True)
    with private_daemon(args.lanced, args.model, args.out / "lanced.log") as client:
        model = client.load(args.model.name)
        name = describe(model, args.model)
        print(f"lanced has loaded {name} in {model.load_seconds:.2f} s and draws {len(prompts)} pictures.", flush=True)
        pictures = render(client, prompts, sizes)

    mean = sum(picture.seconds for picture in pictures) / len(pictures)
    image, steps = sizes["image"], sizes["sampler"]["steps"]
    timing = f"{mean:.2f} s a picture ({image['width']}x{image['height']}, {steps} steps)"
    sheet = args.out / "contact-sheet.png"
    draw_contact_sheet(pictures, f"lanced, {name}: {timing}", sheet)

    def count(*attributes: str) -> int:
        return sum(picture.right(*attributes) for picture in pictures)

    right = count("colour", "background", "place", "size")
    print(f"Right colour, place and size: {right} of {len(pictures)} pictures.")
    print("Each: " + ", ".join(f"{attribute} {count(attribute)}" for attribute in ATTRIBUTES) + ".")
    print(f"Time: {timing}.")
    print(f"Look at {sheet}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ninterrupted")
