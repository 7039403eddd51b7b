"""The demo's scores: what is counted as right has to be right, and what is wrong has to cost."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.examples import GENERATION_TASKS, QUESTION_TASKS, TASKS, Example, examples, is_clip, shoot
from demo.score import Marks, Tally, judge_answer, judge_frames, standard_error
from demo.score_table import closing_table, difference, document, read_official
from demo.shapes import COLOURS, Scene
from demo.sheets import draw_sheet
from demo.tasks import Outcome, orders, parameters
from demo.torch_noise import evaluation_noise, torch_randn

SIZES = json.loads((Path(__file__).resolve().parents[2] / "demo/lance-demo/demo.json").read_text())
WANTED = Scene("circle", "red", "blue", "large", "left", "right")


def drawn_outcome(example: Example) -> Outcome:
    """What a perfect model would give."""
    before = shoot(example.task, example.source) if example.source else None
    if example.task in QUESTION_TASKS:
        text = {"describe": example.wanted.clip_caption() if example.wanted.motion else example.wanted.caption()}
        answer = text.get(example.kind) or "no idea"
        marks, mistakes = judge_answer(example, answer)
        return Outcome(example, "job", before, None, answer, marks, mistakes, 0.5)
    frames = shoot(example.task, example.wanted)
    marks, mistakes = judge_frames(example, frames)
    return Outcome(example, "job", before, frames, "", marks, mistakes, 0.5)


@pytest.mark.parametrize("task", GENERATION_TASKS)
def test_a_perfect_model_has_everything_right(task: str) -> None:
    for example in examples(task, 20, random.Random(4)):
        marks, mistakes = judge_frames(example, shoot(task, example.wanted))
        # The small triangles of clips are read in fewer pixels; their shape may be off.
        wrong = [name for name, right in marks.items() if not right and not (is_clip(task) and name == "shape")]
        assert wrong == [], f"{example}: {mistakes}"


@pytest.mark.parametrize("task", ["image_edit", "video_edit"])
def test_an_edit_that_changes_nothing_is_wrong(task: str) -> None:
    for example in examples(task, 12, random.Random(5)):
        assert example.source is not None
        marks, mistakes = judge_frames(example, shoot(task, example.source))
        assert not all(marks.values()) and mistakes, example


def test_a_clip_that_moves_the_wrong_way_or_not_at_all_is_wrong() -> None:
    example = Example("i2v", "the circle moves right", WANTED, WANTED)
    frames = shoot("i2v", WANTED)
    assert judge_frames(example, frames)[0]["motion"]
    assert not judge_frames(example, frames[::-1])[0]["motion"]
    assert not judge_frames(example, np.repeat(frames[4:5], 9, 0))[0]["motion"]


def test_an_answer_is_right_only_word_for_word() -> None:
    question = Example("x2t_image", "What colour is the shape?", WANTED, WANTED, "colour")
    assert judge_answer(question, "red") == ({"colour": True}, [])
    assert judge_answer(question, "dark red") == ({"colour": False}, ["it is: red"])


def test_fewer_examples_are_the_first_ones_of_more() -> None:
    for task in TASKS:
        assert examples(task, 5, random.Random(9)) == examples(task, 30, random.Random(9))[:5]


def test_noise_is_that_of_pytorch() -> None:
    # torch.randn(32, generator=torch.Generator().manual_seed(7))[:4]
    assert torch_randn(7, 32)[:4] == pytest.approx([-0.8201345, 0.39563116, 0.8989085, -1.3884038], abs=1e-6)
    values = torch_randn(20261 + 20, 20 * 108 * 48).reshape(20, 108, 48)
    assert np.array_equal(evaluation_noise(20261, 23, 108)[0], values[3])
    assert abs(float(values.mean())) < 0.02 and abs(float(values.std()) - 1) < 0.02


def test_every_task_is_asked_for_at_the_sizes_the_model_was_trained_on() -> None:
    asked = {task: parameters(orders(examples(task, 1, random.Random(1)), 3)[0], SIZES) for task in TASKS}
    assert asked["t2i"]["noise"].shape == (1, 64, 48) and asked["t2i"]["width"] == 128
    assert asked["t2v"]["noise"].shape == (1, 108, 48) and asked["t2v"]["num_frames"] == 9
    assert asked["i2v"]["source"].shape == (1, 96, 96, 3) and asked["i2v"]["num_frames"] == 9
    assert asked["video_edit"]["source"].shape == (9, 96, 96, 3)
    assert asked["video_edit"]["resolution"] == "96x96/112x112" and asked["video_edit"]["fps"] == 12
    assert "noise" not in asked["x2t_video"]


def test_counts_and_percentages_agree() -> None:
    rows: list[Marks] = [{"colour": True, "shape": True}, {"colour": True, "shape": False}, {"colour": False}]
    tally = Tally(rows)
    assert (tally.right("colour"), tally.right("shape"), tally.all_right()) == ((2, 3), (1, 2), 1)
    percent = tally.percent()
    assert percent["asked"] == pytest.approx(60) and percent["all"] == pytest.approx(100 / 3)
    assert standard_error(50, 100) == pytest.approx(5, abs=0.1)
    assert 0 < standard_error(100, 20) < 10


def test_a_difference_is_taken_item_by_item() -> None:
    assert difference([True, True, False], [True, True, False]) == (0, 0)
    mean, error = difference([True, True, True, False], [True, False, False, True])
    assert mean == pytest.approx(25) and error > 0


def test_tables_have_every_task_and_form() -> None:
    outcomes = {task: [drawn_outcome(one) for one in examples(task, 12, random.Random(2))] for task in TASKS}
    tallies = {task: Tally([outcome.marks for outcome in done]) for task, done in outcomes.items()}
    lines = closing_table(tallies, "awq-128")
    assert [line.split()[0] for line in lines[2 : 2 + len(TASKS)]] == list(TASKS)
    assert "60 of 60" in lines[2] and "12/12" in lines[2]
    official = read_official()
    assert official["t2i"]["asked"] == pytest.approx(96.4) and official["x2t_video"]["asked"] == 100
    text = document({"bf16": tallies, "nvfp4": tallies}, seed=1)
    assert "| t2i | 12 | nvfp4 | 100 | 100 | 100 | 100 |  | 100 | 100.0 | 100.0 |" in text
    assert "| everything | +0.0 ± 0.0 | +0.0 ± 0.0 |" in text


@pytest.mark.parametrize("task", TASKS)
def test_a_sheet_shows_every_outcome(task: str, tmp_path: Path) -> None:
    outcomes = [drawn_outcome(example) for example in examples(task, 6, random.Random(6))]
    draw_sheet(outcomes, "a title", tmp_path / "six.png")
    draw_sheet(outcomes[:1], "a title", tmp_path / "one.png")
    with Image.open(tmp_path / "six.png") as six, Image.open(tmp_path / "one.png") as one:
        assert six.size[0] * six.size[1] > 2 * one.size[0] * one.size[1]
        shown = outcomes[0].example.source or outcomes[0].example.wanted
        found = (np.abs(np.asarray(one).astype(int) - COLOURS[shown.background]).max(-1) <= 2).sum()
        assert found > 1000
