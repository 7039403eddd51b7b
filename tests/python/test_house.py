"""How long files, functions and lines of the sources are, and where a declaration's definition is found."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
C_ENDINGS = {".c", ".h", ".cu", ".cuh", ".cpp"}
ENDINGS = C_ENDINGS | {".py", ".js"}
WITH_LINES = ENDINGS | {".sh", "Makefile"}
MOST_FILE_LINES = 900
MOST_FUNCTION_LINES = 60
MOST_COLUMNS = 120
# Rooms whose headers are only declared what the .c file of their name defines.
DECLARED_AND_DEFINED = ("base", "protocol", "kernels", "daemon", "tools")
# Private headers of several files: the handlers of requests, the VAE's two halves. A header for each would be one more
# layer below the highest.
OF_SEVERAL = {"daemon/engine/reading.h", "daemon/service/handling.h", "daemon/engine/model/vae_blocks.h"}


def tracked(endings: set[str]) -> list[str]:
    """Files of the repository by their endings, or their names when they have none."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = [Path(name) for name in names.split("\0") if (ROOT / name).is_file()]
    return sorted(path.as_posix() for path in paths if (path.suffix or path.name) in endings)


def sources() -> list[str]:
    return tracked(ENDINGS)


def text_of(source: str) -> str:
    return (ROOT / source).read_text(encoding="utf-8")


def without_comments(text: str) -> str:
    """Line for line the same, but for comments and what stands in quotes."""
    return re.sub(
        r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'",
        lambda found: re.sub(r"[^\n]", " ", found[0]),
        text,
        flags=re.S,
    )


def functions_of_c(text: str) -> Iterator[tuple[str, int]]:
    """Name and lines of each function that begins, and whose body ends, at the start of a line."""
    text = re.sub(r"__(attribute|launch_bounds)__ ?\(+[^)\n]*\)+", "", without_comments(text))
    head, start, has_body = "", 0, False
    for number, line in enumerate(text.split("\n")):
        if not has_body and re.match(r"[a-zA-Z_]", line):
            head, start = "", number
        if not has_body:
            head += line
            has_body = line.rstrip().endswith("{") and "(" in head
            if line.rstrip().endswith((";", "}")):
                head, has_body = "", False
        elif line.startswith("}"):
            name = re.search(r"(\w+)\s*\(", head)
            yield (name[1] if name else "?"), number - start + 1
            head, has_body = "", False


def functions_of_python(text: str) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            yield node.name, node.end_lineno - node.lineno + 1


def long_functions() -> dict[str, int]:
    found = {}
    for source in sources():
        ending = Path(source).suffix
        functions = functions_of_c if ending in C_ENDINGS else functions_of_python if ending == ".py" else None
        for name, lines in functions(text_of(source)) if functions else ():
            if lines > MOST_FUNCTION_LINES:
                found[f"{source}: {name}"] = lines
    return found


def wide_lines(text: str) -> list[int]:
    return [number for number, line in enumerate(text.split("\n"), 1) if len(line) > MOST_COLUMNS]


def declared_elsewhere(header: str) -> list[str]:
    """Functions of a header that the .c file of its name does not define."""
    definitions = [ROOT / Path(header).with_suffix(ending) for ending in (".c", ".cu")]
    texts = [without_comments(path.read_text()) for path in definitions if path.exists()]
    text = re.sub(r"^#.*$", "", without_comments(text_of(header)), flags=re.M)
    names = [
        found[1]
        for found in re.finditer(r"^[a-z_][\w \*]*?\b(\w+)\([^;{}]*?\)[^;{}()]*;", text, re.M)
        if not found[0].startswith(("typedef", "static"))
    ]
    return [name for name in names if texts and not any(defines(text, name) for text in texts)]


def defines(text: str, name: str) -> bool:
    return re.search(rf"^\w[^;{{}}()]*\b{name}\([^;{{}}]*\)\s*\{{", text, re.M) is not None


def unchecked_json(text: str) -> list[str]:
    return re.findall(r"\bcJSON_(?:Add|Create|Insert|Parse|Print)\w*(?=\()", without_comments(text))


def test_no_file_is_too_long() -> None:
    long = {source for source in sources() if text_of(source).count("\n") >= MOST_FILE_LINES}
    assert long == set()


def test_no_function_is_too_long() -> None:
    assert long_functions() == {}


def test_lines_keep_within_120_columns() -> None:
    assert {source: lines for source in tracked(WITH_LINES) if (lines := wide_lines(text_of(source)))} == {}


def test_a_pointer_is_asked_for_by_its_name_alone() -> None:
    assert [source for source in sources() if re.search(r"[^=!]== NULL\b", without_comments(text_of(source)))] == []


def test_what_a_header_declares_the_file_of_its_name_defines() -> None:
    headers = [name for name in sources() if name.endswith((".h", ".cuh")) and name.startswith(DECLARED_AND_DEFINED)]
    found = {header: names for header in headers if (names := declared_elsewhere(header))}
    assert found.keys() == OF_SEVERAL, found


def test_json_is_made_and_read_through_the_checked_functions_alone() -> None:
    """What cJSON makes may be missing for want of memory, and its reader bounds nothing: base/json.h does both."""
    found = {
        source: calls
        for source in sources()
        if Path(source).suffix in C_ENDINGS and not source.startswith(("base/json.c", "tests/unit/"))
        if (calls := unchecked_json(text_of(source)))
    }
    assert found == {}


def test_the_measures_see_what_they_are_for() -> None:
    body = "    x++; /* } */\n" * 60
    assert list(functions_of_c(f'static int f(int x)\n{{\n{body}    return "(";\n}}\n')) == [("f", 64)]
    assert wide_lines("a" * 120 + "\n" + "b" * 121 + "\nc") == [2]
    assert list(functions_of_python("def f():\n" + "    x = 1\n" * 61)) == [("f", 62)]
    assert unchecked_json('x = cJSON_CreateNumber(1); /* cJSON_Print(x) */ f("cJSON_Parse(")') == ["cJSON_CreateNumber"]
    assert defines("int f(int x)\n{\n", "f") and not defines("int f(int x);\nint g(void)\n{\n", "f")
