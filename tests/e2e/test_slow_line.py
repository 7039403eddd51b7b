"""Large payloads over lines that are slow, break, or fall silent: every client sees bytes move, goes on where it was,
and gives up in words. All clients at once, each over a line of its own. The long form is a picture set of 31 MB over
2 MB/s."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lanced_client import Client
from lanced_client.wire import encode_parts
from lanced_process import LANCECTL, ROOT, SLOWER, Lanced
from relay import Relay

IS_LONG = os.environ.get("LANCED_LONG_LINE") == "1"
FRAMES = 5 if IS_LONG else 1
HEIGHT, WIDTH = (1024, 2048) if IS_LONG else (1024, 1024)  # of each frame: 6.3 or 3.1 MB
SENT_BYTES = FRAMES * HEIGHT * WIDTH * 3
BATCH = 10 if IS_LONG else 1
LATENT_SIDE = 64 if IS_LONG else 56  # of each picture, 1024 or 896 pixels
LATENT_BYTES = BATCH * 48 * LATENT_SIDE**2 * 4
RECEIVED_BYTES = BATCH * (16 * LATENT_SIDE) ** 2 * 3
BYTES_PER_SECOND = 2e6
SILENCE_SECONDS = 1
TIMES_TOLD = 2 if IS_LONG else 1  # how far a payload is, at least: lancectl says it once a second
GONE = 3  # lancectl's exit code
# What a line that breaks may cost each time: the piece that was on its way, and what else had left meanwhile.
LOST_BYTES = (1 << 20) + 400_000
OTHER_BYTES = 200_000  # each way: hello, wait, envelopes; the latents that `encode` makes

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


@dataclasses.dataclass(frozen=True)
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
        named = self.output.parent.glob(f"{self.output.name}*.png")  # -1 to -10, if several
        pictures = sorted(named, key=lambda path: (len(path.name), path.name))
        return b"".join(np.asarray(Image.open(picture).convert("RGB")).tobytes() for picture in pictures)


def ended(process: subprocess.Popen[str]) -> str:
    try:
        return process.communicate(timeout=300 * SLOWER)[1]
    finally:
        process.kill()


def write_source(path: Path, seed: int) -> np.ndarray[Any, Any]:
    """Noise, which the daemon cannot have: as lancectl and as Python reads it."""
    frames = np.random.default_rng(seed).integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    np.save(f"{path}.npy", frames)
    path.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(path / f"{number:03}.png", compress_level=0)
    (path / "fps.txt").write_text("12")
    return frames


def write_latents(path: Path) -> None:
    latents = np.random.default_rng(1).normal(0, 1, (BATCH, 48, 1, LATENT_SIDE, LATENT_SIDE)).astype(np.float32)
    np.save(f"{path}.npy", latents)
    tensors = {"latent_tensor": latents, "latent_format_version_0": np.zeros(0, np.float32)}
    Path(f"{path}.latent").write_bytes(b"".join(encode_parts({}, tensors)))


def progress(said: str, direction: str) -> list[float]:
    """How far the payload was, as told line by line."""
    lines = [line.split() for line in said.splitlines() if line.startswith(f"{direction} ")]
    return [float(words[1].split("/")[0]) for words in lines]


CLIENTS = ("lancectl", "PynngPeer", "SocketPeer")


def by_all(work: Callable[[str], None]) -> None:
    """Of all clients at once, each with a line of its own."""
    with ThreadPoolExecutor(len(CLIENTS)) as threads:
        for end in [threads.submit(work, name) for name in CLIENTS]:
            end.result()


def by_a_slow_line(
    lanced: Lanced, program: Program, name: str, sent_bytes: int, received_bytes: int, cuts: Sequence[int]
) -> bytes:
    """What a program makes over a line that is cut after so many bytes, having sent and received this much at most."""
    with Relay(lanced.endpoint, bytes_per_second=BYTES_PER_SECOND, cut_after=cuts) as relay:
        program = dataclasses.replace(program, endpoint=relay.endpoint)
        process = program.start(name)
        said = ended(process)
        assert process.returncode == 0, f"{name}: {said}"
        assert relay.cuts == len(cuts), name
        carried = {"sent": relay.requests.carried_bytes, "received": relay.answers.carried_bytes}
    print(f"{name} {program.task}: {carried}, {len(cuts)} cuts")
    allowed = {"sent": sent_bytes + OTHER_BYTES, "received": received_bytes + OTHER_BYTES}
    for way, bytes_carried in carried.items():
        assert bytes_carried < allowed[way] + len(cuts) * LOST_BYTES, f"{name} {way}"
    told = progress(said, "sending" if program.task == "encode" else "receiving")
    assert len(set(told)) >= TIMES_TOLD, f"{name}: {said}"
    assert told == sorted(told), name
    return program.made(name)


@pytest.fixture(scope="module")
def decoded(lanced: Lanced, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """Latents and what they decode to, which takes a while. Large ones are sent again each time: within a machine,
    which a relay's own socket looks like, a client names them by chance instead of by their hash."""
    path = tmp_path_factory.mktemp("decoded") / "latents"
    write_latents(path)
    with lanced.client() as client:
        pixels = client.generate("decode", latents=np.load(f"{path}.npy")).pixels
    assert pixels is not None
    return path, pixels.tobytes()


