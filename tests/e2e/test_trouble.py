"""Bad input to a real lanced, and lanced going away: one clear error each, and the next good request is right."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pynng
import pytest
import safetensors.numpy

from lanced_client import (
    BadFile,
    BadRequest,
    Busy,
    Client,
    ConnectionFailed,
    Forbidden,
    JobLost,
    LanceError,
    NotFound,
    Started,
    TooLarge,
    Unsupported,
)
from lanced_client.wire import decode, encode
from lanced_process import DEMO_MODEL, LANCECTL, LANCED, LONG_REQUEST, REQUEST, ROOT, Lanced


@pytest.fixture(autouse=True)
def the_next_good_request_is_right(lanced: Lanced, expected: np.ndarray[Any, Any]) -> Iterator[None]:
    generation = lanced.client().hello().generation
    yield
    with lanced.client() as client:
        assert client.hello().generation == generation, "lanced died"
        np.testing.assert_array_equal(client.generate("t2i", **REQUEST).pixels, expected)


def raw(daemon: Lanced, message: bytes) -> tuple[dict[str, Any], Any]:
    """Send bytes as they are; the answer's envelope and tensors."""
    with pynng.Req0(dial=daemon.endpoint, recv_timeout=5000, send_timeout=5000, recv_max_size=0) as peer:
        peer.send(message)
        return decode(peer.recv())


def envelope_of(text: str) -> bytes:
    return safetensors.numpy.save({}, metadata={"lance": text})


def with_header(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


HELLO = {"lance": '{"protocol":2,"request":"hello"}'}

NO_MESSAGES = {
    "one byte": b"x",
    "a header length beyond the message": struct.pack("<Q", 1000) + b"{}",
    "a header length near 2^64": struct.pack("<Q", 2**64 - 1) + b"{}",
    "random bytes": bytes(range(256)) * 4,
    "a header that is no JSON": with_header(b"{]"),
    "a header that is no object": with_header([1, 2]),
    "a header nested too deeply": with_header(b"[" * 100_000),
    "no envelope": with_header({}),
    "an envelope that is no JSON": envelope_of("{"),
    "an envelope that is a list": envelope_of("[]"),
    "NaN in the envelope": envelope_of('{"protocol":2,"request":"hello","x":NaN}'),
    "no request": envelope_of('{"protocol":2}'),
    "a request that is a number": envelope_of('{"protocol":2,"request":7}'),
    "no protocol": envelope_of('{"request":"hello"}'),
    "a tensor beyond the data": with_header(
        {"__metadata__": HELLO, "x": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}}, b"12"
    ),
    "a shape that overflows": with_header(
        {"__metadata__": HELLO, "x": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]}}, b"1234"
    ),
    "a negative shape": with_header(
        {"__metadata__": HELLO, "x": {"dtype": "U8", "shape": [-4], "data_offsets": [0, 4]}}, b"1234"
    ),
    "bytes no tensor owns": with_header({"__metadata__": HELLO}, b"1234"),
    "an unknown dtype": with_header(
        {"__metadata__": HELLO, "x": {"dtype": "Q7", "shape": [4], "data_offsets": [0, 4]}}, b"1234"
    ),
}


@pytest.mark.parametrize("message", NO_MESSAGES.values(), ids=NO_MESSAGES.keys())
def test_what_is_no_message_is_refused_as_a_bad_request(lanced: Lanced, message: bytes) -> None:
    answer, _ = raw(lanced, message)
    assert answer["ok"] is False
    assert answer["error"]["code"] == "bad_request"
    assert len(answer["error"]["message"]) > 10


