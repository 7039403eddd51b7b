"""Large payloads over a line that is slow, breaks, or falls silent: every client sees bytes move, goes on where it was,
and gives up in words. The long form is a picture set of 31 MB over 2 MB/s."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lanced_client import Client
from lanced_client.wire import encode_parts
from lanced_process import LANCECTL, ROOT, SLOWER, Lanced
from relay import Relay

IS_LONG = os.environ.get("LANCED_LONG_LINE") == "1"
FRAMES = 5 if IS_LONG else 1
HEIGHT, WIDTH = 1024, 2048  # of each frame: 6.3 MB
SENT_BYTES = FRAMES * HEIGHT * WIDTH * 3
BATCH = 10 if IS_LONG else 2
RECEIVED_BYTES = BATCH * 1024 * 1024 * 3
BYTES_PER_SECOND = 2e6 if IS_LONG else 3e6
SILENCE_SECONDS = 1
GONE = 3  # lancectl's exit code
# What a line that breaks may cost each time: the piece that was on its way, and what else had left meanwhile.
LOST_BYTES = (1 << 20) + 400_000
OTHER_BYTES = 200_000  # hello, wait, envelopes; the latents of `encode` and the rest of `submit`

PYTHON_CLIENT = """
import sys
import numpy as np
from lanced_client import Client, LanceError, transport
endpoint, peer, task, source, output = sys.argv[1:]
told = lambda moved: print(f"{moved.direction} {moved.bytes}/{moved.of_bytes}", file=sys.stderr)
try:
    with Client(endpoint, peer_factory=getattr(transport, peer)) as client:
        if task == "encode":
            result = client.generate(task, None, told, source=np.load(source), fps=12.0, width=64, height=64)
        else:
            result = client.generate(task, None, told, latents=np.load(source))
        np.save(output, result.latents if task == "encode" else result.pixels)
except LanceError as error:
    sys.exit(print(error, file=sys.stderr) or 3)
