"""Names that are odd: of outputs, as long as the disk takes them and longer, and of model folders."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lanced_process import DEMO_MODEL, LANCED, REQUEST, Lanced

SMALL = ["--size", "64x64", "--steps", "1", "--quiet"]


def name_of(length: int, ending: str) -> str:
    return "\u00e9" * ((length - len(ending)) // 2) + "e" * ((length - len(ending)) % 2) + ending


@pytest.fixture
def no_job(lanced: Lanced) -> Iterator[None]:
    """The test is to be refused before a job is sent."""
    with lanced.client() as client:
        before = client.stats()["jobs"]
        yield
        assert client.stats()["jobs"] == before


@pytest.mark.parametrize("length", [247, 248, 250, 251, 252, 253, 254, 255])
@pytest.mark.parametrize(("task", "ending"), [("t2i", ".png"), ("t2v", ".mp4"), ("t2v", "/"), ("t2i", ".latent")])
def test_an_output_may_have_the_longest_name_that_the_disk_takes(
    length: int, task: str, ending: str, lanced: Lanced, tmp_path: Path
) -> None:
    path = tmp_path / name_of(length, ending.rstrip("/"))
    frames = ["--frames", "5"] if task == "t2v" else []
    done = lanced.lancectl(task, "a", "-o", f"{path}{'/' if ending == '/' else ''}", *frames, *SMALL)
    assert done.returncode == 0, done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize(("task", "name"), [("t2i", "a.png"), ("t2v", "a.mp4"), ("t2v", "a"), ("t2i", "a.latent")])
def test_an_output_that_is_a_link_is_written_where_the_link_leads(
    task: str, name: str, is_there: bool, lanced: Lanced, tmp_path: Path
) -> None:
    target = tmp_path / "elsewhere" / name
    target.parent.mkdir()
    is_folder = "." not in name
    if is_there and is_folder:
        target.mkdir()
    elif is_there:
        target.write_bytes(b"old")
    (tmp_path / f"second-{name}").symlink_to(Path("elsewhere") / name)
    link = tmp_path / f"first-{name}"
    link.symlink_to(tmp_path / f"second-{name}")
    frames = ["--frames", "5"] if task == "t2v" else []
    done = lanced.lancectl(task, "a", "-o", f"{link}{'/' if is_folder else ''}", *frames, *SMALL)
    assert done.returncode == 0, done.stderr
    assert link.is_symlink()
    assert (tmp_path / f"second-{name}").is_symlink()
    assert list(target.parent.iterdir()) == [target]
    assert (target / "00001.png").stat().st_size if is_folder else target.stat().st_size > 100


@pytest.mark.usefixtures("no_job")
@pytest.mark.parametrize(
    ("leads_to", "words"),
    [
        ("missing/a.png", "missing: No such file or directory"),
        ("a.png", "Too many levels of symbolic links"),
        ("/dev/null", "neither a file nor a new name"),
    ],
)
def test_a_link_that_leads_nowhere_is_refused_before_the_job_is_sent(
    leads_to: str, words: str, lanced: Lanced, tmp_path: Path
) -> None:
    (tmp_path / "a.png").symlink_to(leads_to)
    done = lanced.lancectl("t2i", "a", "-o", str(tmp_path / "a.png"), *SMALL)
    assert done.returncode == 5
    assert words in done.stderr
    assert (tmp_path / "a.png").is_symlink()


@pytest.mark.usefixtures("no_job")
@pytest.mark.parametrize(("length", "ending"), [(256, ".png"), (4000, ".png"), (256, "/"), (256, ".mp4")])
def test_a_longer_name_is_refused_before_the_job_is_sent(
    length: int, ending: str, lanced: Lanced, tmp_path: Path
) -> None:
    name = name_of(length, ending.rstrip("/"))
    task = "t2i" if ending == ".png" else "t2v"
    done = lanced.lancectl(task, "a", "-o", f"{tmp_path / name}{'/' if ending == '/' else ''}", *SMALL)
    assert done.returncode == 5
    assert f"a name of {length} bytes: names have at most 255 there" in done.stderr


@pytest.mark.usefixtures("no_job")
def test_a_name_that_becomes_too_long_by_its_number_is_refused_before_the_job_is_sent(
    lanced: Lanced, tmp_path: Path
) -> None:
    done = lanced.lancectl("t2i", "a", "-o", str(tmp_path / name_of(254, ".png")), "--count", "2", *SMALL)
    assert done.returncode == 5
    assert "a name of 256 bytes" in done.stderr


@pytest.mark.usefixtures("no_job")
def test_a_preview_with_a_longer_name_is_refused_before_the_job_is_sent(lanced: Lanced, tmp_path: Path) -> None:
    arguments = ["-o", str(tmp_path / "x.png"), "--preview", str(tmp_path / name_of(256, ".png"))]
    done = lanced.lancectl("t2i", "a", *arguments, *SMALL)
    assert done.returncode == 5
    assert "a name of 256 bytes" in done.stderr


@pytest.mark.usefixtures("no_job")
def test_an_example_with_a_longer_name_is_refused_before_its_job_is_sent(lanced: Lanced, tmp_path: Path) -> None:
    (tmp_path / "examples.json").write_text(json.dumps({name_of(260, ".png"): "a"}))
    arguments = ["--examples", str(tmp_path / "examples.json"), "--task", "t2i", "-o", str(tmp_path / "out")]
    done = lanced.lancectl("run", *arguments, *SMALL)
    assert done.returncode != 0
    assert "a name of 260 bytes" in done.stderr


def link(folder: bytes) -> None:
    Path(os.fsdecode(folder)).symlink_to(DEMO_MODEL)


def test_folders_with_odd_names_do_not_keep_lanced_from_offering_the_others(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path)
    names = [b"x" * 65, b"not \xff text", b"v=2", b"a=b=c", b"plain"]
    for name in names:
        link(root + b"/" + name)
    daemon = Lanced("--lazy", models=())
    for name in names:
        daemon.command += ["--model", os.fsdecode(name + b"=" + root + b"/" + name)]
    with daemon, daemon.client() as client:
        assert [model.name for model in client.models()] == ["v=2", "a=b=c", "plain"]
        assert client.generate("t2i", model="v=2", **REQUEST).pixels is not None
        said = daemon.log.read_text()
    assert said.count("it is not offered") == 2


def test_a_folder_with_an_equals_sign_is_a_model_by_itself_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link(os.fsencode(tmp_path) + b"/v=2")
    daemon = Lanced("--lazy", models=())
    daemon.command += ["--model", "v=2"]
    monkeypatch.chdir(tmp_path)
    with daemon, daemon.client() as client:
        assert len(client.models()) == 1


def test_a_model_with_an_odd_name_and_no_other_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 65)
    link(os.fsencode(folder))
    command = [str(LANCED), "--model", f"{folder.name}={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "the name must have 1 to 64 bytes; give one: NAME=DIR" in done.stderr
