"""Results: a folder per task that appears by one rename, with what was made and a receipt that has every file's hash.

A result is valid when its receipt names the task's id and the files have their hashes. So a task whose result is there
need not be done, and of two workers that did the same one's result is kept.
"""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .files import hash_of, names_in, read_json, write_json
from .job import task_name

RECEIPT = "receipt.json"
_NUMBER = re.compile(r"\d{6}")


class Results:
    def __init__(self, folder: Path) -> None:
        self._results, self._work = folder / "results", folder / "work"

    def folder_of(self, number: int) -> Path:
        return self._results / task_name(number)

    def numbers(self) -> list[int]:
        return [int(name) for name in names_in(self._results, _NUMBER)]

    def receipt(self, number: int) -> dict[str, Any]:
        return read_json(self.folder_of(number) / RECEIPT)

    def receipts(self) -> Iterator[dict[str, Any]]:
        """Of all tasks that have a result. Costs a read for each."""
        for number in self.numbers():
            yield self.receipt(number) | {"task": number}

    def begin(self, name: str) -> Path:
        """A folder to make files in. OSError."""
        folder = self._work / name
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier worker of that name
        folder.mkdir()
        return folder

    def drop(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    def publish(self, folder: Path, number: int, receipt: dict[str, Any]) -> bool:
        """Make what is in the folder the task's result; whether it is. False: there was one already. OSError."""
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        receipt["files"] = [
            {"name": str(path.relative_to(folder)), "bytes": path.stat().st_size, "sha256": hash_of(path)}
            for path in files
        ]
        write_json(folder / RECEIPT, receipt)
        try:
            folder.rename(self.folder_of(number))
        except OSError:
            if not self.folder_of(number).exists():
                raise
            self.drop(folder)
            return False
        return True

    def problem(self, number: int, digest: str) -> str:
        """What is wrong with a result; empty when it is valid. Costs reading all its bytes."""
        receipt = self.receipt(number)
        if not receipt:
            return "it has no receipt"
        if receipt.get("digest") != digest:
            return "it is of another model, backend or build"
        if not _is_whole(receipt):
            return "its receipt was changed"
        for file in receipt["files"]:
            path = self.folder_of(number) / file["name"]
            if not path.is_file():
                return f"{file['name']} is missing"
            if hash_of(path) != file["sha256"]:
                return f"{file['name']} has other bytes than when it was made"
        return ""

    def is_there(self, number: int) -> bool:
        return self.folder_of(number).exists()

    def set_aside(self, number: int) -> None:
        """Take a result away that is not valid; it stays in work/."""
        self.folder_of(number).rename(self._work / f"damaged-{task_name(number)}-{uuid.uuid4().hex[:6]}")


def _is_whole(receipt: dict[str, Any]) -> bool:
    """Whether all is in a receipt that others read of it, as `publish` wrote it."""
    kinds = {"files": list, "receipts": list, "outputs": dict, "worker": str, "attempt": int, "seconds": int | float}
    if not all(isinstance(receipt.get(name), kind) for name, kind in kinds.items()):
        return False
    listed = [*receipt["files"], *receipt["receipts"], *receipt["outputs"].values()]
    if not all(isinstance(one, dict) for one in listed):
        return False
    named = all(isinstance(file.get(name), str) for file in receipt["files"] for name in ("name", "sha256"))
    return named and all(isinstance(job.get("params"), dict) for job in receipt["receipts"])


def files_named_by(outputs: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What lancectl told of a graph's nodes, with names of files as they are below the folder."""
    told = json.loads(json.dumps(outputs))
    for node in told.values():
        node["files"] = [str(Path(name).relative_to(folder)) for name in node.get("files", [])]
    return dict(told)
