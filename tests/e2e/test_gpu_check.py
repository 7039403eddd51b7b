"""tools/gpu_check.py, tried on an emulated card."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.deep
ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "build/tests/liblanced_cuda_emulated.so"
PROGRAMS = ("build/tests/unit/test_cuda_elementwise", "build/tests/unit/test_cuda_guided_step",
            "build/tests/check-golden", "build/lance-bench", "build/random-checkpoint")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    subprocess.run(["make", "-s", *PROGRAMS], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    folder = tmp_path_factory.mktemp("gpu")
    for program in PROGRAMS:
        (folder / Path(program).name).symlink_to(ROOT / program)
    return folder


def gpu_check(programs: Path, out: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools/gpu_check.py"), "--quick", "--programs", str(programs),
               "--plugin", str(PLUGIN), "--out", str(out), "--only", "t2i_nocfg.f32", *arguments]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=600)


def replace_program(programs: Path, folder: Path, name: str, script: str) -> Path:
    """The folder, with the programs in it but for one, which is a shell script."""
    folder.mkdir()
    for program in programs.iterdir():
        (folder / program.name).symlink_to(program.resolve())
    (folder / name).unlink()
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return folder


def read_report(out: Path) -> tuple[dict[str, Any], str]:
    """The only report in the folder, and its table."""
    (path,) = out.glob("*.json")
    assert path.name.startswith("emulated-card-0-")
    return json.loads(path.read_text()), path.with_suffix(".md").read_text()


def test_a_passed_check_leaves_a_report_and_a_table_of_everything(programs: Path, tmp_path: Path) -> None:
    done = gpu_check(programs, tmp_path, "--sections", "bench,operators,goldens,sanitizer")
    assert done.returncode == 0, done.stdout + done.stderr
    report, table = read_report(tmp_path)
    assert report["totals"]["failed"] == 0
    assert {program["program"] for program in report["operators"]} == {"test_cuda_elementwise", "test_cuda_guided_step"}
    stages = [line["stage"] for line in report["goldens"][0]["lines"]]
    assert "job.final_latent" in stages and "job.output_u8" in stages
    assert [case["name"] for case in report["bench"][0]["cases"]][:1] == ["rms-norm"]
    assert table.startswith("# emulated card 0, ")
    assert "| t2i_nocfg.f32 |" in table and "| rms-norm | (tiny) |" in table


def test_a_program_that_crashes_and_a_missing_recording_count_as_failures(programs: Path, tmp_path: Path) -> None:
    crash = "echo ok 1 - began\nkill -SEGV $$"
    folder = replace_program(programs, tmp_path / "programs", "test_cuda_guided_step", crash)
    done = gpu_check(folder, tmp_path / "out", "--golden", str(tmp_path / "nothing"), "--sections", "operators,goldens")
    assert done.returncode == 1
    report, _ = read_report(tmp_path / "out")
    assert report["totals"]["failed"] == 2
    assert "ended with status" in json.dumps(report["operators"])


def test_a_single_section_can_be_asked_for(programs: Path, tmp_path: Path) -> None:
    assert gpu_check(programs, tmp_path, "--sections", "operators").returncode == 0
    report, _ = read_report(tmp_path)
    assert report["operators"] and not report["goldens"] and not report["bench"]
    assert gpu_check(programs, tmp_path, "--sections", "nothing").returncode == 2


def test_whole_tasks_are_measured_on_a_checkpoint_made_for_it(programs: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    done = gpu_check(programs, tmp_path / "out", "--sections", "tasks", "--models", str(models))
    assert done.returncode == 0, done.stdout + done.stderr
    report, table = read_report(tmp_path / "out")
    (entry,) = report["tasks"]
    assert [task["task"] for task in entry["tasks"]] == ["t2i", "x2t_image"]
    assert entry["kind"] == "nvfp4" and all(check["passed"] for check in entry["checks"])
    assert "| t2i, 32 x 32, 1 frame, 1 steps |" in table
    assert (models / "nvfp4/Lance-3B-NVFP4").is_dir(), "kept for a later run"


def test_a_checkpoint_that_cannot_be_made_leaves_what_was_found_before(programs: Path, tmp_path: Path) -> None:
    folder = replace_program(programs, tmp_path / "programs", "random-checkpoint", "echo no room; exit 1")
    done = gpu_check(folder, tmp_path / "out", "--sections", "operators,tasks,tasks-bf16")
    assert done.returncode == 1, done.stdout + done.stderr
    (path,) = (tmp_path / "out").glob("*-operators-tasks-tasks-bf16.json")
    report = json.loads(path.read_text())
    assert len(report["operators"]) == 2 and report["finished"]
    assert [entry["checks"][0]["passed"] for entry in report["tasks"]] == [False, False]
    assert "FAILED: tasks: random-checkpoint ended with status 1: no room" in path.with_suffix(".md").read_text()


def test_a_check_that_is_cut_off_leaves_what_it_had_and_does_not_look_finished(programs: Path, tmp_path: Path) -> None:
    folder = replace_program(programs, tmp_path / "programs", "check-golden", "kill -TERM $PPID; exec sleep 60")
    done = gpu_check(folder, tmp_path / "out", "--sections", "operators,goldens")
    assert done.returncode == 143, done.stdout + done.stderr
    report, table = read_report(tmp_path / "out")
    assert report["operators"] and not report["finished"]
    assert "**Not finished**" in table


def test_what_a_program_said_before_the_machine_was_taken_away_is_there(programs: Path, tmp_path: Path) -> None:
    # Like a C program it says nothing to a pipe until it ends. It is gone once that was seen, or after ten seconds.
    script = tmp_path / "says.py"
    script.write_text("import os, pathlib, signal, time\nprint('ok 1 - seen')\nend = time.monotonic() + 10\n"
                      f"while time.monotonic() < end and not any(b'seen' in log.read_bytes() "
                      f"for log in pathlib.Path({str(tmp_path / 'out')!r}).glob('*.log')):\n    time.sleep(0.02)\n"
                      "os.kill(os.getppid(), signal.SIGKILL)\n")  # fmt: skip
    folder = replace_program(programs, tmp_path / "programs", "test_cuda_guided_step",
                             f'exec "{sys.executable}" "{script}"')  # fmt: skip
    assert gpu_check(folder, tmp_path / "out", "--sections", "operators").returncode == -9
    (log,) = (tmp_path / "out").glob("*.log")
    said = log.read_text().splitlines()
    assert said[-1] == "ok 1 - seen" and said[-2].endswith("test_cuda_guided_step")
    assert any(line.startswith("$ ") and "lance-bench" in line for line in said), "what came before, too"
    assert gpu_check(programs, tmp_path / "out", "--sections", "operators", "--resume").returncode == 0
    assert log.read_text().splitlines()[: len(said)] == said, "a run that goes on takes none of it away"


def test_a_task_is_told_when_it_has_ended_whatever_becomes_of_the_next(programs: Path, tmp_path: Path) -> None:
    made: list[str | Path] = [programs / "random-checkpoint", "--config", "tiny", "--form", "nvfp4", "-o", tmp_path]
    subprocess.run(made, check=True, capture_output=True)
    too_large = ["--picture", "56x9000"]
    done = subprocess.run([programs / "lance-bench", "--tasks", "--model", tmp_path / "Lance-3B-NVFP4", "--json",
                           "--task", "t2i,x2t_image", "--image", "32x32", "--steps", "1", "--runs", "1", *too_large],
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 1 and "x2t_image: source height" in done.stderr
    task, _ = json.JSONDecoder().raw_decode(done.stdout.partition('"tasks": [')[2].lstrip())
    assert task["task"] == "t2i" and task["finite"] and task["stages"]


def test_a_check_that_was_cut_off_goes_on_where_it_was(programs: Path, tmp_path: Path) -> None:
    cut_off = "kill -KILL $PPID; exec sleep 5"  # no time to tidy up
    folder = replace_program(programs, tmp_path / "programs", "test_cuda_guided_step", cut_off)
    sections = ("--sections", "tasks,operators,goldens")
    assert gpu_check(folder, tmp_path / "out", *sections).returncode == -9
    (path,) = (tmp_path / "out").glob("*.json")
    before = json.loads(path.read_text())
    assert before["done"] == ["tasks"] and not before["finished"]
    assert [program["program"] for program in before["operators"]] == ["test_cuda_elementwise"], "after each program"
    done = gpu_check(programs, tmp_path / "out", *sections, "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "going on after tasks" in done.stdout
    after = json.loads(path.read_text())
    assert after["done"] == ["tasks", "operators", "goldens"] and after["finished"]
    assert after["tasks"] == before["tasks"], "not measured again"
    assert len(after["operators"]) == 2 and after["goldens"]
    again = gpu_check(programs, tmp_path / "other", "--sections", "operators", "--resume")
    assert again.returncode == 0 and "no unfinished report" in again.stdout


def test_what_answers_most_is_tried_first(programs: Path, tmp_path: Path) -> None:
    cut_off = "kill -TERM $PPID; exec sleep 60"
    folder = replace_program(programs, tmp_path / "programs", "test_cuda_elementwise", cut_off)
    done = gpu_check(folder, tmp_path / "out", "--sections", "goldens,operators,bench-all,tasks,bench")
    assert done.returncode == 143, done.stdout + done.stderr
    report, _ = read_report(tmp_path / "out")
    assert report["done"] == ["bench", "tasks", "bench-all"] and not report["goldens"]
    assert [bench["section"] for bench in report["bench"]] == ["bench", "bench-all"]


def test_a_notice_beside_the_numbers_does_not_hide_them(programs: Path, tmp_path: Path) -> None:
    script = f"echo 'a library {{of version 9}} is odd' >&2; exec {programs / 'lance-bench'} \"$@\""
    folder = replace_program(programs, tmp_path / "programs", "lance-bench", script)
    done = gpu_check(folder, tmp_path / "out", "--sections", "bench")
    assert done.returncode == 0, done.stdout + done.stderr
    (bench,) = read_report(tmp_path / "out")[0]["bench"]
    assert bench["cases"] and bench["said"] == "a library {of version 9} is odd"


def test_what_is_not_run_does_not_look_passed(programs: Path, tmp_path: Path) -> None:
    done = gpu_check(programs, tmp_path, "--sections", "sanitizer")
    assert done.returncode == 2 and "nothing of this could be tried" in done.stderr
    (path,) = tmp_path.glob("*.md")
    assert "- skipped: sanitizer: --quick" in path.read_text()


def test_without_a_card_it_says_so_and_writes_nothing(programs: Path, tmp_path: Path) -> None:
    done = gpu_check(programs, tmp_path / "out", LANCED_EMULATION_CARDS="0")
    assert done.returncode == 2
    assert "no CUDA card" in done.stderr
    assert not (tmp_path / "out").exists()