def test_every_bit_flip_in_a_message_is_survived(lanced: Lanced) -> None:
    message = encode({"protocol": 2, "request": "stats"}, {"x": np.zeros(2, dtype=np.uint8)})
    with pynng.Req0(dial=lanced.endpoint, send_timeout=5000, recv_timeout=5000) as peer:
        for bit in range(0, 8 * len(message), 7):
            damaged = bytearray(message)
            damaged[bit // 8] ^= 1 << (bit % 8)
            peer.send(bytes(damaged))
            assert decode(peer.recv())[0]["protocol"] == 2


def test_another_protocol_is_told_both_versions(lanced: Lanced) -> None:
    answer, _ = raw(lanced, encode({"protocol": 99, "request": "hello"}))
    assert answer["error"]["code"] == "unsupported"
    assert "99" in answer["error"]["message"]
    assert answer["version"]


def test_an_error_that_quotes_half_a_character_or_an_escape_sequence_is_an_answer_all_the_same(client: Client) -> None:
    for start in ("", "x"):  # one of them is cut in the middle of a character
        with pytest.raises(BadRequest, match="known: t2i"):
            client.submit(start + "\u00e9" * 60, **REQUEST)
    with pytest.raises(BadRequest, match=r"\?\[31mt3i"):
        client.submit("\x1b[31mt3i", **REQUEST)


def test_a_prompt_with_a_nul_character_is_refused_not_cut(client: Client) -> None:
    for name in ("prompt", "negative_prompt", "system_prompt"):
        with pytest.raises(BadRequest, match="NUL"):
            client.submit("t2i", **(REQUEST | {name: "a red\0circle"}))


def test_an_unknown_request_and_an_unknown_task_are_named(client: Client) -> None:
    with pytest.raises(Unsupported, match="dance"):
        client.call("dance")
    with pytest.raises(LanceError, match="t3i"):
        client.submit("t3i", **REQUEST)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("width", 100),
        ("height", 8),
        ("width", -16),
        ("width", 2**40),
        ("width", "wide"),
        ("num_inference_steps", 0),
        ("num_inference_steps", -3),
        ("num_inference_steps", 2**31),
        ("guidance_scale", "NaN"),
        ("guidance_interval", [0.4]),
        ("guidance_interval", [0.9, 0.2]),
        ("guidance_renorm", "sideways"),
        ("timestep_shift", -1.0),
        ("seed", "18446744073709551616"),
        ("batch_size", 0),
        ("batch_size", 10**9),
        ("noise_source", "dice"),
        ("prompt", 7),
        ("prompt", ""),
    ],
)
def test_a_parameter_out_of_range_is_refused_by_name(client: Client, name: str, value: Any) -> None:
    with pytest.raises((BadRequest, TooLarge), match=name):
        params = REQUEST | {name: value}
        client.call("submit", job=secrets.token_hex(8), task="t2i", params=params)


def test_a_model_that_is_no_name_is_refused(client: Client) -> None:
    for request in ("load", "submit"):
        with pytest.raises(BadRequest, match="model: must be a name, not 7"):
            client.call(request, model=7, job="x", task="t2i", params=REQUEST)


def test_several_frames_where_one_picture_is_wanted_are_refused(client: Client) -> None:
    for task in ("image_edit", "i2v", "x2t_image"):
        with pytest.raises(BadRequest, match="source has 2 frames; task .* takes one picture"):
            client.generate(task, source=np.zeros((2, 64, 64, 3), np.uint8), **REQUEST)


def test_nan_guidance_is_refused(lanced: Lanced) -> None:
    text = json.dumps(
        {
            "protocol": 2,
            "request": "submit",
            "job": "nan",
            "task": "t2i",
            "params": {"prompt": "a", "guidance_scale": float("nan")},
        }
    )
    assert raw(lanced, envelope_of(text))[0]["error"]["code"] == "bad_request"


def test_a_prompt_of_100000_characters_is_refused_with_the_numbers(client: Client) -> None:
    with pytest.raises(LanceError, match=r"\d") as refused:
        client.generate("t2i", **(REQUEST | {"prompt": "fox " * 25_000}))
    assert refused.value.code in ("bad_request", "too_large")
    assert "prompt" in str(refused.value)


