"""What `submit` takes, without a daemon to ask: protocol/parameters.json, which comes from the daemon's own table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).resolve().parents[2] / "parameters.json"


@dataclass(frozen=True)
class Parameter:
    """One row. What does not apply to its kind is None."""

    name: str
    kind: str  # "text", "integer", "whole", "number", "flag", "choice", "list"
    tasks: tuple[str, ...]  # for which it means something
    help: str
    default: Any = None  # None: none, or as other parameters say
    defaults: Mapping[str, Any] = field(default_factory=dict)  # of tasks that have another one
    minimum: Any = None
    maximum: Any = None
    multiple_of: int = 1
    maximum_bytes: int | None = None
    choices: tuple[str, ...] = ()
    required: bool = False
    is_servers: bool = False  # the daemon's alone: changes nothing of the result

    def default_for(self, task: str) -> Any:
        return self.defaults.get(task, self.default)


@cache
def parameters() -> Mapping[str, Parameter]:
    """By name; those that are the daemon's alone too. OSError where this client was installed without the table."""
    tables: dict[str, list[dict[str, Any]]] = json.loads(TABLE.read_text(encoding="utf-8"))
    return {
        row["name"]: _parameter_of(row, is_servers=table == "server_parameters")
        for table, rows in tables.items()
        for row in rows
    }


def _parameter_of(row: dict[str, Any], is_servers: bool) -> Parameter:
    known = dict(row, is_servers=is_servers)
    if isinstance(known.get("maximum"), str):  # above 2^53
        known["maximum"] = int(known["maximum"])
    for name in ("tasks", "choices"):
        known[name] = tuple(known.get(name, ()))
    return Parameter(**known)
