"""lance-quant: both recipes; the published one from the demo model in bf16 to the files that the published scripts made
of it.

tests/golden/data/quant/demo/act_stats.pt is what demo/train/calibrate.py counted (on the CPU, PyTorch 2.13);
demo/lance-demo-awq, -awq64 and -nvfp4 are what awq_apply.py and nvfp4_apply.py of lance-quant made of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import subprocess
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lanced_process import BUILD, Lanced
from safetensors_file import Entry, read, write

QUANT = BUILD / "lance-quant"
ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "demo/lance-demo"
STATISTICS = ROOT / "tests/golden/data/quant/demo/act_stats.pt"
FORMS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "awq-128": (("--recipe", "published", "--form", "awq-int4"), "lance-demo-awq", "awq"),
    "awq-64": (("--recipe", "published", "--form", "awq-int4", "--group", "64"), "lance-demo-awq64", "awq"),
    "nvfp4": (("--recipe", "published", "--form", "nvfp4"), "lance-demo-nvfp4", "nvfp4"),
}


def quant(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [str(word) for word in (QUANT, *words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)


def apply(
    output: Path, *words: str | Path, model: Path = MODEL, stats: Path = STATISTICS
) -> subprocess.CompletedProcess[str]:
    return quant("apply", "--model", model, "--stats", stats, "-o", output, *(words or ("--form", "awq-int4")))


def codes(packed: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    pairs = np.frombuffer(packed, np.uint8)
    return np.concatenate([pairs & 15, pairs >> 4])


@pytest.mark.parametrize("form", FORMS)
def test_the_published_recipe_gives_the_published_files(form: str, tmp_path: Path) -> None:
    words, folder, kind = FORMS[form]
    made = apply(tmp_path / "made", *words)
    assert made.returncode == 0, made.stderr
    ours, theirs = (
        read(place / f"{kind}_state_dict.safetensors") for place in (tmp_path / "made", MODEL.parent / folder)
    )
    ours.pop("latent_pos_embed.pos_embed")  # a table that nobody reads, left out of the demo's files
    assert list(ours) == list(theirs)
    assert {name: entry[:2] for name, entry in ours.items()} == {name: entry[:2] for name, entry in theirs.items()}
    same = total = 0
    for name, (_, _, data) in ours.items():
        if name.endswith(".qweight"):
            equal = codes(data) == codes(theirs[name][2])
            same, total = same + int(equal.sum()), total + equal.size
        else:
            assert data == theirs[name][2], name
    assert total == 1572864
    assert same >= 0.9999 * total  # a sum in another order may tip a value from one code to the next


@pytest.mark.parametrize("form", FORMS)
def test_the_meta_file_says_what_the_published_one_says(form: str, tmp_path: Path) -> None:
    words, folder, kind = FORMS[form]
    assert apply(tmp_path / "made", *words).returncode == 0
    ours, theirs = (
        json.loads((place / f"{kind}_meta.json").read_text()) for place in (tmp_path / "made", MODEL.parent / folder)
    )
    assert ours == theirs


def test_lanced_draws_the_same_picture_with_our_files_as_with_the_published_ones(tmp_path: Path) -> None:
    (tmp_path / "Lance_3B").symlink_to(MODEL)
    (tmp_path / "Qwen2.5-VL-ViT").symlink_to(MODEL / "Qwen2.5-VL-ViT")
    (tmp_path / "Wan2.2_VAE.pth").symlink_to(MODEL / "Wan2.2_VAE.pth")
    assert apply(tmp_path / "Lance-3B-AWQ-INT4", *FORMS["awq-128"][0]).returncode == 0
    pictures = []
    for model in (tmp_path / "Lance-3B-AWQ-INT4", MODEL.parent / "lance-demo-awq"):
        with Lanced(models=(model,)) as daemon, daemon.client() as client:
            pixels = client.generate("t2i", prompt="a red circle", width=64, height=64, num_inference_steps=4).pixels
        assert pixels is not None
        pictures.append(pixels)
    assert np.array_equal(pictures[0], pictures[1])


def test_a_run_that_was_killed_goes_on_and_gives_the_same_bytes(tmp_path: Path) -> None:
    assert apply(tmp_path / "whole").returncode == 0
    output, kills = tmp_path / "made", 0
    command = [
        str(word)
        for word in (QUANT, "apply", "--model", MODEL, "--stats", STATISTICS, "--form", "awq-int4", "-o", output)
    ]
    progress = tmp_path / "made.partial/progress"
    for wanted in (2, 9, 17, 30):  # lines: one for what is being made, then one for each part that is done
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (progress.exists() and progress.read_text().count("\n") >= wanted):
            time.sleep(0.001)
        kills += process.poll() is None
        process.kill()
        process.wait()
    done = progress.read_text().count("\n") - 1 if progress.exists() else 33
    assert kills > 0
    assert done > 0
    if not output.exists():
        last = quant(*command[1:])
        assert last.returncode == 0, last.stderr
        assert "going on" in last.stderr
    assert not (tmp_path / "made.partial").exists()
    for name in ("awq_state_dict.safetensors", "awq_meta.json"):
        assert (output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.deep
@pytest.mark.parametrize(("form", "most_kills"), [("awq-int4", 20), ("nvfp4", 4), ("int8", 4)])
def test_killed_at_random_moments_it_gives_the_same_bytes(form: str, most_kills: int, tmp_path: Path) -> None:
    began = time.monotonic()
    assert apply(tmp_path / "whole", "--form", form).returncode == 0
    takes = time.monotonic() - began
    weights = f"{form.split('-')[0]}_state_dict.safetensors"
    whole, output = (tmp_path / "whole" / weights).read_bytes(), tmp_path / "made"
    words: list[str | Path] = ["apply", "--model", MODEL, "--stats", STATISTICS, "--form", form, "-o", output]
    chance, kills = random.Random(form), 0
    while kills < most_kills:
        process = subprocess.Popen([str(word) for word in (QUANT, *words)], stderr=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0, takes / 2))
        kills += process.poll() is None
        process.kill()
        process.wait()
        if output.exists():  # it had ended: the next ones begin anew
            assert (output / weights).read_bytes() == whole
            shutil.rmtree(output)
    last = quant(*words)
    assert last.returncode == 0, last.stderr
    assert (output / weights).read_bytes() == whole


def test_a_damaged_list_of_what_is_done_costs_work_and_no_bytes(tmp_path: Path) -> None:
    assert apply(tmp_path / "whole").returncode == 0
    words = ("apply", "--model", MODEL, "--stats", STATISTICS, "--form", "awq-int4", "--threads", "1", "-o")
    command = [str(word) for word in (QUANT, *words)]

    def run_until_killed(output: Path) -> Path:
        progress = output.with_name(f"{output.name}.partial") / "progress"
        lines = progress.read_text().count("\n") if progress.exists() else 0
        process = subprocess.Popen([*command, str(output)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (progress.exists() and progress.read_text().count("\n") > lines):
            time.sleep(0.001)
        process.kill()
        process.wait()
        return progress

    def weights_are_lost(progress: Path) -> None:
        (progress.parent / "awq_state_dict.safetensors").unlink()
        progress.write_text(progress.read_text().partition("\n")[0] + "\n31\n")

    def zeros_as_after_a_power_cut(progress: Path) -> None:
        progress.write_bytes(progress.read_bytes().partition(b"\n")[0] + b"\n" + bytes(3) + b"\n32\n")

    def a_line_is_cut_off(progress: Path) -> None:
        progress.write_text(progress.read_text().partition("\n")[0] + "\n3")
        run_until_killed(tmp_path / a_line_is_cut_off.__name__)

    for damage in (weights_are_lost, zeros_as_after_a_power_cut, a_line_is_cut_off):
        output = tmp_path / damage.__name__
        progress = run_until_killed(output)
        assert progress.exists(), "the run had ended before it was killed"
        damage(progress)
        if not output.exists():
            assert apply(output, "--form", "awq-int4", "--threads", "1").returncode == 0
        name = "awq_state_dict.safetensors"
        assert (output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), damage.__name__


def test_what_was_begun_with_other_statistics_is_begun_anew(tmp_path: Path) -> None:
    twice = tmp_path / "other.safetensors"
    assert quant("merge", STATISTICS, "-o", twice).returncode == 0
    tensors = read(twice)
    name = next(name for name in tensors if name.endswith("up_proj.sum_abs"))
    dtype, shape, data = tensors[name]
    tensors[name] = (
        dtype,
        shape,
        (np.frombuffer(data, np.float32) * np.linspace(1, 50, shape[0], dtype=np.float32)).tobytes(),
    )
    write(twice, tensors, {"lance_statistics": "1", "tasks": "[]"})
    process = subprocess.Popen(
        [QUANT, "apply", "--model", MODEL, "--stats", twice, "--form", "awq-int4", "-o", tmp_path / "made"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not (tmp_path / "made.partial/progress").exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    shutil.rmtree(tmp_path / "made", ignore_errors=True)
    made = apply(tmp_path / "made")
    assert made.returncode == 0, made.stderr
    assert "going on" not in made.stderr
    assert apply(tmp_path / "whole").returncode == 0
    assert (tmp_path / "made/awq_state_dict.safetensors").read_bytes() == (
        tmp_path / "whole/awq_state_dict.safetensors"
    ).read_bytes()


def test_statistics_whose_sum_no_file_can_hold_are_not_written(tmp_path: Path) -> None:
    for name, total, tokens in (("numbers", 3e38, 1), ("tokens", 1.0, 2**63 - 1)):
        entries: dict[str, Entry] = {
            "layer.sum_abs": ("F32", [1], struct.pack("<f", total)),
            "layer.tokens": ("I64", [], struct.pack("<q", tokens)),
        }
        path = write(tmp_path / f"{name}.safetensors", entries, {"lance_statistics": "1", "tasks": "[]"})
        merged = quant("merge", path, path, "-o", tmp_path / "sum.safetensors")
        assert merged.returncode == 1
        assert "too large to be added up" in merged.stderr
        assert not (tmp_path / "sum.safetensors").exists()


def test_merged_statistics_are_weighted_by_their_tokens(tmp_path: Path) -> None:
    merged = tmp_path / "merged.safetensors"
    said = quant("merge", STATISTICS, STATISTICS, "-o", merged)
    assert said.returncode == 0, said.stderr
    assert "7 tasks" in said.stdout
    once = tmp_path / "once.safetensors"
    assert quant("merge", STATISTICS, "-o", once).returncode == 0
    for name, (_, _, data) in read(once).items():
        kind: Any = np.int64 if name.endswith(".tokens") else np.float32
        assert np.array_equal(2 * np.frombuffer(data, kind), np.frombuffer(read(merged)[name][2], kind))
    for stats, output in ((once, "a"), (merged, "b")):
        assert apply(tmp_path / output, stats=stats).returncode == 0
    files = [(tmp_path / output / "awq_state_dict.safetensors").read_bytes() for output in "ab"]
    assert files[0] == files[1]


def test_threads_change_nothing(tmp_path: Path) -> None:
    for threads in ("1", "3"):
        assert apply(tmp_path / threads, "--form", "nvfp4", "--threads", threads).returncode == 0
    assert (tmp_path / "1/nvfp4_state_dict.safetensors").read_bytes() == (
        tmp_path / "3/nvfp4_state_dict.safetensors"
    ).read_bytes()


def test_a_release_in_several_files_gives_what_one_file_gives(tmp_path: Path) -> None:
    tensors = list(read(MODEL / "model.safetensors").items())
    half = len(tensors) // 2
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    index: dict[str, str] = {}
    for number, part in enumerate((tensors[:half], tensors[half:])):
        file = f"model-{number + 1:05}-of-00002.safetensors"
        write(sharded / file, dict(part))
        index |= {name: file for name, _ in part}
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    for model, output in ((MODEL, "one"), (sharded, "two")):
        made = apply(tmp_path / output, model=model)
        assert made.returncode == 0, made.stderr
    assert (tmp_path / "one/awq_state_dict.safetensors").read_bytes() == (
        tmp_path / "two/awq_state_dict.safetensors"
    ).read_bytes()


def changed_statistics(tmp_path: Path, change: str) -> Path:
    path = tmp_path / "changed.safetensors"
    assert quant("merge", STATISTICS, "-o", path).returncode == 0
    tensors = read(path)
    name = "language_model.model.layers.1.mlp.up_proj"
    dtype, shape, data = tensors[f"{name}.sum_abs"]
    if change == "not a number":
        tensors[f"{name}.sum_abs"] = (dtype, shape, np.full(shape, np.nan, np.float32).tobytes())
    elif change == "another width":
        tensors[f"{name}.sum_abs"] = (dtype, [64], data[: 4 * 64])
    elif change == "no count":
        del tensors[f"{name}.tokens"]
    elif change == "one expert":
        tensors = {name: entry for name, entry in tensors.items() if "_moe_gen" not in name}
    else:
        tensors = {name: (entry[0], entry[1], bytes(len(entry[2]))) for name, entry in tensors.items()}
    return write(path, tensors, {"lance_statistics": "1", "tasks": '["t2i"]'})


@pytest.mark.parametrize(
    ("change", "words"),
    [("not a number", "layers.1.mlp.up_proj"), ("another width", "another model"), ("no count", "tokens")],
)
def test_statistics_that_are_wrong_are_refused_by_name(change: str, words: str, tmp_path: Path) -> None:
    made = apply(tmp_path / "made", stats=changed_statistics(tmp_path, change))
    assert made.returncode == 1
    assert words in made.stderr
    assert not (tmp_path / "made").exists()


def test_statistics_without_products_are_said_to_be_too_little_for_the_best_recipe(tmp_path: Path) -> None:
    assert "has no products of inputs" in apply(tmp_path / "best").stderr
    assert "products" not in apply(tmp_path / "published", *FORMS["awq-128"][0]).stderr


def test_layers_that_saw_no_token_are_rounded_plainly_and_counted(tmp_path: Path) -> None:
    made = apply(tmp_path / "made", stats=changed_statistics(tmp_path, "no tokens"))
    assert made.returncode == 0, made.stderr
    assert "saw no token in 56 of 56 layers" in made.stderr
    meta = json.loads((tmp_path / "made/awq_meta.json").read_text())
    assert (meta["awq_linears"], meta["plain_linears"]) == (0, 56)


def test_statistics_of_one_expert_leave_the_other_to_plain_rounding(tmp_path: Path) -> None:
    made = apply(tmp_path / "made", stats=changed_statistics(tmp_path, "one expert"))
    assert made.returncode == 0, made.stderr
    words = next(line for line in made.stderr.splitlines() if "saw no token in 28 of 56 layers" in line)
    assert "self_attn.q_proj_moe_gen (4)" in words and "mlp_moe_gen.down_proj (4)" in words
    assert words.count("_moe_gen") == 7
    schemes = json.loads((tmp_path / "made/awq_meta.json").read_text())["per_weight"]
    assert schemes["language_model.model.layers.0.self_attn.q_proj.weight"]["scheme"] == "asym_int4_grouped_awq"
    assert (
        schemes["language_model.model.layers.0.self_attn.q_proj_moe_gen.weight"]["scheme"] == "asym_int4_grouped_no_awq"
    )


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def test_a_pickle_that_would_run_something_is_refused_by_name(tmp_path: Path) -> None:
    evil = tmp_path / "evil.pt"
    with zipfile.ZipFile(evil, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"stats": Runs()}, protocol=2))
    made = subprocess.run(
        [QUANT, "merge", evil, "-o", tmp_path / "sum.safetensors"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert made.returncode == 1
    assert "posix.system" in made.stderr
    assert not (tmp_path / "executed").exists()


def test_nested_dicts_that_hold_themselves_are_refused(tmp_path: Path) -> None:
    endless: dict[str, Any] = {}
    endless["stats"] = endless
    wide: Any = {"sum_abs": 1}
    for _ in range(7):
        wide = {str(i): wide for i in range(50)}
    for number, value in enumerate((endless, wide)):
        path = tmp_path / f"{number}.pt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(value, protocol=2))
        made = quant("merge", path, "-o", tmp_path / "sum.safetensors")
        assert made.returncode == 1
        assert "dict" in made.stderr


def test_models_and_folders_that_cannot_be_used_get_words(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "empty").mkdir()
    short = tmp_path / "short"
    short.mkdir()
    (short / "model.safetensors").write_bytes((MODEL / "model.safetensors").read_bytes()[:100000])
    for made, code, words in (
        (apply(tmp_path / "there"), 1, "exists"),
        (apply(tmp_path / "a", model=MODEL.parent / "lance-demo-awq"), 1, "quantised already"),
        (apply(tmp_path / "a", model=tmp_path / "empty"), 1, "model.safetensors"),
        (apply(tmp_path / "a", model=short), 1, "short"),
        (apply(tmp_path / "a", stats=tmp_path / "none.pt"), 1, "none.pt"),
        (apply(tmp_path / "nowhere/a"), 1, "nowhere"),
        (apply(tmp_path / "a", "--form", "int3"), 2, "awq-int4"),
        (apply(tmp_path / "a", "--form", "nvfp4", "--group", "64"), 2, "groups of 16"),
        (apply(tmp_path / "a", *FORMS["nvfp4"][0], "--without", "clipping"), 2, "for the recipe best"),
        (quant("merge", "-o", "sum.safetensors"), 2, "at least one"),
        (quant("frobnicate"), 2, "no such command"),
    ):
        assert made.returncode == code, made.stderr
        assert words in made.stderr
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("form", ["awq-int4", "nvfp4", "export"])
def test_a_weight_that_is_no_number_is_told_and_not_hidden_in_a_code(form: str, tmp_path: Path) -> None:
    tensors, name = read(MODEL / "model.safetensors"), "language_model.model.layers.0.self_attn.k_proj.weight"
    dtype, shape, data = tensors[name]
    tensors[name] = (dtype, shape, (b"\xc0\x7f" if form == "nvfp4" else b"\x80\xff") + data[2:])  # NaN; -infinity
    damaged_model = tmp_path / "model"
    damaged_model.mkdir()
    write(damaged_model / "model.safetensors", tensors)
    (damaged_model / "llm_config.json").symlink_to(MODEL / "llm_config.json")
    words = ("export", "--form", "mlx") if form == "export" else ("apply", "--stats", str(STATISTICS), "--form", form)
    made = quant(*words, "--model", damaged_model, "-o", tmp_path / "made")
    assert (made.returncode, f"{name}: a weight of row 0 is infinite or no number" in made.stderr) == (1, True)
    assert not (tmp_path / "made").exists()


def test_a_name_that_the_folder_cannot_have_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").write_text("")
    for name, words in (("link", "exists"), ("file/", "exists"), ("", "empty")):
        for command in (("apply", "--stats", STATISTICS, "--form", "awq-int4"), ("export", "--form", "hf-und")):
            made = quant(*command, "--model", MODEL, "-o", name, cwd=tmp_path)
            assert (made.returncode, words in made.stderr) == (1, True), made.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_a_folder_whose_name_was_taken_meanwhile_is_not_made_again(tmp_path: Path) -> None:
    words: list[str | Path] = ["apply", "--model", MODEL, "--stats", STATISTICS, *FORMS["awq-128"][0]]
    words += ["-o", tmp_path / "made"]
    command = [str(word) for word in (QUANT, *words)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None and not (tmp_path / "made.partial/progress").exists():
        time.sleep(0.001)
    (tmp_path / "made").write_text("")
    assert b"cannot be named" in process.communicate()[1]
    assert process.returncode == 1
    (tmp_path / "made").unlink()
    again = quant(*words)
    assert (again.returncode, "going on" in again.stderr, "layers," in again.stderr) == (0, True, False), again.stderr
    names = sorted(path.name for path in (tmp_path / "made").iterdir())
    assert names == ["awq_meta.json", "awq_state_dict.safetensors"]


def test_a_disk_that_takes_no_more_is_said_and_the_run_can_go_on(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    words = ("apply", "--model", MODEL, "--stats", STATISTICS, "--form", "awq-int4", "-o", tmp_path / "made")
    full = quant(*words, preexec_fn=limit)
    assert full.returncode == 1
    assert "made.partial" in full.stderr
    assert not (tmp_path / "made").exists()
    assert quant(*words).returncode == 0


def test_of_two_runs_that_make_one_folder_the_second_is_refused(tmp_path: Path) -> None:
    partial = tmp_path / "made.partial"
    partial.mkdir()
    with (partial / "progress").open("w") as progress:
        progress.write("begun by another\n")
        progress.flush()
        fcntl.flock(progress, fcntl.LOCK_EX)  # as lance-quant holds it
        made = apply(tmp_path / "made")
        assert (made.returncode, "another lance-quant is making it" in made.stderr) == (1, True), made.stderr
        assert (partial / "progress").read_text() == "begun by another\n"
    assert apply(tmp_path / "made").returncode == 0


def damaged(tmp_path: Path, kind: str, change: Any) -> Path:
    """A copy of the demo model in a 4-bit form with one thing changed in its tensors or meta file."""
    folder = tmp_path / f"damaged-{kind}"
    shutil.copytree(MODEL.parent / ("lance-demo-awq" if kind == "awq" else "lance-demo-nvfp4"), folder, symlinks=False)
    tensors, meta = (
        read(folder / f"{kind}_state_dict.safetensors"),
        json.loads((folder / f"{kind}_meta.json").read_text()),
    )
    change(tensors, meta)
    write(folder / f"{kind}_state_dict.safetensors", tensors)
    (folder / f"{kind}_meta.json").write_text(json.dumps(meta))
    return folder


LINEAR = "language_model.model.layers.2.mlp.up_proj"


def first_byte(tensor: str, value: bytes) -> Any:
    def change(tensors: dict[str, Entry], meta: dict[str, Any]) -> None:
        dtype, shape, data = tensors[f"{LINEAR}.{tensor}"]
        tensors[f"{LINEAR}.{tensor}"] = (dtype, shape, value + data[len(value) :])

    return change


def meta_change(**entry: Any) -> Any:
    def change(tensors: dict[str, Entry], meta: dict[str, Any]) -> None:
        meta["per_weight"][f"{LINEAR}.weight"] |= entry

    return change


def meta_loses_entry(tensors: dict[str, Entry], meta: dict[str, Any]) -> None:
    del meta["per_weight"][f"{LINEAR}.weight"]


def meta_names_more(tensors: dict[str, Entry], meta: dict[str, Any]) -> None:
    meta["per_weight"]["language_model.model.layers.9.mlp.up_proj.weight"] = {"shape": [1, 2]}


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("awq", first_byte("zeros", b"\x10"), "zero points are over 15"),
        ("awq", first_byte("scales", b"\xc0\x7f"), "no numbers"),
        ("awq", first_byte("scales", b"\x00\xbf"), "negative"),
        ("nvfp4", first_byte("scales_fp8", b"\x7f"), "FP8 scales"),
        ("nvfp4", first_byte("scales_fp8", b"\x81"), "FP8 scales"),
        ("nvfp4", first_byte("scales_bf16", b"\x80\x7f"), "no numbers"),
        ("awq", meta_change(shape=[384, 129]), "up_proj"),
        ("awq", meta_change(group_size=64), "groups"),
        ("awq", meta_loses_entry, "does not name it"),
        ("nvfp4", meta_names_more, 'layers.9.mlp.up_proj.weight" is missing'),
    ],
)
def test_check_names_what_does_not_hold_together(kind: str, change: Any, words: str, tmp_path: Path) -> None:
    said = quant("check", damaged(tmp_path, kind, change))
    assert said.returncode == 1
    assert words in said.stdout + said.stderr


def test_check_counts_what_a_good_folder_holds() -> None:
    for folder, lines in (
        ("lance-demo-awq", ("awq-int4-g128", "quantised layers: 56", "scales: 12288", "4.222 bits each")),
        ("lance-demo-nvfp4", ("FP8 scales: 543 of 98304 (0.55 %) are subnormal", "tasks: t2i t2v i2v")),
        ("lance-demo", ("bf16", "tasks: t2i t2v i2v")),
    ):
        said = quant("check", MODEL.parent / folder)
        assert said.returncode == 0, said.stdout + said.stderr
        assert all(line in said.stdout for line in lines), said.stdout