def run_both_ways(
    lanced: Lanced, client: Client, decoded: tuple[Path, bytes], folder: Path, cut_at: Sequence[float]
) -> None:
    """A picture set to the daemon, then large pictures from it, over lines that are cut after such parts of them."""
    before = client.stats()["jobs"]["submitted"]

    def encode(name: str) -> None:
        source = folder / f"{name}-source"
        frames = write_source(source, sum(map(ord, name)) + len(cut_at))
        program = Program("", "encode", source, folder / f"{name}-encoded")
        cuts = [int(SENT_BYTES * part) for part in cut_at]
        made = by_a_slow_line(lanced, program, name, SENT_BYTES, 0, cuts)
        with lanced.client() as direct:
            latents = direct.generate("encode", source=frames, fps=12.0, width=64, height=64).latents
        assert latents is not None
        assert made == latents.tobytes(), name

    def decode(name: str) -> None:
        source, pixels = decoded
        program = Program("", "decode", source, folder / f"{name}-decoded")
        cuts = [int(RECEIVED_BYTES * part) for part in cut_at]
        assert by_a_slow_line(lanced, program, name, LATENT_BYTES, RECEIVED_BYTES, cuts) == pixels, name

    by_all(encode)
    by_all(decode)
    assert client.stats()["jobs"]["submitted"] == before + 3 * len(CLIENTS)


@pytest.mark.long_form
def test_payloads_arrive_over_a_slow_line_with_progress(
    lanced: Lanced, client: Client, decoded: tuple[Path, bytes], tmp_path: Path
) -> None:
    run_both_ways(lanced, client, decoded, tmp_path, ())


@pytest.mark.long_form
def test_a_line_that_is_cut_three_times_goes_on_where_it_was(
    lanced: Lanced, client: Client, decoded: tuple[Path, bytes], tmp_path: Path
) -> None:
    run_both_ways(lanced, client, decoded, tmp_path, (1 / 4, 2 / 4, 3 / 4))


def test_a_line_that_falls_silent_midway_is_given_up_in_words(lanced: Lanced, tmp_path: Path) -> None:
    def give_up(name: str) -> None:
        source = tmp_path / f"{name}-source"
        write_source(source, len(name))
        with Relay(lanced.endpoint, bytes_per_second=BYTES_PER_SECOND) as relay:
            process = Program(relay.endpoint, "encode", source, tmp_path / name).start(name)
            while relay.requests.carried_bytes < SENT_BYTES // 3:
                assert process.poll() is None
                time.sleep(0.01)
            relay.fall_silent()
            said = ended(process)
        assert process.returncode == GONE, f"{name}: {said}"
        assert "answer" in said.splitlines()[-1], name

    by_all(give_up)
