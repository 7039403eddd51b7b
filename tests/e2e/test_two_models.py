"""lanced --models-resident: models beside each other in memory, what they cost each other, and that no byte changes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from lanced_client import BadFile, Client, Progress, TooLarge
from lanced_process import DEMO_AWQ, DEMO_MODEL, DEMO_NVFP4, LONG_REQUEST, REQUEST, Lanced, memory_of

TWO = ("--models-resident", "2")
FILM: dict[str, Any] = REQUEST | {"width": 96, "height": 96, "num_frames": 9, "num_inference_steps": 60}


def picture(client: Client, model: Path, **request: Any) -> bytes:
    pixels = client.generate("t2i", model=model.name, **REQUEST | request).pixels
    assert pixels is not None
    return pixels.tobytes()


def in_memory(client: Client) -> set[str]:
    return {model.name for model in client.models() if model.loaded}


@pytest.fixture(scope="module")
def alone() -> dict[str, bytes]:
    with Lanced(models=(DEMO_MODEL, DEMO_AWQ)) as daemon, daemon.client() as client:
        pictures = {model.name: picture(client, model) for model in (DEMO_MODEL, DEMO_AWQ)}
        assert client.stats()["loads"] == 2 and in_memory(client) == {DEMO_AWQ.name}
    return pictures


def test_jobs_for_two_models_alternate_without_a_load_and_have_the_bytes_of_each_alone(alone: dict[str, bytes]) -> None:
    with Lanced(*TWO, models=(DEMO_MODEL, DEMO_AWQ)) as daemon, daemon.client() as client:
        for model in (DEMO_MODEL, DEMO_AWQ) * 3:
            assert picture(client, model) == alone[model.name]
        stats = client.stats()
        assert (stats["loads"], stats["unloads"]) == (2, 0)
        assert in_memory(client) == {DEMO_MODEL.name, DEMO_AWQ.name}
        assert stats["memory"]["weight_bytes"] > stats["model"]["weight_bytes"]


def test_the_one_that_was_not_used_for_longest_makes_room_for_a_third(alone: dict[str, bytes]) -> None:
    with Lanced(*TWO, models=(DEMO_MODEL, DEMO_AWQ, DEMO_NVFP4)) as daemon, daemon.client() as client:
        picture(client, DEMO_AWQ)
        picture(client, DEMO_MODEL)
        client.load(DEMO_NVFP4.name)
        assert in_memory(client) == {DEMO_MODEL.name, DEMO_NVFP4.name}
        assert picture(client, DEMO_AWQ) == alone[DEMO_AWQ.name]


def test_a_model_is_loaded_beside_one_that_works_and_a_question_of_it_is_answered_meanwhile() -> None:
    with Lanced(*TWO, models=(DEMO_MODEL, DEMO_AWQ)) as daemon, daemon.client() as client, daemon.client() as other:
        client.load()
        alone = client.generate("t2v", **FILM).pixels
        with client.submit("t2v", **FILM) as film:
            while not film.poll(1):
                pass
            other.load(DEMO_AWQ.name)
            picture(other, DEMO_AWQ, priority="interactive")
            film.poll(0)
            assert film.ended is None  # nobody waited for its end
            result = film.result()
        assert result.pixels is not None and alone is not None and result.pixels.tobytes() == alone.tobytes()
        assert client.stats()["loads"] == 2


def test_a_job_that_names_no_model_has_the_one_that_was_loaded_when_it_was_submitted(alone: dict[str, bytes]) -> None:
    with Lanced(*TWO, models=(DEMO_MODEL, DEMO_AWQ)) as daemon, daemon.client() as client, daemon.client() as other:
        client.load()
        with client.submit("t2i", **LONG_REQUEST) as before:
            job = client.submit("t2i", **REQUEST)
            other.load(DEMO_AWQ.name)
            assert not any(isinstance(event, Progress) for event in job.poll(0))
            before.cancel()
        pixels = job.result().pixels
        assert pixels is not None and pixels.tobytes() == alone[DEMO_MODEL.name]
        assert picture(client, DEMO_AWQ) == alone[DEMO_AWQ.name]


@pytest.mark.parametrize("room", [TWO, ("--memory", str(1 << 50))], ids=["for two", "for one"])
def test_a_load_that_fails_leaves_the_model_that_serves(
    alone: dict[str, bytes], tmp_path: Path, room: tuple[str, str]
) -> None:
    broken = Path(shutil.copytree(DEMO_NVFP4, tmp_path / "broken"))
    for file in broken.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:1000])
    with Lanced(*room, models=(DEMO_MODEL, broken)) as daemon, daemon.client() as client:
        client.load()
        with pytest.raises(BadFile):
            client.load("broken")
        assert in_memory(client) == {DEMO_MODEL.name}
        assert picture(client, DEMO_MODEL) == alone[DEMO_MODEL.name]
        stats = client.stats()
        assert (stats["loads"], stats["unloads"]) == (1, 0)


def test_a_model_whose_files_have_changed_is_loaded_again_and_the_other_stays(
    alone: dict[str, bytes], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(DEMO_AWQ, tmp_path / "copy"))
    with Lanced(*TWO, models=(DEMO_MODEL, copy)) as daemon, daemon.client() as client:
        picture(client, DEMO_MODEL)
        assert picture(client, copy) == alone[DEMO_AWQ.name]
        weights = next(copy.glob("*.safetensors"))
        data = weights.read_bytes()
        weights.with_suffix(".new").write_bytes(data)
        weights.with_suffix(".new").rename(weights)
        assert picture(client, copy) == picture(client, copy) == alone[DEMO_AWQ.name]
        picture(client, DEMO_MODEL)
        assert client.stats()["loads"] == 3


def test_what_jobs_of_one_model_hold_is_not_there_for_those_of_the_other() -> None:
    large = FILM | {"num_inference_steps": 20}
    square = {"width": 160, "height": 160, "priority": "interactive"}
    needs = memory_of("t2v", large), memory_of("t2i", REQUEST | square)
    limit = int((max(needs) + min(needs) / 2) * 1e6)  # either has room, both together have not
    with Lanced(*TWO, "--memory", str(limit), models=(DEMO_MODEL, DEMO_AWQ)) as daemon, daemon.client() as client:
        wanted = client.generate("t2v", **large).pixels
        with client.submit("t2v", **large) as film, daemon.client() as other:
            while not film.poll(1):
                pass
            picture(other, DEMO_AWQ, **square)
            result = film.result()
        assert result.pixels is not None and wanted is not None and result.pixels.tobytes() == wanted.tobytes()
        assert "suspended" in daemon.log.read_text()
        with pytest.raises(TooLarge):
            picture(client, DEMO_AWQ, width=1024, height=1024)
