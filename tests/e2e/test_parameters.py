"""The engine's table of parameters, and what clients and documents have of it: the daemon's answer to `parameters`,
protocol/parameters.json, lancectl's table, PROTOCOL.md. `make parameters` writes them."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import numpy as np
import pytest

from lanced_client import BadRequest
from lanced_process import REQUEST, ROOT, Lanced

KNOWN: dict[str, list[dict[str, Any]]] = json.loads((ROOT / "protocol/parameters.json").read_text())


def printed(form: str) -> str:
    command = [str(ROOT / "build/print-parameters"), form]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_daemon_answers_what_clients_know(lanced: Lanced) -> None:
    with lanced.client() as client:
        answer, _ = client.call("parameters")
    assert {table: answer[table] for table in KNOWN} == KNOWN


@pytest.mark.parametrize(("form", "file"), [("json", "parameters.json"), ("c", "known_parameters.c")])
def test_the_files_for_clients_are_the_engines_table(form: str, file: str) -> None:
    assert (ROOT / "protocol" / file).read_text() == printed(form), "make parameters writes it anew"


def test_the_tables_of_the_document_are_the_engines() -> None:
    document = (ROOT / "protocol/PROTOCOL.md").read_text()
    tables = document.split("<!-- parameters: begin (written by `make parameters`) -->\n")[1]
    assert tables.split("<!-- parameters: end -->")[0] == printed("markdown"), "make parameters writes them anew"


SOURCE = np.zeros((1, 64, 64, 3), np.uint8)


def outside_of(row: dict[str, Any]) -> list[Any]:
    """The values next to both ends of a range."""
    step = 1 if row["kind"] == "integer" else 0.001
    values = [row["minimum"] - step, row["maximum"] + row.get("multiple_of", step)]
    return [[value, value] for value in values] if row["kind"] == "list" else values


NUMBERS = [row for row in KNOWN["parameters"] if row["kind"] in ("integer", "number", "list")]


@pytest.mark.parametrize("row", NUMBERS, ids=lambda row: row["name"])
def test_a_number_just_outside_its_range_is_refused_by_name(lanced: Lanced, row: dict[str, Any]) -> None:
    with lanced.client() as client:
        client.load()
        for task in row["tasks"]:
            source = {} if task in ("t2i", "t2v") else {"source": SOURCE, "fps": 12}
            for value in outside_of(row):
                params = REQUEST | source | {row["name"]: value}
                with pytest.raises(BadRequest, match=row["name"]):
                    client.submit(task, **params)
