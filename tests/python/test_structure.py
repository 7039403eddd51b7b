"""The shape of the C sources: who may include whom, no circles, and how deep it goes.

A component is a header with the .c file of its name, or one of the two alone. It includes what its files include. Its
layer is one above the highest of those it includes.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

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
    ("daemon/", "tools/"),
)
# What files outside the engine and the tests may include of it.
FACE = {"lance.h", "checkpoint.h", "tap.h", "parameters.h", "pth.h", "statistics.h", "gather.h", "parallel.h"}
MOST_LAYERS = 8

# What does not hold yet. These lists only get shorter.
PAST_THE_FACE: set[tuple[str, str]] = set()
CIRCLES_IN: set[str] = set()


def sources() -> list[str]:
    return sorted(
        str(path.relative_to(ROOT))
        for room in ROOMS
        for ending in ("c", "h", "cu", "cuh")
        for path in (ROOT / room).rglob(f"*.{ending}")
        if "node_modules" not in path.parts
    )


@cache
def includes_of(source: str) -> tuple[str, ...]:
    """Files of the repository that a file includes."""
    names = re.findall(r'^#include "([^"]+)"', (ROOT / source).read_text(), re.MULTILINE)
    return tuple(name for name in names if (ROOT / name).exists())


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


def test_a_circle_is_found_and_a_chain_is_measured() -> None:
    chain = {"a": frozenset("b"), "b": frozenset("c"), "c": frozenset[str]()}
    assert circles(chain) == []
    assert longest_chain(chain) == ["a", "b", "c"]
    assert circles(chain | {"c": frozenset("b"), "d": frozenset("a")}) == [["b", "c"]]


def test_no_two_files_include_each_other_in_a_circle() -> None:
    found = [circle for room in ROOMS for circle in circles(graph(f"{room}/"))]
    assert [circle for circle in found if not CIRCLES_IN & set(circle)] == []
    assert len(found) == len(CIRCLES_IN), "one circle is gone: take it out of CIRCLES_IN"


def test_no_include_climbs() -> None:
    climbing = [
        f"{source} includes {name}"
        for source in sources()
        for name in includes_of(source)
        if room_of(name) > room_of(source)
    ]
    assert climbing == []


def test_the_engine_is_included_by_its_face_alone() -> None:
    past = {
        (source, name)
        for source in sources()
        if not source.startswith(ENGINE)
        for name in includes_of(source)
        if name.startswith(ENGINE) and name.rsplit("/", 1)[1] not in FACE
    }
    assert past == PAST_THE_FACE


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
