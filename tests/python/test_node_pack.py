"""What the node pack may import and do, read from its source: a ComfyUI that has it must stay as its owner made it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLIENT = ROOT / "protocol/python/lanced_client"
SOURCES = [ROOT / "__init__.py", *sorted((ROOT / "comfyui_nodes").glob("*.py")), *sorted(CLIENT.glob("*.py"))]
NEEDED = {"numpy", "pynng", "safetensors"}
COMFYUI = {"torch", "PIL", "av", "comfy", "comfy_api", "folder_paths", "nodes", "server"}  # what a ComfyUI has
# What installs, downloads or runs other programs.
FORBIDDEN = {"pip", "ensurepip", "venv", "urllib", "http", "ftplib", "requests", "aiohttp", "ctypes", "importlib"}


def imports(path: Path) -> Iterator[str]:
    """The top-level packages that a file imports from outside the pack, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_module_imports_only_what_comfyui_has_and_three_packages(path: Path) -> None:
    others = {name for name in imports(path) if name not in sys.stdlib_module_names}
    assert others <= NEEDED | (set() if path.parent == CLIENT else COMFYUI)
    assert not FORBIDDEN & set(imports(path))


def test_only_starting_the_local_daemon_runs_a_program_and_without_a_shell() -> None:
    assert [path.stem for path in SOURCES if "subprocess" in imports(path)] == ["starter"]
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                assert "shell" not in {keyword.arg for keyword in node.keywords}
                assert ast.unparse(node.func) not in {"os.system", "os.popen", "exec", "eval", "__import__"}


def test_every_node_tells_in_words_what_goes_wrong_in_it() -> None:
    functions = [node for path in SOURCES for node in ast.walk(ast.parse(path.read_text()))
                 if isinstance(node, ast.AsyncFunctionDef) and node.name == "execute"]  # fmt: skip
    assert len(functions) >= 13
    for function in functions:
        assert [ast.unparse(one) for one in function.decorator_list] == ["classmethod", "told_in_words"]


def test_the_client_imports_without_torch() -> None:
    # None in sys.modules makes an import fail, even where torch is installed.
    code = "import sys; sys.modules['torch'] = None; import lanced_client; lanced_client.Client()"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(CLIENT.parent)})


def test_the_english_texts_have_nothing_that_the_front_end_would_take_for_a_placeholder() -> None:
    text = (ROOT / "locales/en/nodeDefs.json").read_text()
    for value in strings(json.loads(text)):
        assert not set("{}|@") & set(value), value


def test_the_help_page_of_a_node_says_what_its_section_in_the_documents_says() -> None:
    document = (ROOT / "docs/nodes.md").read_text()
    for page in (ROOT / "comfyui_nodes/web/docs").glob("*/en.md"):
        section = document.partition(f"(`{page.parent.name}`)\n")[2].partition("\n## ")[0]
        said = [line for line in section.splitlines() if line and not line.startswith(("Workflow: ", "!["))]
        title, *lines = [line for line in page.read_text().splitlines() if line]
        assert title.startswith("# Lance ")
        assert lines == said, page


def strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from strings(entry)
