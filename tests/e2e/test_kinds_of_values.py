"""Every field of every request gets every kind of JSON value: the right ones are taken, the others refused by name."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lanced_client import BadFile, Unsupported
from lanced_client.transport import SocketPeer
from lanced_client.wire import decode, encode
from lanced_process import ANSWER_SECONDS, DEMO_AWQ, REQUEST, ROOT, Lanced

VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "false": False,
    "zero": 0,
    "one": 1,
    "a negative number": -1,
    "a fraction": 1.5,
    "2^53": 2**53,
    "2^64": 2**64,
    "a huge number": 1e300,
    "a string": "x",
    "an empty string": "",
    "digits": "1",
    "a long string": "x" * 70000,
    "an empty array": [],
    "an array": [1],
    "a pair": [0.25, 0.75],
    "a nested array": [[1], [[2]]],
    "an array of objects": [{"a": 1}, {}],
    "an empty object": {},
    "an object": {"a": 1, "b": 2},
    "a nested object": {"a": {"b": [1]}},
}

WHOLE = {"zero", "one", "digits"}
NUMBERS = {"zero", "one", "a negative number", "a fraction", "2^53", "2^64", "a huge number"}
SIGNED = WHOLE | {"a negative number"}
TEXTS = {"a string", "an empty string", "digits", "a long string"}
BOOLEANS = {"true", "false"}
OBJECTS = {"an empty object", "an object", "a nested object"}
ANY = set(VALUES)

# What a field may be at all; a right kind may still be refused for its value.
PARAMETERS: dict[str, set[str]] = {
    "prompt": TEXTS,
    "negative_prompt": TEXTS,
    "system_prompt": TEXTS,
    "resolution": TEXTS,
    "guidance_renorm": TEXTS,
    "noise_source": TEXTS,
    "uncond_positions": TEXTS,
    "priority": TEXTS,
    **dict.fromkeys(["width", "height", "num_frames", "num_inference_steps", "batch_size"], SIGNED),
    **dict.fromkeys(["start_step", "end_step", "max_new_tokens", "top_k"], SIGNED),
    **dict.fromkeys(["seed", "source_seed"], WHOLE),
    **dict.fromkeys(["guidance_scale", "guidance_renorm_min", "timestep_shift", "denoise"], NUMBERS),
    **dict.fromkeys(["temperature", "top_p", "repetition_penalty", "fps"], NUMBERS),
    "guidance_interval": {"a pair"},
    **dict.fromkeys(["add_noise", "leftover_noise", "source_latent_mean", "decode", "preview"], BOOLEANS),
    "a_parameter_that_nobody_knows": ANY,
}
HASH = "0" * 64
QUICK = REQUEST | {"num_inference_steps": 1}
SUBMIT: dict[str, Any] = {"job": "kinds", "task": "t2i", "params": QUICK}
REQUESTS: dict[str, tuple[dict[str, Any], dict[str, set[str]]]] = {
    "hello": ({}, {"client": ANY, "token": ANY}),
    "models": ({}, {}),
    "parameters": ({}, {}),
    "load": ({}, {"model": TEXTS | {"null"}, "timeout_ms": WHOLE}),
    "unload": ({}, {}),
    "submit": (
        SUBMIT,
        {
            "job": TEXTS,
            "task": TEXTS,
            "params": OBJECTS,
            "model": TEXTS | {"null"},
            "client": ANY,
            "tensors": OBJECTS,
        },
    ),
    "sampling": (
        {"task": "encode", "frames": 9, "fps": 12, "height": 64, "width": 64},
        {"task": TEXTS, "frames": WHOLE, "fps": NUMBERS, "height": WHOLE, "width": WHOLE},
    ),
    "jobs": ({}, {"after": WHOLE}),
    "wait": ({"job": "kinds"}, {"job": TEXTS, "after": WHOLE, "timeout_ms": WHOLE}),
    "result": ({"job": "kinds"}, {"job": TEXTS}),
    "put": ({"blob": HASH, "bytes": 1}, {"blob": set(), "bytes": WHOLE - {"zero"}, "offset": WHOLE}),
    "get": ({"job": "kinds", "tensor": "pixels"}, {"job": TEXTS, "tensor": TEXTS, "offset": WHOLE, "length": WHOLE}),
    "cancel": ({"job": "kinds"}, {"job": TEXTS}),
    "release": ({"job": "kinds"}, {"job": TEXTS}),
    "stats": ({}, {}),
    "shutdown": ({"mode": "never"}, {"mode": TEXTS}),
}
FIELDS = [(request, field) for request, (_, fields) in REQUESTS.items() for field in ["protocol", "request", *fields]]


@pytest.fixture(autouse=True)
def the_next_good_request_is_right(lanced: Lanced, expected: np.ndarray[Any, Any]) -> Iterator[None]:
    generation = lanced.client().hello().generation
    yield
    with lanced.client() as client:
        assert client.hello().generation == generation, "lanced died"
        np.testing.assert_array_equal(client.generate("t2i", **REQUEST).pixels, expected)


@pytest.fixture
def peer(lanced: Lanced) -> Iterator[SocketPeer]:
    peer = SocketPeer(lanced.endpoint)
    yield peer
    peer.close()


def answer_to(peer: SocketPeer, envelope: dict[str, Any]) -> dict[str, Any]:
    answer, _ = decode(peer.request([encode(envelope)], ANSWER_SECONDS))
    if answer["ok"] and envelope["request"] == "submit":
        decode(peer.request([encode({"protocol": 2, "request": "release", "job": envelope["job"]})], ANSWER_SECONDS))
    return answer


def assert_is_refused_by_name(answer: dict[str, Any], field: str, kind: str) -> None:
    assert not answer["ok"], f"{kind} was taken for {field}"
    error = answer["error"]
    assert error["code"] == "bad_request", f"{kind} for {field}: {error}"
    assert error["message"].startswith(f"{field}: "), f"{kind} for {field}: {error['message']}"


@pytest.mark.parametrize(("request_name", "field"), FIELDS)
def test_a_field_of_another_kind_is_refused_by_name(peer: SocketPeer, request_name: str, field: str) -> None:
    good, kinds = REQUESTS[request_name]
    may_be = {"protocol": NUMBERS, "request": TEXTS, **kinds}[field]
    for kind, value in VALUES.items():
        answer = answer_to(peer, {"protocol": 2, "request": request_name, **good, field: value})
        if kind not in may_be:
            assert_is_refused_by_name(answer, field, kind)
        else:
            assert answer["ok"] or len(answer["error"]["message"]) > 10


@pytest.mark.parametrize("parameter", PARAMETERS)
@pytest.mark.parametrize("task", ["t2i", "image_edit", "x2t_image", "decode"])
def test_a_parameter_of_another_kind_is_refused_by_name(peer: SocketPeer, task: str, parameter: str) -> None:
    for kind, value in VALUES.items():
        params = QUICK | {parameter: value}
        answer = answer_to(peer, {"protocol": 2, "request": "submit", **SUBMIT, "task": task, "params": params})
        if kind not in PARAMETERS[parameter]:
            assert_is_refused_by_name(answer, parameter, kind)
        else:
            assert answer["ok"] or len(answer["error"]["message"]) > 10


@pytest.mark.parametrize("kind", VALUES)
def test_a_message_that_is_no_object_is_a_bad_request(peer: SocketPeer, kind: str) -> None:
    header = {"__metadata__": {"lance": json.dumps(VALUES[kind])}}
    for text in (json.dumps(header), json.dumps({"__metadata__": VALUES[kind]}), json.dumps(VALUES[kind])):
        answer, _ = decode(peer.request([len(text).to_bytes(8, "little") + text.encode()], ANSWER_SECONDS))
        assert answer["error"]["code"] == "bad_request"
        assert len(answer["error"]["message"]) > 10


@pytest.mark.parametrize("field", ["dtype", "shape", "data_offsets", "x"])
def test_a_tensor_described_by_another_kind_of_value_is_a_bad_request(peer: SocketPeer, field: str) -> None:
    good = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
    for value in VALUES.values():
        entry = {**good, field: value} if field in good else value
        metadata = {"lance": '{"protocol":2,"request":"hello"}'}
        text = json.dumps({"__metadata__": metadata, "x": entry})
        answer, _ = decode(peer.request([len(text).to_bytes(8, "little") + text.encode() + b"1234"], ANSWER_SECONDS))
        assert answer["error"]["code"] == "bad_request"
        assert len(answer["error"]["message"]) > 10


def test_every_parameter_of_the_protocol_is_in_the_table() -> None:
    described = (ROOT / "protocol/PROTOCOL.md").read_text()
    rows = described.split("## Parameters of `submit`")[1].split("\nTensors of")[0].splitlines()
    names = {name for row in rows if row.startswith("| `") for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert names == PARAMETERS.keys() - {"a_parameter_that_nobody_knows"}


FILES = ["llm_config.json", "tokenizer_config.json", "awq_meta.json", "vocab.json", "Qwen2.5-VL-ViT/config.json"]
OF_FILES = ["null", "true", "a negative number", "a huge number", "a string", "an array of objects", "a nested object"]


@pytest.mark.parametrize("name", FILES)
def test_a_model_file_with_a_value_of_another_kind_is_read_or_refused_by_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(DEMO_AWQ, folder)  # what links point to is copied
    path = folder / name
    good = json.loads(path.read_text())
    keys = list(good)[: 3 if name == "vocab.json" else None]  # its entries are all alike
    with Lanced("--lazy", models=(folder,)) as daemon, daemon.client() as client:
        for key in [None, *keys]:
            for kind in OF_FILES:
                path.write_text(json.dumps(VALUES[kind] if key is None else good | {key: VALUES[kind]}))
                try:
                    client.load()
                    client.unload()
                except (BadFile, Unsupported) as error:
                    named = str(path) in str(error) or 'tensor "' in str(error)  # one that does not fit the file
                    assert named, f"{kind} for {key}: {error}"
        path.write_text(json.dumps(good))
        assert client.load().hash


def test_a_model_file_of_millions_of_values_is_refused_in_words(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(DEMO_AWQ, folder)
    config = folder / "llm_config.json"
    config.write_text('{"hidden_size": [' + "1," * 5_000_000 + "1]}")
    with Lanced("--lazy", models=(folder,)) as daemon, daemon.client() as client:
        before = client.stats()["memory"]["peak_resident_bytes"]
        with pytest.raises(BadFile, match=re.escape(f"{config}: more than 524288 JSON values")):
            client.load()
        assert client.stats()["memory"]["peak_resident_bytes"] < before + (40 << 20)  # the file itself has 10 MB
