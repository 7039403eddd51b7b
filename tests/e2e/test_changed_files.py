"""Model files that change while lanced has them mapped: the next job sees what is there now, and no job a mixture."""

from __future__ import annotations

import shutil
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lanced_client import BadFile, Client, Progress
from lanced_process import DEMO_MODEL, LONG_REQUEST, REQUEST, Lanced

Pixels = np.ndarray[Any, Any]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO_MODEL, tmp_path / "model"))


@pytest.fixture
def client(model: Path) -> Iterator[Client]:
    with Lanced(models=(model,)) as daemon, daemon.client() as client:
        client.load()
        yield client


def other_weights(path: Path) -> bytes:
    """The file with another sign of half its weights, and the same size."""
    data = bytearray(path.read_bytes())
    begin = 8 + struct.unpack("<Q", data[:8])[0]
    half = np.frombuffer(data, np.uint8)[begin + (len(data) - begin) // 2 & ~1 :]
    half[1::2] ^= 0x80
    return bytes(data)


def picture(client: Client) -> Pixels:
    pixels = client.generate("t2i", **REQUEST).pixels
    assert pixels is not None
    return pixels


def of_a_fresh_daemon(model: Path) -> Pixels:
    with Lanced(models=(model,)) as daemon, daemon.client() as client:
        return picture(client)


def rewrite(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:
        file.write(data)


def replace(path: Path, data: bytes) -> None:
    path.with_suffix(".new").write_bytes(data)
    path.with_suffix(".new").rename(path)


@pytest.mark.parametrize("change", [rewrite, replace])
def test_the_job_after_a_change_of_the_weights_is_made_with_the_new_ones(
    change: Callable[[Path, bytes], None], client: Client, model: Path
) -> None:
    before = picture(client)
    weights = model / "model.safetensors"
    change(weights, other_weights(weights))
    after = picture(client)
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, of_a_fresh_daemon(model))
    assert client.stats()["loads"] == 2
    np.testing.assert_array_equal(after, picture(client))
    assert client.stats()["loads"] == 2


def test_a_job_whose_weights_are_rewritten_while_it_runs_fails_in_words_and_the_next_is_right(
    client: Client, model: Path
) -> None:
    weights = model / "model.safetensors"
    with client.submit("t2i", **(LONG_REQUEST | {"num_inference_steps": 40})) as job:
        while not any(isinstance(event, Progress) and event.stage == "denoise" for event in job.poll(1)):
            pass
        rewrite(weights, other_weights(weights))
        with pytest.raises(BadFile, match=r"model\.safetensors: was rewritten while it was in use; try again"):
            job.result()
    np.testing.assert_array_equal(picture(client), of_a_fresh_daemon(model))


def test_a_vae_that_is_rewritten_between_two_jobs_is_noticed_too(client: Client, model: Path) -> None:
    picture(client)
    vae = next(model.glob("*VAE*"))
    time.sleep(0.02)  # the clock of files ticks every few milliseconds
    rewrite(vae, vae.read_bytes())
    picture(client)
    assert client.stats()["loads"] == 2


def test_files_that_are_removed_are_still_there_for_who_has_loaded_them(client: Client, model: Path) -> None:
    before = picture(client)
    shutil.rmtree(model)
    np.testing.assert_array_equal(before, picture(client))
    assert client.stats()["loads"] == 1
