"""A small byte-level BPE in the Qwen2 file format (vocab.json, merges.txt, tokenizer_config.json, tokenizer.json).

    python -m demo.train.make_tokenizer --out RUN/tokenizer
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from demo.shapes import Scene
from demo.train import world
from demo.train.layout import ALL_SYSTEM_PROMPTS

WORD_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
SPECIAL_TOKENS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
VOCABULARY = 1000  # at most, special tokens included; merges that occur under 20 times are left out


def corpus() -> list[str]:
    rng = random.Random(0)
    texts: list[str] = []
    for _ in range(3000):
        scene, clip = Scene.draw(rng), Scene.draw_crossing(rng)
        texts += [world.image_prompt(scene, rng), world.video_prompt(clip, rng), world.motion_prompt(clip, rng)]
        texts.append(world.draw_edit(scene, rng).instruction)
        texts += [world.answer(scene, topic) for topic in world.IMAGE_QUESTIONS] + [world.answer(clip, "motion")]
    for table in (world.IMAGE_QUESTIONS, world.VIDEO_QUESTIONS):
        texts += [question for wordings in table.values() for question in wordings] * 300
    return texts + [*ALL_SYSTEM_PROMPTS, "system\n", "user\n", "assistant\n"] * 300


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORD_PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL_TOKENS), min_frequency=20, show_progress=False, initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer.model.save(str(args.out))
    tokenizer.save(str(args.out / "tokenizer.json"))
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {str(tokenizer.token_to_id(t)): {"content": t, **plain} for t in SPECIAL_TOKENS},
        "additional_special_tokens": SPECIAL_TOKENS[1:],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    (args.out / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    print(f"{tokenizer.get_vocab_size()} tokens")


if __name__ == "__main__":
    main()
