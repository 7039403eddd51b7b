"""The tour in the README names every source file there is, and none that is not."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE_ENDINGS = {".c", ".cu", ".cuh", ".h", ".py", ".sh"}
# What the tour goes through file by file. Other folders it names as a whole.
FILE_BY_FILE = (
    "base",
    "daemon",
    "daemon/engine",
    "daemon/engine/stages",
    "daemon/engine/model",
    "daemon/engine/model/checkpoint",
    "daemon/engine/model/tokenizer",
    "daemon/jobs",
    "daemon/journal",
    "daemon/service",
    "kernels",
    "kernels/formats",
    "kernels/cpu",
    "kernels/cuda",
    "protocol",
    "protocol/python/lanced_client",
    "tools",
    "tools/lancectl",
    "tools/lancectl/graph",
    "tools/random-checkpoint",
    "tools/lance-bench",
    "tools/lance-quant",
    "tools/media",
    "tools/lance-farm/lance_farm",
    "demo",
)


def everything() -> list[Path]:
    """Files and folders of the repository, without what was built."""
    tops = [top for top in ROOT.iterdir() if top.is_dir() and not top.name.startswith((".", "build"))]
    return [path for top in tops for path in (top, *top.rglob("*")) if "__pycache__" not in path.parts]


def tour() -> str:
    text = (ROOT / "README.md").read_text()
    return text[text.index("## A tour of the source") : text.index("## Licence")]


def named_in_tour() -> set[str]:
    return set(re.findall(r"`([\w./*-]+)`", tour()))


def test_the_tour_names_every_source_file() -> None:
    named = {Path(name).name for name in named_in_tour()}
    missing = []
    for folder in FILE_BY_FILE:
        for path in sorted((ROOT / folder).iterdir()):
            goes_with_its_c_file = path.suffix == ".h" and path.with_suffix(".c").exists()
            if path.suffix in SOURCE_ENDINGS and not goes_with_its_c_file and path.name not in named:
                missing.append(f"{folder}/{path.name}")
    assert not missing, "new files belong into the tour of README.md"


def test_the_tour_names_every_folder_of_sources_or_one_around_it() -> None:
    text = tour()
    folders = {path.parent.relative_to(ROOT) for path in everything() if path.suffix in SOURCE_ENDINGS}
    unnamed = [
        str(folder)
        for folder in sorted(folders)
        if not any(f"{around.name}/`" in text for around in (folder, *folder.parents[:-2]))
    ]
    assert unnamed == []


def test_the_tour_names_nothing_that_is_not_there() -> None:
    files = {name for name in named_in_tour() if re.search(r"\w[.*]*\.(c|cu|h|py|sh|md)$|/$", name)}
    assert len(files) > 50
    there = everything()
    assert [name for name in sorted(files) if not any(path.match(name) for path in there)] == []


def test_links_of_the_documents_lead_somewhere() -> None:
    documents = [ROOT / "README.md", ROOT / "protocol/PROTOCOL.md", *(ROOT / "docs").glob("*.md")]
    broken = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in documents
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text())
        if "://" not in target and not (document.parent / target).exists()
    ]
    assert broken == []


def test_the_index_of_documents_names_every_document() -> None:
    index = (ROOT / "docs/README.md").read_text()
    assert [path.name for path in (ROOT / "docs").glob("*.md") if path.name not in index] == []


def test_the_tests_that_are_said_to_hold_a_fault_are_there() -> None:
    text = (ROOT / "docs/robustness.md").read_text()
    sources = [path for path in (ROOT / "tests").rglob("test_*") if path.suffix in (".c", ".py")]
    files = {path.name for path in sources}
    code = "\n".join(path.read_text() for path in sources)
    named = set(re.findall(r"\btest_\w+\.(?:c|py)\b", text))
    assert len(named) > 30 and named - files == set()
    tests = {name for name in re.findall(r"`(\w+)`", text) if name.count("_") >= 5}
    assert len(tests) > 50
    assert sorted(name for name in tests if name not in code) == []
