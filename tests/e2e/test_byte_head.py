"""lanced --head int8: what gives an answer's tokens in 8 bits a weight."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from lanced_client import Client, Result
from lanced_process import DEMO_AWQ, DEMO_MODEL, LANCED, REQUEST, Lanced

QUESTIONS = ("what shape is it?", "what colour is it?", "what colour is the background?")


def asked(client: Client, picture: Result) -> list[Result]:
    assert picture.pixels is not None
    return [client.generate("x2t_image", prompt=question, source=picture.pixels[0]) for question in QUESTIONS]


@pytest.mark.parametrize("model", [DEMO_MODEL, DEMO_AWQ], ids=lambda model: model.name)
def test_answers_of_a_head_in_bytes_are_those_of_the_files_and_pictures_the_same_bytes(model: Path) -> None:
    with Lanced(models=(model,)) as daemon, daemon.client() as client:
        picture = client.generate("t2i", **REQUEST)
        answers = asked(client, picture)
    with Lanced("--head", "int8", models=(model,)) as daemon, daemon.client() as client:
        again = client.generate("t2i", **REQUEST)
        assert again.pixels is not None and picture.pixels is not None
        assert np.array_equal(again.pixels, picture.pixels)
        rounded = asked(client, picture)
        assert "has 8 bits a weight" in daemon.log.read_text()
    assert [answer.text for answer in rounded] == [answer.text for answer in answers]
    assert all(answer.text for answer in answers)
    # Their names are others, so that a result that is kept never stands for one of the other head.
    assert rounded[0].receipt["model"]["hash"] != answers[0].receipt["model"]["hash"]
    assert rounded[0].receipt["digest"] != answers[0].receipt["digest"]


def test_a_head_that_there_is_not_is_refused_by_name() -> None:
    answer = subprocess.run(
        [str(LANCED), "--model", str(DEMO_MODEL), "--head", "int4"], capture_output=True, text=True, timeout=60
    )
    assert answer.returncode != 0 and '--head: must be exact or int8, not "int4"' in answer.stderr
