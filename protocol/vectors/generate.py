"""Writes the messages in this folder that the C and the Python codec are both tested against.

    python3 protocol/vectors/generate.py

NAME.safetensors is a message, NAME.json what a reader must make of it: of a good one
{"good": true, "envelope": OBJECT, "tensors": {NAME: {"dtype", "shape", "hex"}}}; of a bad one
{"good": false, "why": TEXT, "strict": BOOL}. "strict": a JSON reader may be lenient about it, and
clients are; the daemon refuses it. Made by hand from bytes, without a safetensors library.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

Tensor = tuple[str, list[int], bytes]  # dtype, shape, data


def frame(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def padded(header: bytes) -> bytes:
    return header + b" " * (-len(header) % 8)


def header_of(envelope_text: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    header: dict[str, Any] = {"__metadata__": {"lance": envelope_text}}
    at = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    return header


def message(envelope: Any, tensors: dict[str, Tensor] | None = None, ascii_only: bool = False) -> bytes:
    tensors = tensors or {}
    text = json.dumps(envelope, ensure_ascii=ascii_only)
    header = json.dumps(header_of(text, tensors), ensure_ascii=ascii_only)
    return frame(padded(header.encode()), b"".join(data for _, _, data in tensors.values()))


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


Message = tuple[bytes, Any, dict[str, Tensor]]


def good_requests() -> dict[str, Message]:
    hello = {"protocol": 2, "request": "hello", "client": "vectors 1"}
    submit = {
        "protocol": 2,
        "request": "submit",
        "job": "fox-1",
        "task": "t2i",
        "params": {
            "prompt": 'a red fox in snow 🦊 雪, "quoted" \\ and\nwrapped',
            "seed": "18446744073709551615",
            "guidance_interval": [0.4, 1.0],
            "decode": False,
        },
    }
    noise: dict[str, Tensor] = {"noise": ("F32", [1, 1, 48], floats(*[i / 8 - 3 for i in range(48)]))}
    part = {
        "protocol": 2,
        "request": "submit",
        "job": "fox-2",
        "task": "t2i",
        "params": {"prompt": "a red fox", "denoise": 0.5, "start_step": 2, "end_step": 10000, "add_noise": False},
    }
    latents: dict[str, Tensor] = {
        "latents": ("F32", [1, 48, 1, 1, 1], floats(*[i / 16 - 1 for i in range(48)])),
        "latent_state": ("F32", [1, 48, 1, 1, 1], floats(*[i / 32 for i in range(48)])),
        "latent_mask": ("F32", [1, 1, 1, 1, 1], floats(1.0)),
    }
    misaligned_header = json.dumps(header_of(json.dumps(hello), noise)).encode()
    misaligned_header += b" " * ((3 - len(misaligned_header)) % 8)
    return {
        "hello": (message(hello), hello, {}),
        "submit": (message(submit), submit, {}),
        "submit_escaped": (message(submit, ascii_only=True), submit, {}),
        "submit_noise": (message(submit, noise), submit, noise),
        "submit_latents": (message(part, latents), part, latents),
        "misaligned_tensor": (frame(misaligned_header, noise["noise"][2]), hello, noise),
        "empty_envelope": (message({}), {}, {}),
    }


def good_answers() -> dict[str, Message]:
    events = {
        "protocol": 2,
        "ok": True,
        "events": [
            {"sequence": 3, "event": "progress", "stage": "denoise", "step": 1, "steps": 30, "eta_seconds": None},
            {"sequence": 4, "event": "preview"},
            {"sequence": 5, "event": "text", "text": "ein Fuchs"},
        ],
    }
    preview: dict[str, Tensor] = {"preview.4": ("U8", [1, 2, 3, 3], bytes(range(18)))}
    result = {
        "protocol": 2,
        "ok": True,
        "task": "x2t_image",
        "seed": 9007199254740992,
        "text": "un renard",
        "receipt": {"stages": [{"stage": "text", "seconds": 0.25, "steps": 3}]},
    }
    result_tensors: dict[str, Tensor] = {
        "pixels": ("U8", [1, 1, 2, 2, 3], bytes(range(240, 252))),
        "latents": ("F32", [1, 48, 0, 1, 1], b""),
        "token_ids": ("I32", [3], struct.pack("<3i", 1, -2, 2147483647)),
    }
    failure = {"protocol": 2, "ok": False, "error": {"code": "busy", "message": "the queue is full"}}
    return {
        "events": (message(events, preview), events, preview),
        "result": (message(result, result_tensors), result, result_tensors),
        "failure": (message(failure), failure, {}),
    }


def bad_messages() -> dict[str, tuple[bytes, str, bool]]:
    envelope = {"protocol": 2, "request": "hello"}
    tensor: dict[str, Tensor] = {"x": ("F32", [2], floats(1, 2))}
    whole = message(envelope, tensor)
    text = json.dumps(envelope)

    def with_entry(data_bytes: int = 8, **changes: Any) -> bytes:
        header = header_of(text, tensor)
        header["x"].update(changes)
        return frame(padded(json.dumps(header).encode()), bytes(data_bytes))

    def with_envelope(raw: str) -> bytes:
        return frame(padded(json.dumps({"__metadata__": {"lance": raw}}).encode()))

    two = header_of(text, {"x": tensor["x"], "y": tensor["x"]})
    overlap = json.loads(json.dumps(two))
    overlap["y"]["data_offsets"] = [4, 12]
    gap = json.loads(json.dumps(two))
    gap["y"]["data_offsets"] = [12, 20]
    many: dict[str, Tensor] = {f"t{i}": ("U8", [1], b"x") for i in range(65)}
    lenient = True
    return {
        "nothing": (b"", "no bytes at all", False),
        "short_length": (whole[:7], "shorter than the header's length", False),
        "truncated_header": (whole[:40], "the header is cut", False),
        "truncated_data": (whole[:-1], "the data is cut", False),
        "trailing_bytes": (whole + b"\0", "bytes that belong to no tensor", False),
        "endless_header": (struct.pack("<Q", 2**63) + whole[8:], "a header of 2^63 bytes", False),
        "header_no_json": (frame(b"{nonsense"), "the header is no JSON", False),
        "header_no_object": (frame(b"[1, 2]  "), "the header is no object", False),
        "header_no_utf8": (frame(padded(b'{"__metadata__": {"lance": "\xff"}}')), "the header is no UTF-8", False),
        "no_metadata": (frame(b"{}      "), "no __metadata__", False),
        "no_envelope": (frame(padded(b'{"__metadata__": {"other": "{}"}}')), "no envelope", False),
        "metadata_no_text": (frame(padded(b'{"__metadata__": {"lance": {}}}')), "an envelope that is no string", False),
        "envelope_empty": (with_envelope(""), "an empty envelope", False),
        "envelope_no_object": (with_envelope("[1]"), "an envelope that is an array", False),
        "envelope_cut": (with_envelope('{"protocol": 2'), "an envelope that is cut", False),
        "envelope_followed": (with_envelope("{} {}"), "two values in one envelope", False),
        "envelope_nul": (with_envelope('{"prompt": "a\\u0000b"}'), "an escaped NUL in a string", lenient),
        "envelope_nan": (with_envelope('{"guidance_scale": NaN}'), "NaN, which is no JSON", lenient),
        "unknown_dtype": (with_entry(dtype="F31"), "an unknown dtype", False),
        "shape_too_large": (with_entry(shape=[3]), "a shape of more bytes than there are", False),
        "shape_overflows": (with_entry(shape=[2**32, 2**32, 2]), "a shape whose product overflows", False),
        "shape_negative": (with_entry(shape=[-2]), "a negative dimension", False),
        "offsets_backwards": (with_entry(data_offsets=[8, 0]), "offsets in the wrong order", False),
        "offsets_outside": (with_entry(data_offsets=[0, 80]), "offsets beyond the data", False),
        "tensors_overlap": (frame(padded(json.dumps(overlap).encode()), bytes(12)), "two tensors overlap", False),
        "tensors_gap": (frame(padded(json.dumps(gap).encode()), bytes(20)), "bytes between two tensors", False),
        "too_many_tensors": (message(envelope, many), "65 tensors", lenient),
    }


def main() -> None:
    for old in [*HERE.glob("good_*"), *HERE.glob("bad_*")]:
        old.unlink()
    for name, (data, envelope, tensors) in {**good_requests(), **good_answers()}.items():
        described = {
            tensor: {"dtype": dtype, "shape": shape, "hex": content.hex()}
            for tensor, (dtype, shape, content) in tensors.items()
        }
        write(f"good_{name}", data, {"good": True, "envelope": envelope, "tensors": described})
    for name, (data, why, strict) in bad_messages().items():
        write(f"bad_{name}", data, {"good": False, "why": why, "strict": strict})


def write(name: str, data: bytes, expected: dict[str, Any]) -> None:
    (HERE / f"{name}.safetensors").write_bytes(data)
    (HERE / f"{name}.json").write_text(json.dumps(expected, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