"""


@dataclass(frozen=True)
class Program:
    """A client with a task, of which `said` is what it printed."""

    endpoint: str
    task: str
    source: Path
    output: Path

    def command(self, client: str) -> list[str]:
        if client != "lancectl":
            return [sys.executable, "-c", PYTHON_CLIENT, self.endpoint, client, self.task,
                    f"{self.source}.npy", f"{self.output}.npy"]  # fmt: skip
        operand = f"{self.source}.latent" if self.task == "decode" else str(self.source)
        size = [] if self.task == "decode" else ["--size", "64x64"]
        output = f"{self.output}.{'png' if self.task == 'decode' else 'latent'}"
        return [str(LANCECTL), self.task, operand, *size, "-o", output, "--endpoint", self.endpoint]

    def start(self, client: str) -> subprocess.Popen[str]:
        environment = {"PYTHONPATH": str(ROOT / "protocol/python"), "LANCED_SILENCE_SECONDS": str(SILENCE_SECONDS)}
        return subprocess.Popen(
            self.command(client), env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def made(self, client: str) -> bytes:
        """What came out, without receipts."""
        if client != "lancectl":
            return bytes(np.load(f"{self.output}.npy").tobytes())
        if self.task == "encode":
            data = Path(f"{self.output}.latent").read_bytes()
            return data[8 + int.from_bytes(data[:8], "little") :]
        pictures = sorted(self.output.parent.glob(f"{self.output.name}*.png"))
        return b"".join(np.asarray(Image.open(picture).convert("RGB")).tobytes() for picture in pictures)


def ended(process: subprocess.Popen[str]) -> str:
    try:
        return process.communicate(timeout=300 * SLOWER)[1]
    finally:
        process.kill()


def write_source(path: Path, seed: int) -> None:
    """Noise, which the daemon cannot have: as lancectl and as Python reads it."""
    frames = np.random.default_rng(seed).integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    np.save(f"{path}.npy", frames)
    path.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(path / f"{number:03}.png", compress_level=0)
    (path / "fps.txt").write_text("12")


def write_latents(path: Path, seed: int) -> None:
    latents = np.random.default_rng(seed).normal(0, 1, (BATCH, 48, 1, 64, 64)).astype(np.float32)
    np.save(f"{path}.npy", latents)
    tensors = {"latent_tensor": latents, "latent_format_version_0": np.zeros(0, np.float32)}
    Path(f"{path}.latent").write_bytes(b"".join(encode_parts({}, tensors)))


def progress(said: str, direction: str) -> list[float]:
    """How far the payload was, as told line by line."""
    lines = [line.split() for line in said.splitlines() if line.startswith(f"{direction} ")]
    return [float(words[1].split("/")[0]) for words in lines]


@pytest.fixture(params=["lancectl", "PynngPeer", "SocketPeer"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run_both_ways(lanced: Lanced, client: Client, name: str, folder: Path, cut_after: Sequence[Sequence[int]]) -> None:
    """A picture set to the daemon, then large pictures from it, over a line that is cut after so many bytes."""
    seed = sum(map(ord, name)) + sum(map(sum, cut_after))
    write_source(folder / "source", seed)
    write_latents(folder / "latents", seed)
    for task, source, cuts in (("encode", "source", cut_after[0]), ("decode", "latents", cut_after[1])):
        before = client.stats()["jobs"]["submitted"]
        with Relay(lanced.endpoint, bytes_per_second=BYTES_PER_SECOND, cut_after=cuts) as relay:
            program = Program(relay.endpoint, task, folder / source, folder / task)
            process = program.start(name)
            said = ended(process)
            assert process.returncode == 0, said
            assert relay.cuts == len(cuts)
            carried = relay.requests.carried_bytes + relay.answers.carried_bytes
        print(f"{name} {task}: {carried:,} bytes passed, {len(cuts)} cuts")
        assert client.stats()["jobs"]["submitted"] == before + 1
        latent_bytes = BATCH * 48 * 64 * 64 * 4
        payload = SENT_BYTES if task == "encode" else RECEIVED_BYTES + latent_bytes
        assert carried < payload + len(cuts) * LOST_BYTES + OTHER_BYTES
        told = progress(said, "sending" if task == "encode" else "receiving")
        assert len(set(told)) >= 2, said
        assert told == sorted(told)
        direct = Program(lanced.endpoint, task, folder / source, folder / f"direct-{task}")
        straight = direct.start(name)
        assert ended(straight) is not None
        assert straight.returncode == 0
        assert program.made(name) == direct.made(name) != b""


@pytest.mark.long_form
def test_payloads_arrive_over_a_slow_line_with_progress(
    lanced: Lanced, client: Client, name: str, tmp_path: Path
) -> None:
    run_both_ways(lanced, client, name, tmp_path, ([], []))


@pytest.mark.long_form
def test_a_line_that_is_cut_three_times_goes_on_where_it_was(
    lanced: Lanced, client: Client, name: str, tmp_path: Path
) -> None:
    latents = BATCH * 48 * 64 * 64 * 4
    up = [SENT_BYTES * part // 4 for part in (1, 2, 3)]
    down = [latents + RECEIVED_BYTES * part // 4 for part in (1, 2, 3)]
    run_both_ways(lanced, client, name, tmp_path, (up, down))


def test_a_line_that_falls_silent_midway_is_given_up_in_words(lanced: Lanced, name: str, tmp_path: Path) -> None:
    write_source(tmp_path / "source", len(name))
    with Relay(lanced.endpoint, bytes_per_second=BYTES_PER_SECOND) as relay:
        process = Program(relay.endpoint, "encode", tmp_path / "source", tmp_path / "out").start(name)
        while relay.requests.carried_bytes < SENT_BYTES // 3:
            assert process.poll() is None
        relay.fall_silent()
        said = ended(process)
    assert process.returncode == GONE, said
    assert "answer" in said.splitlines()[-1]
