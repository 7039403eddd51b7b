"""Every task from another machine: over TLS, at 2 MB/s, with 50 ms more each way; and what does not get through."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import certificates
import far_away
from certificates import TOKENS
from far_away import FarAway
from lanced_process import LANCECTL, LANCECTL_SECONDS, ROOT, SLOWER, Lanced

PATIENCE_SECONDS = 240 * SLOWER
SIDE, FRAMES = 512, 9  # of the sources, 0.8 and 7 MB: they take their time on such a line
LEAST_CARRIED_BYTES = 2 * FRAMES * SIDE * SIDE * 3  # a clip there, and its pixels back: nothing found a way around
REFUSED = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5)"

EVERY_TASK = """
import hashlib, json, sys, time
import numpy as np
from lanced_client import Client, transport
peer, picture, clip = getattr(transport, sys.argv[1]), np.load(sys.argv[2]), np.load(sys.argv[3])
pictures = dict(width=64, height=64, num_inference_steps=2, seed=3)
videos = pictures | dict(num_frames=5)
question = dict(prompt="What is it?", width=112, height=112, max_new_tokens=4)
tasks = {
    "t2i": dict(prompt="a red circle", **pictures),
    "t2v": dict(prompt="a red circle moves", **videos),
    "i2v": dict(prompt="it moves", source=picture, **videos),
    "image_edit": dict(prompt="make it blue", source=picture, **pictures),
    "video_edit": dict(prompt="make it blue", source=clip, fps=12.0, **pictures),
    "x2t_image": dict(source=picture, **question),
    "x2t_video": dict(source=clip, fps=12.0, **question),
}
told = {}
with Client(peer_factory=peer) as client:
    for task, request in tasks.items():
        began = time.monotonic()
        result = client.generate(task, **request)
        made = result.text.encode() if result.text is not None else result.pixels.tobytes()
        told[task] = [hashlib.sha256(made).hexdigest(), time.monotonic() - began]
    began = time.monotonic()
    latents = client.encode(clip)
    told["encode"] = [hashlib.sha256(latents.tobytes()).hexdigest(), time.monotonic() - began]
    began = time.monotonic()
    told["decode"] = [hashlib.sha256(client.decode(latents).tobytes()).hexdigest(), time.monotonic() - began]
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def there() -> Iterator[FarAway]:
    reason = far_away.reason_against()
    if reason is not None:
        pytest.skip(reason)
    with FarAway() as far:
        yield far


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates.make(tmp_path_factory.mktemp("ca"), far_away.HERE)


@pytest.fixture(scope="module")
def daemon(there: FarAway, authority: Path) -> Iterator[Lanced]:
    with socket.create_server((there.here, 0)) as taken:
        port = taken.getsockname()[1]
    options = certificates.options(authority, authority / f"{far_away.HERE}.pem")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANCED_CA", str(authority / "ca.pem"))
        with Lanced(*options, endpoint=f"tls+tcp://{there.here}:{port}", token=TOKENS["alice"]) as daemon:
            yield daemon


@pytest.fixture(scope="module")
def far_endpoint(there: FarAway, daemon: Lanced) -> str:
    return f"tls+tcp://127.0.0.1:{there.proxy(int(daemon.endpoint.rpartition(':')[2]))}"


