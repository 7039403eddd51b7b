"""The demo: every 4-bit form of the demo model draws what the prompt says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from demo.demo import ROOT, draw_contact_sheet, private_daemon, render


@pytest.mark.parametrize("form", ["lance-demo", "lance-demo-awq", "lance-demo-awq64", "lance-demo-nvfp4"])
def test_pictures_have_the_colours_place_and_size_that_were_asked_for(form: str, tmp_path: Path) -> None:
    model = ROOT / "demo" / form
    prompts = json.loads((ROOT / "demo/prompts.json").read_text())[:4]
    sizes = json.loads((model / "demo.json").read_text())
    with private_daemon(ROOT / "build/lanced", model, tmp_path / "lanced.log") as client:
        pictures = render(client, prompts, sizes)
    for picture in pictures:
        assert picture.right("colour", "background", "place", "size"), f"{picture.prompt}: {picture.seen}"

    sheet = tmp_path / "sheet.png"
    draw_contact_sheet(pictures, form, sheet)
    with Image.open(sheet) as image:
        assert image.width > 4 * 256