@pytest.mark.parametrize("job", ["", "a/b", "x" * 65, "ä"])
def test_a_bad_job_id_is_refused(client: Client, job: str) -> None:
    with pytest.raises(BadRequest, match="job"):
        client.call("submit", job=job, task="t2i", params=REQUEST)


@pytest.mark.parametrize("noise", [np.zeros((1, 15, 48)), np.zeros((1, 16, 47)), np.full((1, 16, 48), np.nan)])
def test_noise_of_a_wrong_shape_or_with_nan_is_refused(client: Client, noise: np.ndarray[Any, Any]) -> None:
    with pytest.raises(BadRequest, match="noise"):
        client.generate("t2i", noise=noise, **REQUEST)


def test_unknown_jobs_are_not_found(client: Client) -> None:
    for request in ("wait", "result", "cancel"):
        with pytest.raises(NotFound, match="nobody"):
            client.call(request, job="nobody")


def test_a_message_over_the_limit_is_refused_with_the_numbers() -> None:
    with Lanced("--blob-bytes", "1M") as daemon:
        big = encode({"protocol": 2, "request": "hello"}, {"x": np.zeros(4_500_000, dtype=np.uint8)})
        answer, _ = raw(daemon, big)
        assert answer["error"]["code"] == "too_large"
        with daemon.client() as client:
            with pytest.raises(TooLarge, match="1048576"):
                client.submit("image_edit", source=np.zeros((1, 1024, 1024, 3), np.uint8), **REQUEST)
            half = np.zeros((1, 48, 1, 60, 60), np.float32)
            with pytest.raises(TooLarge, match="1382400 bytes, and can never be here together: 1048576"):
                client.submit("t2i", latents=half, latent_state=half + 1, **REQUEST)
            huge = encode({"protocol": 2, "request": "hello"}, {"x": np.zeros(9_000_000, dtype=np.uint8)})
            with pynng.Req0(dial=daemon.endpoint, send_timeout=5000, recv_timeout=500) as peer:
                peer.send(huge)
                with pytest.raises(pynng.Timeout):
                    peer.recv()
            assert client.hello().version


def test_a_port_that_is_in_use_is_told_before_a_model_is_loaded() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        endpoint = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        command = [str(LANCED), "--model", str(DEMO_MODEL), "--endpoint", endpoint]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.endswith(f"lanced: endpoint {endpoint}: is in use, by another lanced or another program\n")
    assert "loading model" not in done.stderr


def connect(daemon: Lanced) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(5)
    peer.connect(daemon.endpoint.removeprefix("ipc://"))
    return peer


GREETING = b"\0SP\0\0\x30\0\0"


RUBBISH = {
    "another protocol": b"GET / HTTP/1.1\r\n\r\n",
    "a PAIR socket": b"\0SP\0\0\x10\0\0",
    "half a greeting": GREETING[:3],
    "no greeting": b"",
    "a length of 2^63": GREETING + b"\x01" + struct.pack(">Q", 2**63),
    "a message too short for an id": GREETING + b"\x01" + struct.pack(">Q", 2) + b"\0\0",
    "half a message": GREETING + b"\x01" + struct.pack(">Q", 100) + b"half of it",
    "no ipc frame": GREETING + b"\x07\x07\x07",
}


@pytest.mark.parametrize("rubbish", RUBBISH.values(), ids=RUBBISH.keys())
def test_rubbish_on_the_socket_and_peers_that_hang_up_are_survived(lanced: Lanced, rubbish: bytes) -> None:
    """At once and a little later: nng 1.5 would stop accepting connections after the former."""
    for pause in (0, 0, 0, 0.02, 0.1):
        with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):  # while it listens anew
            peer = connect(lanced)
            peer.sendall(rubbish)
            time.sleep(pause)
            peer.close()


