"""The shape of the C sources: who may include whom, no circles, and how deep it goes.

A component is a header with the .c file of its name, or one of the two alone. It includes what its files include. Its
layer is one above the highest of those it includes.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("base", "protocol", "kernels", "daemon", "tools")
ENGINE = "daemon/engine/"
# From the ground up: a file includes nothing of a room that stands later in its list.
ORDER = (
    ("base/",),
    ("protocol/",),
    ("kernels/",),
    ("daemon/engine/model/checkpoint/",),
    ("daemon/engine/model/tokenizer/",),
    ("daemon/engine/model/",),
    ("daemon/engine/",),
    ("daemon/",),
    ("tools/",),
)
# What files outside the engine and the tests may include of it.
FACE = {
    "daemon/engine/lance.h",
    "daemon/engine/parameters.h",
    "daemon/engine/reading.h",
    "daemon/engine/tap.h",
    "daemon/engine/model/checkpoint/checkpoint.h",
}
# What tools may include of the server: the tables are printed as it answers them.
OF_THE_SERVER = {
    ("tools/print-parameters/main.c", "daemon/parameters_json.h"),
    ("tools/print-parameters/main.c", "daemon/request.h"),
}
# A client is linked with neither engine nor kernels, and includes nothing of them or the server.
CLIENTS = ("tools/lancectl/", "tools/media/")
# Quoted names that are no files of the repository: CUDA's own headers, and the emulation's among the tests.
OF_CUDA = {"cuda_bf16.h", "cuda_runtime.h", "emulated_mma.h", "races.h", "streams.h", "threads.h"}
MOST_LAYERS = 8


def sources() -> list[str]:
    return sorted(
        str(path.relative_to(ROOT))
        for room in ROOMS
        for ending in ("c", "h", "cu", "cuh")
        for path in (ROOT / room).rglob(f"*.{ending}")
        if "node_modules" not in path.parts
    )


def included(text: str) -> list[str]:
    """What a file includes, as it is written, quotes and brackets with it."""
    return re.findall(r"^[ \t]*#[ \t]*include[ \t]*(.*?)[ \t]*(?:/[/*].*)?$", text, re.MULTILINE)


def odd_includes(text: str) -> list[str]:
    """Those that are told in another way than by the path from the root, so that nobody sees what they reach."""

    def is_plain(written: str) -> bool:
        name = written[1:-1]
        is_ours = (ROOT / name).exists()
        if written.startswith("<"):
            return written.endswith(">") and not is_ours and ".." not in name
        return written == f'"{name}"' and (name in OF_CUDA or (is_ours and name == posixpath.normpath(name)))

    return [written for written in included(text) if not is_plain(written)]


def includes_in(text: str) -> tuple[str, ...]:
    """Files of the repository that a file includes."""
    names = [written[1:-1] for written in included(text)]
    return tuple(name for name in names if (ROOT / name).exists())


@cache
def includes_of(source: str) -> tuple[str, ...]:
    return includes_in(text_of(source))


@cache
def text_of(source: str) -> str:
    return (ROOT / source).read_text(encoding="utf-8")


def component(source: str) -> str:
    return source.rsplit(".", 1)[0]


@cache
def graph(folder: str, without: str = "?") -> dict[str, frozenset[str]]:
    """The components under a folder, and which of them each includes."""

    def belongs(source: str) -> bool:
        return source.startswith(folder) and not source.startswith(without)

    edges: dict[str, set[str]] = {}
    for source in filter(belongs, sources()):
        edges.setdefault(component(source), set()).update(map(component, filter(belongs, includes_of(source))))
    return {name: frozenset(included - {name}) for name, included in edges.items()}


def circles(edges: dict[str, frozenset[str]]) -> list[list[str]]:
    """What is left when nothing that includes nothing, or is included by nothing, is left."""
    left = dict(edges)
    while True:
        included = set().union(*left.values()) if left else set()
        stay = {name: targets & left.keys() for name, targets in left.items()}
        stay = {name: targets for name, targets in stay.items() if targets and name in included}
        if stay.keys() == left.keys():
            return [sorted(left)] if left else []
        left = stay


def longest_chain(edges: dict[str, frozenset[str]]) -> list[str]:
    @cache
    def below(name: str) -> list[str]:
        return [name, *max(map(below, edges[name]), key=len, default=[])]

    return max(map(below, edges), key=len)


def room_of(source: str) -> int:
    prefixes = [(prefix, place) for place, room in enumerate(ORDER) for prefix in room]
    return max((len(prefix), place) for prefix, place in prefixes if source.startswith(prefix))[1]


def is_climb(source: str, name: str) -> bool:
    return room_of(name) > room_of(source)


def is_past_the_face(source: str, name: str) -> bool:
    return name.startswith(ENGINE) and not source.startswith(ENGINE) and name not in FACE


def is_of_the_server(source: str, name: str) -> bool:
    """Whether a tool includes a file of the server."""
    return source.startswith("tools/") and name.startswith("daemon/") and not name.startswith(ENGINE)


def is_of_no_client(source: str, name: str) -> bool:
    return source.startswith(CLIENTS) and name.startswith(("daemon/", "kernels/"))


def found_by(rule: Callable[[str, str], bool]) -> set[tuple[str, str]]:
    """Every include that a rule speaks of."""
    return {(source, name) for source in sources() for name in includes_of(source) if rule(source, name)}


def test_a_circle_is_found_and_a_chain_is_measured() -> None:
    chain = {"a": frozenset("b"), "b": frozenset("c"), "c": frozenset[str]()}
    assert circles(chain) == []
    assert longest_chain(chain) == ["a", "b", "c"]
    assert circles(chain | {"c": frozenset("b"), "d": frozenset("a")}) == [["b", "c"]]


def test_no_two_files_include_each_other_in_a_circle() -> None:
    assert [circle for room in ROOMS for circle in circles(graph(f"{room}/"))] == []


def test_no_include_climbs() -> None:
    assert found_by(is_climb) == set()


def test_the_engine_is_included_by_its_face_alone() -> None:
    assert found_by(is_past_the_face) == set()
    assert {name for source in sources() if not source.startswith(ENGINE) for name in includes_of(source)
                    if name.startswith(ENGINE)} == FACE, "a face that nobody looks at is none"  # fmt: skip


def test_tools_include_nothing_of_the_server() -> None:
    assert found_by(is_of_the_server) == OF_THE_SERVER


def test_clients_include_nothing_of_the_daemon_and_its_kernels() -> None:
    assert found_by(is_of_no_client) == set()


def test_every_include_is_told_by_its_path_from_the_root() -> None:
    assert {source: odd for source in sources() if (odd := odd_includes(text_of(source)))} == {}


@pytest.mark.parametrize(
    "line",
    [
        '#include "../../daemon/engine/model/vae.h"',
        '#include "model/vae.h"',
        '#include "daemon/jobs/../engine/model/vae.h"',
        "#include <daemon/engine/model/vae.h>",
        "#include <../daemon/engine/model/vae.h>",
        '  #  include "vae.h" /* beside it */',
        "#include VAE_HEADER",
    ],
)
def test_an_include_by_another_way_is_seen(line: str) -> None:
    assert len(odd_includes(f"#include <stdio.h>\n{line}\nint x;\n")) == 1


@pytest.mark.parametrize("line", ['#include "{}"', ' # include "{}" // why', '#\tinclude\t"{}"', "#include <{}>"])
def test_an_include_against_the_order_is_seen_however_it_is_spaced(line: str) -> None:
    def seen(source: str, name: str, rule: Callable[[str, str], bool]) -> bool:
        return [rule(source, found) for found in includes_in(f"int x;\n{line.format(name)}\n")] == [True]

    assert seen("daemon/runner.c", "daemon/engine/model/vae.h", is_past_the_face)
    assert seen("daemon/runner.c", "daemon/engine/request.h", is_past_the_face)
    assert seen("base/json.c", "protocol/message.h", is_climb)
    assert seen("daemon/runner.c", "tools/lancectl/session.h", is_climb)
    assert seen("daemon/engine/model/vae.c", "daemon/engine/lance.h", is_climb)
    assert seen("tools/lancectl/main.c", "daemon/jobs/jobs.h", is_of_the_server)
    assert seen("tools/lancectl/main.c", "daemon/engine/lance.h", is_of_no_client)
    assert not seen("daemon/runner.c", "daemon/engine/lance.h", is_past_the_face)


def test_the_engines_face_shows_no_operator() -> None:
    @cache
    def reach(source: str) -> frozenset[str]:
        return frozenset({source}).union(*map(reach, includes_of(source)))

    assert "kernels/kernels.h" not in reach("daemon/engine/lance.h")


def test_the_engine_is_no_deeper_than_eight_layers() -> None:
    chain = longest_chain(graph(ENGINE))
    assert len(chain) <= MOST_LAYERS, " > ".join(chain)


def test_the_daemon_without_its_engine_is_no_deeper_than_eight_layers() -> None:
    chain = longest_chain(graph("daemon/", without=ENGINE))
    assert len(chain) <= MOST_LAYERS, " > ".join(chain)
