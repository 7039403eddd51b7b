"""`lance-farm prepare`: tables as people have them become tasks; nonsense is refused in one line, with nothing made."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import farm_jobs as support
from farm_jobs import farm, prepared, write_workflow
from lance_farm.collect import shortened, slug
from lance_farm.job import request_of
from lance_farm.table import read_table
from lance_farm.templates import openjd_template, slurm_script
from lance_farm.workflow import FILE_INPUTS
from lanced_client.digest import result_digest
from lanced_process import ROOT


def test_a_table_of_a_spreadsheet_is_read_as_it_is_meant(tmp_path: Path) -> None:
    table = tmp_path / "p.csv"
    table.write_bytes('\ufeffprompt,seed\r\n"a ""red"" fox, große\r\nFüße 🦊",7\r\n\r\nblue,8\r\n'.encode())
    rows = read_table(table).rows
    assert [row.cells for row in rows] == [
        {"prompt": 'a "red" fox, große\r\nFüße 🦊', "seed": "7"},
        {"prompt": "blue", "seed": "8"},
    ]


@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_table_with_semicolons_or_tabs_between_its_cells_is_read_as_one_with_commas(
    tmp_path: Path, mark: str
) -> None:
    table = tmp_path / "p.csv"
    table.write_text(f'\n"shot, take"{mark}prompt{mark}seed\rA{mark}"a fox, a cat; both"{mark}7\r', newline="")
    assert [row.cells for row in read_table(table).rows] == [
        {"shot, take": "A", "prompt": "a fox, a cat; both", "seed": "7"}
    ]


def test_rows_sweeps_and_seeds_are_all_combined(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt,shot\nred,A1\nblue,A2\n")
    job = prepared(
        tmp_path, "--table", str(tmp_path / "p.csv"), "--label", "shot", "--set", "2.steps=2,3", "--seeds", "5..7"
    )
    asked = [
        (t.values["2.prompt"], t.values["2.steps"], t.values["2.seed"], t.labels["shot"]) for t in job.tasks.values()
    ]
    assert asked == [
        (prompt, steps, seed, shot)
        for prompt, shot in (("red", "A1"), ("blue", "A2"))
        for steps in (2, 3)
        for seed in (5, 6, 7)
    ]
    assert len({task.request for task in job.tasks.values()}) == len(asked)


TABLES = [
    ("prompt,seed\nred\n", "line 2: 1 cells, the head has 2 (prompt, seed)"),
    ("prompt,seed\nred,1\n,2\n", 'line 3: the cell of column "prompt" is empty'),
    ("prompt,colour\nred,blue\n", 'column "colour": "colour" is no input of the workflow; it has 1.model'),
    ("prompt,prompt\nred,blue\n", 'two columns are called "prompt"'),
    ("prompt,2.prompt\nred,blue\n", "sets 2.prompt, as another column does"),
    ("prompt,\nred,blue\n", "column 2 has no name"),
    ("prompt\n", "has no rows below its head"),
    ('prompt\n"red\n', "line 2: unexpected end of data"),
    ("width\n64\n50\n", "task 2 (line 3): node 2 (Lance Text to Image): width is 50, no multiple of 16"),
    ("seed\n1\n1\n", "tasks 1 and 2 ask the same (lines 2 and 3 of the table)"),
    ("seed\nmany\n", 'task 1 (line 2): node 2 (Lance Text to Image): seed "many" is no whole number'),
    ("lance_model\nx\n", "lance_model"),
]


@pytest.mark.parametrize(("text", "words"), TABLES, ids=[words[:30] for _, words in TABLES])
def test_a_table_that_makes_no_sense_is_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    done = farm("prepare", write_workflow(tmp_path), "--table", tmp_path / "p.csv", "-o", tmp_path / "job")
    assert done.returncode == 2
    assert words in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize("bad", [b"prompt\nf\xfcr\n", "prompt\nred\n".encode("utf-16")])
def test_a_table_in_another_encoding_is_refused_with_what_to_do(tmp_path: Path, bad: bytes) -> None:
    (tmp_path / "p.csv").write_bytes(bad)
    done = farm("prepare", write_workflow(tmp_path), "--table", tmp_path / "p.csv", "-o", tmp_path / "job")
    assert done.returncode == 2
    assert "CSV UTF-8" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "steps"], "is not NODE.INPUT=VALUES"),
        (["--set", "steps=9..3"], "is no range"),
        (["--set", "steps=2", "--set", "2.steps=3"], "one input twice"),
        (["--map", "shot=2.prompt"], 'the table has no column "shot"'),
        (["--seeds", "1..99999999"], "is no range"),
        (["--set", "3.images=x"], "comes from another node"),
        (["--chunk", "0"], "0 is no whole number from 1 on"),
        (["--set", "2.prompt=a\rb"], "new-line character"),
        (["--set", "2.prompt=f\udcfcr"], "a name or a text is not UTF-8"),
        (["--seeds", f"1..{'9' * 5000}"], "is no whole number"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = farm("prepare", write_workflow(tmp_path), *arguments, "-o", tmp_path / "job")
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_that_several_nodes_have_is_refused_with_the_choices(tmp_path: Path) -> None:
    done = farm("prepare", ROOT / "workflows/api/chain_t2i_edit_i2v.json", "--seeds", "1..3", "-o", tmp_path / "job")
    assert done.returncode == 2
    assert "2.seed (Lance Text to Image), 3.seed (Lance Image Edit), 4.seed (Lance Image to Video)" in done.stderr


def test_workflows_that_cannot_run_are_refused(tmp_path: Path) -> None:
    for name, text, words in [
        ("ui", (ROOT / "workflows/t2i.json").read_text(), "Export (API)"),
        ("none", "[]", "is no workflow"),
        ("deep", "[" * 100_000, "nested deeper"),
        ("inputs", '{"1": {"class_type": "LancedModel", "inputs": null}}', '"inputs" of node 1 is no object'),
        ("half", json.dumps(support.WORKFLOW | {"8": {"class_type": "\ud83d"}}), "half a character (\\ud83d alone)"),
        ("foreign", json.dumps(support.WORKFLOW | {"9": {"class_type": "KSampler", "inputs": {}}}), "KSampler"),
    ]:
        (tmp_path / f"{name}.json").write_text(text)
        done = farm("prepare", tmp_path / f"{name}.json", "-o", tmp_path / "job")
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr
        assert not (tmp_path / "job").exists()


def test_numbers_that_json_does_not_have_are_refused_by_the_input_that_they_are_for(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt,seed,guidance\nred,7,nan\nblue,8,1e999\n")
    done = farm("prepare", write_workflow(tmp_path), "--table", tmp_path / "p.csv", "-o", tmp_path / "job")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "task 1 (line 2): " in done.stderr and "guidance" in done.stderr and "JSON" not in done.stderr


def test_a_job_for_which_there_is_no_room_leaves_no_folder(tmp_path: Path) -> None:
    workflow = write_workflow(tmp_path)
    words = [sys.executable, "-m", "lance_farm", "prepare", str(workflow), "--runner", "comfyui", "--seeds", "1..300"]
    limited = f"ulimit -f 16; exec {shlex.join([*words, '-o', str(tmp_path / 'job')])}"  # KiB
    done = subprocess.run(["bash", "-c", limited], env=support.ENVIRONMENT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "too large" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"workflow.json"}


EDITED = [
    ("job.json", '{"format": 1, "tasks": 2, "inputs": []}', "job.json is not what prepare wrote: prepare anew"),
    ("job.json", '{"format": 2}', "no job.json of format 1"),
    ("job.json", "[" * 20000, "no job.json of format 1"),
    ("tasks.jsonl", "", "tasks.jsonl is not what prepare wrote: prepare anew"),
    ("tasks.jsonl", '{"number": 1}', "tasks.jsonl is not what prepare wrote: prepare anew"),
    ("identity.json", '{"facts": 3}', "identity.json is not what submit wrote: remove it and submit again"),
]


@pytest.mark.parametrize(("name", "text", "words"), EDITED, ids=[f"{name} {text[:16]}" for name, text, _ in EDITED])
def test_a_job_whose_files_were_edited_is_refused_in_one_line(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    job = prepared(tmp_path, "--seeds", "1..2")
    (job / name).write_text(text)
    output = tmp_path / "out"
    commands: list[list[str | Path]] = [["status"], ["collect", "-o", output], ["worker", "--model", tmp_path]]
    for command in commands:
        done = farm(command[0], job.folder, *command[1:])
        assert (done.returncode, words in done.stdout + done.stderr) == (2, True), done.stdout + done.stderr
        assert (done.stdout + done.stderr).count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_an_edited_folder_says_of_tasks_that_the_job_does_not_have_counts_for_nothing(tmp_path: Path) -> None:
    job = prepared(tmp_path, "--seeds", "1..2")
    (job / "todo/000003.1").touch()
    (job / "failed/000004").touch()
    (job / "results/000005").mkdir()
    (job / "results/000001").mkdir()
    (job / "results/000001/receipt.json").write_text('{"seconds": "long"}')
    told = json.loads(farm("status", job.folder, "--json").stdout)
    assert [told[name] for name in ("tasks", "done", "running", "failed", "waiting")] == [2, 1, 0, 0, 1]
    assert told["failures"] == []


def test_slurms_script_runs_the_words_that_it_is_given_without_an_environment(tmp_path: Path) -> None:
    words = ["worker", 'a "job" of $HOME', "--model", "/my models/$x `y`", ""]
    program = [sys.executable, "-c", "import sys; print(sys.argv[1:])"]
    (tmp_path / "slurm.sh").write_text(slurm_script())
    done = subprocess.run(["sh", tmp_path / "slurm.sh", *program, *words], env={}, capture_output=True, text=True)
    assert done.stdout.strip() == str(words), done.stderr


@pytest.mark.parametrize("name", ["a\nb\tc", "{{Param.Model}}", "größe 🦊 " * 12, "}"])
def test_a_jobs_template_has_a_name_that_a_template_may_have(name: str) -> None:
    given = json.loads(openjd_template(name, 2, 1))["name"]
    assert 1 <= len(given) <= 128
    assert not any(ord(character) < 32 or character in "{}" for character in given)


def test_a_missing_picture_is_refused_and_others_are_kept_by_their_content(tmp_path: Path) -> None:
    workflow = ROOT / "workflows/api/image_edit.json"
    done = farm("prepare", workflow, "-o", tmp_path / "job")
    assert done.returncode == 2
    assert "is missing (--input-dir says where" in done.stderr
    job = prepared(tmp_path, "--input-dir", str(ROOT / "workflows/input"), workflow=workflow)
    stored = [path.name for path in (job / "inputs").iterdir()]
    assert len(stored) == 1
    assert stored[0] in json.dumps(job.tasks[1].values)


def test_a_tasks_id_is_the_digest_of_its_request_over_model_backend_and_build(tmp_path: Path) -> None:
    from lance_farm.job import Identity
    from lance_farm.programs import Facts

    job = prepared(tmp_path, "--seeds", "1..2")
    identity = Identity(Facts("m", "ab" * 32, "cpu-avx512", "cd" * 32), 90.0)
    for task in job.tasks.values():
        assert task.request == request_of(job.graph_of(task), "lancectl")
        assert identity.digest(task.request) == result_digest(task.request, "ab" * 32, "cpu-avx512", "cd" * 32)


def test_files_that_workflows_name_are_those_that_lancectl_reads() -> None:
    nodes = json.loads((ROOT / "protocol/core_nodes.json").read_text())["nodes"]
    read = {(kind, name) for kind, node in nodes.items() for name, entry in node["inputs"].items() if entry.get("file")}
    assert read <= set(FILE_INPUTS.items())


def test_names_of_files_keep_letters_of_every_script() -> None:
    assert slug('a "red" fox, große Füße / 猫.') == "a-red-fox-große-Füße-猫"
    assert slug("../..") == ""
    assert shortened("猫" * 100, 200) == "猫" * 66