def test_a_client_that_reads_no_answers_takes_nothing_from_the_others(lanced: Lanced, client: Client) -> None:
    picture = client.submit("t2i", **(REQUEST | {"width": 512, "height": 512, "num_inference_steps": 1}))
    picture.result()
    message = encode({"protocol": 2, "request": "get", "job": picture.id, "tensor": "pixels"})
    peer = connect(lanced)
    peer.settimeout(0.5)
    peer.sendall(GREETING)
    with contextlib.suppress(OSError):  # lanced hangs up on it
        for number in range(2000):
            request = struct.pack(">I", 0x80000000 | number) + message
            peer.sendall(b"\x01" + struct.pack(">Q", len(request)) + request)
    assert client.hello().version
    peer.close()
    picture.release()


def test_a_hundred_connections_that_say_nothing_do_no_harm(lanced: Lanced) -> None:
    peers = [connect(lanced) for _ in range(100)]
    with lanced.client() as client:
        assert client.hello().version
    for peer in peers:
        peer.close()


SUBMIT_AND_DIE = """
import json, os, sys
from lanced_client import Client
job = Client(sys.argv[1]).submit("t2i", job_id="orphan", **json.loads(sys.argv[2]))
job.poll(1)
os.kill(os.getpid(), 9)
"""


def test_a_client_that_disappears_leaves_a_job_that_others_can_stop(lanced: Lanced, client: Client) -> None:
    command = [sys.executable, "-c", SUBMIT_AND_DIE, lanced.endpoint, json.dumps(LONG_REQUEST)]
    package = str(ROOT / "protocol/python")
    assert subprocess.run(command, env=os.environ | {"PYTHONPATH": package}, timeout=20).returncode == -signal.SIGKILL
    assert client.cancel("orphan") in ("running", "cancelled")
    client.call("release", job="orphan")


# Minutes on any machine: longer than a daemon waits for somebody to ask.
LONGER_REQUEST = LONG_REQUEST | {"width": 768, "height": 768, "num_inference_steps": 1000}


def test_a_job_whose_client_died_is_listed_and_cancelled_as_an_orphan() -> None:
    with Lanced("--orphans", "8") as daemon, daemon.client() as client:
        command = [sys.executable, "-c", SUBMIT_AND_DIE, daemon.endpoint, json.dumps(LONGER_REQUEST)]
        subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT / "protocol/python")}, timeout=20, check=False)
        (job,) = client.jobs()
        assert (job["job"], job["task"], job["state"]) == ("orphan", "t2i", "running")
        assert job["client"].startswith("lanced_client ")
        assert job["prompt"] == LONGER_REQUEST["prompt"]
        shown = daemon.lancectl("jobs").stdout.split()
        assert shown[:3] == ["orphan", "t2i", "running"]
        deadline = time.monotonic() + 60
        while client.jobs()[0]["state"] != "cancelled":
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_jobs_that_are_waited_for_are_no_orphans() -> None:
    with Lanced("--orphans", "6") as daemon, daemon.client() as client:
        with client.submit("t2i", **LONGER_REQUEST) as running, client.submit("t2i", **REQUEST) as waiting:
            until = time.monotonic() + 9
            while time.monotonic() < until:
                running.poll(0.3)
                waiting.poll(0.3)
            assert [job["state"] for job in client.jobs()] == ["running", "queued"]


def test_a_killed_daemon_is_noticed_and_its_successor_serves_at_the_same_place(
    peer_factory: Any, expected: np.ndarray[Any, Any]
) -> None:
    with Lanced() as daemon, Client(daemon.endpoint, timeout=1.0, peer_factory=peer_factory) as client:
        job = client.submit("t2i", **LONG_REQUEST)
        while not any(isinstance(event, Started) for event in job.poll(1)):
            pass
        daemon.process.kill()
        daemon.process.wait()
        with pytest.raises(ConnectionFailed, match="went away while job"):
            list(job.events())
        with pytest.raises(ConnectionFailed, match=daemon.endpoint):
            client.hello()
        daemon.start()
        with pytest.raises(JobLost, match="restarted"):
            job.poll(1)
        np.testing.assert_array_equal(client.generate("t2i", **REQUEST).pixels, expected)


