"""How well transformers' own model expects texts: what tests/e2e/test_export.py compares an export with.

Run by an interpreter that has torch and transformers, which the tests' own need not: FOLDER TEXT... prints a JSON list
of perplexities, of all tokens but the first of each text.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch  # type: ignore[import-not-found,unused-ignore]
from transformers import AutoModelForCausalLM, AutoTokenizer  # type: ignore[import-not-found,unused-ignore]


def main() -> None:
    folder, texts = sys.argv[1], sys.argv[2:]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    told = []
    for text in texts:
        ids = torch.tensor([tokenizer(Path(text).read_text())["input_ids"]])
        with torch.no_grad():
            told.append(float(torch.exp(model(input_ids=ids, labels=ids).loss)))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
