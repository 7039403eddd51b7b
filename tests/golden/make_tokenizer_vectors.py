#!/usr/bin/env python3
"""Write tokenizer_random.jsonl: random Unicode texts with the reference tokenizer's answers.

Needs transformers 4.49, regex, and the file tokenization_qwen2.py of the official Lance release.
One JSON list per line: [text, ids, decoded], `decoded` only where it differs from the text; the text is null
for random ids that are only to be decoded.

    make_tokenizer_vectors.py tokenization_qwen2.py DIRECTORY_WITH_VOCAB tokenizer_random.jsonl
"""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from pathlib import Path

CASES = 2000

WORDS = (
    "the a red fox in snow I'm you're IT'S we'LL don't he'd 'S 'ſ naïve café photorealistic 1girl 3.14 1,000 x²  "
    "masterpiece, (best quality:1.2) <lora:x:0.8> {a|b} http://a.b/c?d=e#f user@host C++ #tag __init__ "
    "一只 戴着 红帽子 的猫 サンゴ礁 안녕하세요 Привет مرحبا שלום नमस्ते ไทย Ελληνικά tiếng Việt"
).split(" ")
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", "\r", "\u00a0", "\u3000", "\u2028", "\u2003", "\u180e", "\x85",
          "\x0b", "\x0c", "\x1c", "\u200b", "\ufeff", "\u202f", "\u1680"]
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|vision_start|>", "<|video_pad|>", "<tool_call>",
           "</tool_call>", "<|fim_prefix|>", "<|im_end", "<|", "|>", "<|im_<|im_end|>", "<|im_end|>\u0338",
           " <|im_end|> "]
EMOJI = ["😀", "👩‍👩‍👧", "👍🏽", "🇫🇷", "❤️", "🏳️‍🌈", "🤖", "1️⃣"]
MARKS = ["\u0301", "\u0308", "\u0323", "\u0327", "\u0338", "\u093c", "\u3099", "\u0345", "\u05b0", "\u05bc", "\u064b"]
BASES = [*"aAeEoOnNcCsSuUIi", "か", "は", "क", "\u1100\u1161\u11a8", "ὠ", "ﬀ", "Å", "\u212b", "\u0958"]
RANGES = [(0x01, 0x7F), (0x80, 0x24F), (0x370, 0x52F), (0x590, 0x6FF), (0x900, 0xDFF), (0x1E00, 0x1FFF),
          (0x2000, 0x2BFF), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xE0FF), (0xF900, 0xFFFF),
          (0x10000, 0x10FFF), (0x1D000, 0x1D7FF), (0x1F000, 0x1FAFF), (0x20000, 0x2FFFF), (0xE0000, 0x10FFFF),
          (0x1, 0x10FFFF)]


def character(rng: random.Random) -> str:
    while True:
        code = rng.randint(*rng.choice(RANGES))
        if not 0xD800 <= code <= 0xDFFF:
            return chr(code)


def piece(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.30:
        return rng.choice(WORDS)
    if kind < 0.50:
        return rng.choice(SPACES) * rng.choice((1, 1, 1, 2, 5))
    if kind < 0.56:
        return rng.choice(SPECIAL)
    if kind < 0.62:
        return rng.choice(EMOJI)
    if kind < 0.74:
        return rng.choice(BASES) + "".join(rng.choice(MARKS) for _ in range(rng.choice((1, 1, 2, 3))))
    if kind < 0.80:
        return str(rng.randint(0, 10**6))
    return "".join(character(rng) for _ in range(rng.randint(1, 5)))


def main(tokenizer_file: str, vocabulary: str, out: str) -> None:
    spec = importlib.util.spec_from_file_location("tokenization_qwen2", tokenizer_file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tokenizer = module.Qwen2Tokenizer.from_pretrained(vocabulary)
    rng = random.Random(20250711)
    with Path(out).open("w", encoding="utf-8") as lines:
        for _ in range(CASES):
            text = "".join(piece(rng) for _ in range(rng.randint(1, 9)))
            ids = tokenizer(text)["input_ids"]
            decoded = tokenizer.decode(ids)
            case = [text, ids] if decoded == text else [text, ids, decoded]
            lines.write(json.dumps(case, separators=(",", ":")) + "\n")
        for _ in range(CASES // 10):  # sequences no text gives: characters cut in the middle
            ids = [rng.choice((rng.randint(0, 255), rng.randint(0, 151664))) for _ in range(rng.randint(1, 8))]
            decoded = tokenizer.decode(ids).replace("\0", "\ufffd")
            lines.write(json.dumps([None, ids, decoded], separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