def test_a_second_daemon_on_the_same_socket_is_refused_and_the_first_lives(lanced: Lanced) -> None:
    second = subprocess.run(lanced.command, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    assert second.returncode != 0
    assert lanced.endpoint.removeprefix("ipc://") in second.stderr


def test_a_daemon_without_a_model_folder_says_what_is_missing() -> None:
    done = subprocess.run([str(LANCED), "--model", "/nonexistent"], capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert "/nonexistent" in done.stderr


def cut(share: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(share * len(data))]


def flip(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


DAMAGES: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("model.safetensors", cut(0)),
    ("model.safetensors", cut(0.5)),
    ("model.safetensors", flip(0)),
    ("model.safetensors", flip(300)),
    ("model.safetensors", lambda data: data + b"more"),
    ("model.safetensors", lambda data: data.replace(b'"BF16"', b'"BF61"', 1)),
    ("model.safetensors", lambda data: data.replace(b"[128,128]", b"[64,256]", 1)),
    ("Wan2.2_VAE.pth", cut(0.5)),
    ("Wan2.2_VAE.pth", flip(-20)),
    ("Wan2.2_VAE.pth", flip(300)),
    ("Wan2.2_VAE.pth", lambda data: b"no zip file"),
    ("vocab.json", cut(0.5)),
    ("merges.txt", cut(0)),
    ("merges.txt", cut(0.5)),
    ("tokenizer_config.json", cut(0.5)),
    ("llm_config.json", cut(0.5)),
    ("llm_config.json", lambda data: b"{}"),
    ("llm_config.json", lambda data: data.replace(b'"hidden_size": 128', b'"hidden_size": 1e300')),
    ("llm_config.json", lambda data: data.replace(b'"num_hidden_layers": 4', b'"num_hidden_layers": 2000000000')),
    ("Qwen2.5-VL-ViT/vit.safetensors", cut(0.5)),
    ("Qwen2.5-VL-ViT/config.json", cut(0.5)),
]


def test_a_damaged_model_file_is_named_and_the_good_model_serves_on(
    expected: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(DEMO_MODEL, damaged)
    with Lanced("--lazy", models=(DEMO_MODEL, damaged)) as daemon, daemon.client() as client:
        for name, damage in DAMAGES:
            whole = (damaged / name).read_bytes()
            assert damage(whole) != whole, name
            (damaged / name).write_bytes(damage(whole))
            with pytest.raises(BadFile, match=Path(name).name.replace(".", r"\.")):
                client.load("damaged")
            (damaged / name).write_bytes(whole)
        np.testing.assert_array_equal(client.generate("t2i", model="lance-demo", **REQUEST).pixels, expected)
        np.testing.assert_array_equal(client.generate("t2i", model="damaged", **REQUEST).pixels, expected)


def test_a_model_file_that_is_cut_off_while_it_is_in_use_fails_the_job_and_not_the_daemon(
    expected: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "shrinking"
    shutil.copytree(DEMO_MODEL, folder)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    with Lanced(models=(folder,)) as daemon, daemon.client() as client:
        np.testing.assert_array_equal(client.generate("t2i", **REQUEST).pixels, expected)
        with weights.open("r+b") as file:
            file.truncate(4096)
        with pytest.raises(BadFile, match=r"model\.safetensors"):
            client.generate("t2i", **REQUEST)
        weights.write_bytes(whole)
        np.testing.assert_array_equal(client.generate("t2i", **REQUEST).pixels, expected)


def test_everything_that_a_model_folder_lacks_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = subprocess.run([str(LANCED), "--model", str(tmp_path / "empty")], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    for name in ("model.safetensors", "llm_config.json", "vocab.json", "merges.txt", "tokenizer_config.json"):
        assert name in done.stderr


def test_loading_and_unloading_in_turn_never_fails() -> None:
    with Lanced("--lazy") as daemon, daemon.client() as client:
        for _ in range(20):
            client.load()
            assert client.unload()
            assert not client.unload()


@pytest.mark.parametrize("mode", ["finish", "cancel"])
def test_a_shutdown_finishes_or_cancels_as_asked(mode: str) -> None:
    request = REQUEST if mode == "finish" else LONG_REQUEST
    with Lanced() as daemon, ThreadPoolExecutor(2) as pool, contextlib.ExitStack() as clients:
        jobs = [clients.enter_context(daemon.client()).submit("t2i", **request) for _ in range(2)]
        endings = [pool.submit(list, job.events()) for job in jobs]
        with daemon.client() as client:
            while mode == "cancel" and client.stats()["waiting"] < 2:  # who asks later finds nobody
                time.sleep(0.05)
            client.shutdown(mode)
        assert [ending.result()[-1].event for ending in endings] == ["done" if mode == "finish" else "cancelled"] * 2
        for job in jobs:
            with contextlib.suppress(ConnectionFailed):
                job.release()  # the daemon gives clients a moment to fetch what they have not released
        assert daemon.process.wait(timeout=60) == 0


def test_sigterm_ends_the_daemon_in_order_and_takes_its_socket_away() -> None:
    with Lanced("--on-term", "cancel") as daemon:
        with daemon.client() as client:
            client.submit("t2i", **LONG_REQUEST).poll(1)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(timeout=60) == 0
        assert not Path(daemon.endpoint.removeprefix("ipc://")).exists()


def test_a_daemon_started_for_a_program_ends_with_it() -> None:
    daemon = Lanced("--until-eof", "--on-term", "cancel")
    program = subprocess.Popen(daemon.command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert program.stdin is not None
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(timeout=1)
    program.stdin.close()
    assert program.wait(timeout=60) == 0


def test_a_full_queue_says_so() -> None:
    with Lanced("--queue", "1") as daemon, daemon.client() as client:
        running = client.submit("t2i", **LONG_REQUEST)
        while not any(isinstance(event, Started) for event in running.poll(1)):
            pass
        client.submit("t2i", **REQUEST)
        with pytest.raises(Busy, match="queue"):
            client.submit("t2i", **REQUEST)


def test_lancectl_waits_for_room_in_a_full_queue_when_it_is_told_to(tmp_path: Path) -> None:
    with Lanced("--queue", "1") as daemon, daemon.client() as client:
        running = client.submit("t2i", **LONG_REQUEST)
        while not any(isinstance(event, Started) for event in running.poll(1)):
            pass
        client.submit("t2i", **REQUEST)
        command = ["t2i", "x", "--steps", "1", "--size", "64x64", "-o", str(tmp_path / "a.png")]
        assert daemon.lancectl(*command).returncode == 4
        waits = subprocess.Popen(
            [str(LANCECTL), *command, "--wait", "--endpoint", daemon.endpoint], stderr=subprocess.PIPE, text=True
        )
        assert waits.stderr is not None
        assert "the queue is full" in waits.stderr.readline()
        running.release()
        assert waits.wait(60) == 0
        waits.stderr.close()


def test_a_token_is_asked_for(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.touch(mode=0o600)
    secret.write_text("open sesame, open sesame\n")
    with Lanced("--token-file", str(secret), token="open sesame, open sesame") as daemon:
        for token in (None, "open", "open sesame, open sesame!"):
            with pytest.raises(Forbidden, match="token"):
                Client(daemon.endpoint, token=token).hello()
        with daemon.client() as client:
            assert client.hello().version


def test_results_are_forgotten_in_time() -> None:
    with Lanced("--result-seconds", "1") as daemon, daemon.client() as client:
        job = client.submit("t2i", **REQUEST)
        job.result()
        time.sleep(2.5)
        with pytest.raises(NotFound):
            client.call("result", job=job.id)