@pytest.fixture
def sources(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other ones for every test: what the daemon has of another is not sent again."""
    folder = tmp_path_factory.mktemp("sources")
    random = np.random.default_rng(zlib.crc32(request.node.name.encode()))
    clip = random.integers(0, 256, (FRAMES, SIDE, SIDE, 3), np.uint8)
    np.save(folder / "picture.npy", clip[0])
    np.save(folder / "clip.npy", clip)
    Image.fromarray(clip[0]).save(folder / "picture.png")
    (folder / "clip").mkdir()
    for i, frame in enumerate(clip):
        Image.fromarray(frame).save(folder / "clip" / f"{i + 1:05}.png")
    return folder


def run(command: Sequence[str], endpoint: str, authority: Path) -> str:
    environment = os.environ | {
        "LANCED_ENDPOINT": endpoint,
        "LANCED_CA": str(authority / "ca.pem"),
        "LANCED_TOKEN": TOKENS["alice"],
        "PYTHONPATH": str(ROOT / "protocol/python"),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("peer", ["PynngPeer", "SocketPeer"])
def test_every_task_of_the_python_client(
    there: FarAway, daemon: Lanced, far_endpoint: str, authority: Path, sources: Path, peer: str
) -> None:
    command = [sys.executable, "-c", EVERY_TASK, peer, str(sources / "picture.npy"), str(sources / "clip.npy")]
    before = there.carried_bytes()
    far = json.loads(run(there.command(command), far_endpoint, authority))
    assert there.carried_bytes() - before > LEAST_CARRIED_BYTES
    near = json.loads(run(command, daemon.endpoint, authority))
    print({task: f"{seconds:.1f} s, here {near[task][1]:.1f} s" for task, (_, seconds) in far.items()})
    assert {task: made for task, (made, _) in far.items()} == {task: made for task, (made, _) in near.items()}


def pixels_of(path: Path) -> list[np.ndarray]:
    files = sorted(path.glob("*.png")) if path.is_dir() else [path]
    return [np.asarray(Image.open(file)) for file in files]


def lancectl_commands(sources: Path, made: Path) -> dict[str, list[str]]:
    small, few = ["--size", "64x64", "--steps", "2", "--seed", "3"], ["--frames", "5"]
    picture, clip = str(sources / "picture.png"), f"{sources}/clip/"
    return {
        "t2i": ["t2i", "a red circle", *small, "-o", f"{made}/t2i.png"],
        "t2v": ["t2v", "a red circle moves", *small, *few, "-o", f"{made}/t2v/"],
        "i2v": ["i2v", picture, "it moves", *small, *few, "-o", f"{made}/i2v/"],
        "edit": ["edit", picture, "make it blue", *small, "-o", f"{made}/edit.png"],
        "video-edit": ["video-edit", clip, "make it blue", *small, "--fps", "12", "-o", f"{made}/video-edit/"],
        "ask": ["ask", picture, "What is it?", "--resolution", "112x112", "--max-tokens", "4"],
        "ask of a video": ["ask", clip, "What is it?", "--resolution", "112x112", "--max-tokens", "4", "--fps", "12"],
        "encode": ["encode", clip, "--fps", "12", "-o", f"{made}/clip.latent"],
        "decode": ["decode", f"{made}/clip.latent", "-o", f"{made}/decode/"],
    }


def test_every_task_of_lancectl(
    there: FarAway, daemon: Lanced, far_endpoint: str, authority: Path, sources: Path, tmp_path: Path
) -> None:
    before = there.carried_bytes()
    said: dict[str, dict[str, str]] = {}
    seconds: dict[str, float] = {}
    for where in ("far", "near"):
        made = tmp_path / where
        made.mkdir()
        said[where] = {}
        for task, arguments in lancectl_commands(sources, made).items():
            command = [str(LANCECTL), *arguments, "-q"]
            began = time.monotonic()
            said[where][task] = (
                run(command, daemon.endpoint, authority)
                if where == "near"
                else run(there.command(command), far_endpoint, authority)
            )
            seconds[f"{task}, {where}"] = time.monotonic() - began
    print({task: f"{taken:.1f} s" for task, taken in seconds.items()})
    assert there.carried_bytes() - before > LEAST_CARRIED_BYTES
    for task in ("ask", "ask of a video"):
        assert said["far"][task] == said["near"][task] != ""
    for name in ("t2i.png", "t2v", "i2v", "edit.png", "video-edit", "decode"):
        near, far = pixels_of(tmp_path / "near" / name), pixels_of(tmp_path / "far" / name)
        assert len(near) == len(far) > 0
        for a, b in zip(near, far, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_daemon_at_plain_tcp_is_not_reached_from_another_machine(there: FarAway) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Lanced(endpoint=f"tcp://127.0.0.1:{port}") as daemon, daemon.client() as client:
        for address in (there.here, "127.0.0.1"):
            done = subprocess.run(there.command([sys.executable, "-c", REFUSED, address, str(port)]),
                                  capture_output=True, text=True, timeout=LANCECTL_SECONDS)  # fmt: skip
            assert "ConnectionRefusedError" in done.stderr
        done = subprocess.run(there.command([str(LANCECTL), "status", "--endpoint", f"tcp://{there.here}:{port}"]),
                              capture_output=True, text=True, timeout=LANCECTL_SECONDS)  # fmt: skip
        assert done.returncode == 2 and "not a loopback address" in done.stderr
        client.hello()
