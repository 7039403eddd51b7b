"""The page of a job: failures first, everything escaped, and its script works in a browser that opens it from disk."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lance_farm.page import Entry, Thumbnail, page_of

CHROMIUM = shutil.which("chromium")
RECEIPT = {
    "worker": "n1-5-ab", "attempt": 1, "seconds": 1.5,
    "receipts": [{"backend": "cpu", "prompt": "<i>fox</i>", "params": {"seed": 7}}],
}  # fmt: skip
ENTRIES = [
    Entry(1, {"shot": "A & B"}, "done", receipt=RECEIPT, files=["files/a b.png"],
          thumbnails={"files/a b.png": Thumbnail("sheets/s.png", 128, 0, 128)}),
    Entry(2, {"shot": "C"}, "failed", "it <broke>"),
    Entry(3, {"shot": "D"}, "waiting"),
]  # fmt: skip


def test_failures_come_first_and_what_people_wrote_is_text() -> None:
    page = page_of("job <1>", ENTRIES)
    assert re.findall(r'<tr data-state="(\w+)"', page) == ["failed", "waiting", "done"]
    for text in ("A &amp; B", "it &lt;broke&gt;", "&lt;i&gt;fox&lt;/i&gt;", "job &lt;1&gt;", 'href="files/a%20b.png"'):
        assert text in page
    assert "<dt>seed</dt><dd>7</dd>" in page


@pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed (make test-farm)")
def test_the_page_works_when_it_is_opened_from_disk(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    search = '<script>document.querySelector("#text").value = "broke"; show();</script>'
    page.write_text(page_of("job", ENTRIES) + search)
    command = [CHROMIUM or "", "--headless", "--no-sandbox", "--dump-dom", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert '<span id="shown">1 of 3</span>' in shown
    assert len(re.findall(r"<tr [^>]*hidden", shown)) == 2
