"""Contact sheets: what the demo model made, the prompt under each picture, and in red what is not as asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from demo.shapes import Pixels
from demo.tasks import Outcome

GAP, LINE = 24, 21  # pixels between pictures, and from one line of text to the next
STRIP_FRAMES = 5  # how many frames of a clip a strip shows
ARROW = 34  # width of the space with an arrow between before and after

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass
class Cell:
    """One place of a sheet: rows of pictures, and lines of text with their colours."""

    rows: list[Image.Image]
    texts: list[tuple[str, str]]


def wrap(text: str, font: Font, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def enlarged(pixels: Pixels, side: int) -> Image.Image:
    picture = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
    ImageDraw.Draw(picture).rectangle((0, 0, side - 1, side - 1), outline="gray")
    return picture


def strip(frames: Pixels, side: int) -> Image.Image:
    """A clip as a row of frames evenly chosen, the first and the last among them."""
    chosen = np.linspace(0, len(frames) - 1, min(STRIP_FRAMES, len(frames))).round().astype(int)
    row = Image.new("RGB", (len(chosen) * (side + 4) - 4, side), "white")
    for i, k in enumerate(chosen):
        row.paste(enlarged(frames[k], side), (i * (side + 4), 0))
    return row


def with_arrow(before: Image.Image, after: Image.Image) -> Image.Image:
    row = Image.new("RGB", (before.width + ARROW + after.width, before.height), "white")
    row.paste(before, (0, 0))
    row.paste(after, (before.width + ARROW, 0))
    draw, middle, start = ImageDraw.Draw(row), before.height // 2, before.width + 6
    tip = before.width + ARROW - 5
    draw.line((start, middle, tip - 8, middle), "black", 2)
    draw.polygon([(tip, middle), (tip - 9, middle - 6), (tip - 9, middle + 6)], "black")
    return row


def cell_of(outcome: Outcome) -> Cell:
    """A picture alone; an edit beside its source, a clip beside the picture it began with; an edited clip under its
    source; a question under what it is about."""
    task, before, frames = outcome.example.task, outcome.before, outcome.frames
    if frames is not None and before is None:
        rows = [strip(frames, 112) if len(frames) > 1 else enlarged(frames[0], 256)]
    elif before is None:
        raise ValueError(f"{task}: nothing to show")
    elif frames is not None and task == "image_edit":
        rows = [with_arrow(enlarged(before[0], 192), enlarged(frames[0], 192))]
    elif frames is not None and task == "i2v":
        rows = [with_arrow(enlarged(before[0], 112), strip(frames, 112))]
    elif frames is not None:
        rows = [strip(before, 112), strip(frames, 112)]
    else:
        rows = [strip(before, 112) if len(before) > 1 else enlarged(before[0], 192)]
    texts = [(outcome.example.prompt, "black")]
    if outcome.text:
        texts.append((outcome.text, "seagreen" if outcome.right else "firebrick"))
    texts.append((", ".join(outcome.mistakes), "firebrick"))
    return Cell(rows, texts)


def draw_sheet(outcomes: Sequence[Outcome], title: str, path: Path) -> None:
    """The outcomes of one task, in rows of about the same width on every sheet."""
    title_font, font = ImageFont.load_default(size=24), ImageFont.load_default(size=16)
    cells = [cell_of(outcome) for outcome in outcomes]
    width = max(row.width for cell in cells for row in cell.rows)
    columns = min(len(cells), max(1, 1240 // (width + GAP)))
    lines = [
        [(line, colour) for text, colour in cell.texts for line in wrap(text, font, width)] for cell in cells
    ]
    pictures_height = max(sum(row.height + 4 for row in cell.rows) for cell in cells)
    cell_height = pictures_height + max(len(texts) for texts in lines) * LINE + GAP + 8
    sheet_width = max(columns * (width + GAP) + GAP, int(title_font.getlength(title)) + 2 * GAP)
    sheet = Image.new("RGB", (sheet_width, -(-len(cells) // columns) * cell_height + 3 * GAP), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP // 2 + 4), title, "black", title_font)
    for i, (cell, texts) in enumerate(zip(cells, lines, strict=True)):
        x, y = GAP + i % columns * (width + GAP), 2 * GAP + 12 + i // columns * cell_height
        for row in cell.rows:
            sheet.paste(row, (x, y))
            y += row.height + 4
        for k, (text, colour) in enumerate(texts):
            draw.text((x, y + 2 + k * LINE), text, colour, font)
    sheet.save(path)
