"""How well transformers' own model expects texts: what tests/e2e/test_export.py compares an export with.

Run by an interpreter that has torch and transformers, which the tests' own need not: FOLDER TEXT... prints a JSON list
of perplexities, of all tokens but the first of each text. With `--quantised FOLDER --runtime run_quant_eval.py` the
linear layers are those of lance-quant's own runtime, which reads the quantised folder, with its norms, itself.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch  # type: ignore[import-not-found,unused-ignore]
from transformers import AutoModelForCausalLM, AutoTokenizer  # type: ignore[import-not-found,unused-ignore]


class UnderTheirName(torch.nn.Module):  # type: ignore[misc,unused-ignore]
    """A model as the attribute that it is in Lance, so that its parts have the names that they have in the file."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.language_model = model


def quantise(model: Any, folder: Path, runtime: Path) -> None:
    spec = importlib.util.spec_from_file_location("runtime", runtime)
    assert spec is not None and spec.loader is not None
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    whole = UnderTheirName(model)
    with redirect_stdout(sys.stderr):
        theirs.stream_awq_buffers(theirs.swap_to_awq(whole, folder, torch.float32), folder)
        theirs.stream_pass_through_weights(whole, folder)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--quantised", type=Path)
    parser.add_argument("--runtime", type=Path)
    args = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(args.folder, dtype=torch.float32, attn_implementation="eager")
    if args.quantised:
        quantise(model, args.quantised, args.runtime)
    tokenizer = AutoTokenizer.from_pretrained(args.folder)
    told = []
    for text in args.texts:
        ids = torch.tensor([tokenizer(text.read_text())["input_ids"]])
        with torch.no_grad():
            told.append(float(torch.exp(model(input_ids=ids, labels=ids).loss)))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
