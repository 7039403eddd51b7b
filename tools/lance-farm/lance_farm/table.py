"""A table of prompts: CSV as spreadsheets write it (UTF-8, with or without BOM, any line ends, quotes; semicolons where
the comma is a decimal's, and tabs)."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from .errors import FarmError

csv.field_size_limit(1 << 20)
_DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True)
class Row:
    line: int  # of the file, where it ends
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    columns: list[str]
    rows: list[Row]


def read_table(path: Path) -> Table:
    """FarmError that names the line: a row of another length, an empty cell, two columns of one name, no UTF-8."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise FarmError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise FarmError(f"{path} is not UTF-8 at byte {error.start}; save it as CSV UTF-8") from None
    if "\0" in text:
        raise FarmError(f"{path} has NUL characters; save it as CSV UTF-8 (not UTF-16)")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=_delimiter(text))
    columns: list[str] = []
    rows: list[Row] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue  # an empty line, as the last one often is
            if not columns:
                columns = _head(path, cells)
            else:
                rows.append(_row(path, reader.line_num, columns, cells))
    except csv.Error as error:
        raise FarmError(f"{path}, line {reader.line_num}: {error}") from None
    if not rows:
        raise FarmError(f"{path} has no rows below its head")
    return Table(columns, rows)


def _delimiter(text: str) -> str:
    """What is between the cells: of three marks the one that the head has most of, as a sheet has one in every line."""
    head = (text.strip().splitlines() or [""])[0]
    return max(_DELIMITERS, key=head.count)


def _head(path: Path, cells: list[str]) -> list[str]:
    columns = [cell.strip() for cell in cells]
    if "" in columns:
        raise FarmError(f"{path}: column {columns.index('') + 1} has no name in the first line")
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise FarmError(f'{path}: two columns are called "{twice[0]}"')
    return columns


def _row(path: Path, line: int, columns: list[str], cells: list[str]) -> Row:
    if len(cells) != len(columns):
        raise FarmError(f"{path}, line {line}: {len(cells)} cells, the head has {len(columns)} ({', '.join(columns)})")
    for name, cell in zip(columns, cells, strict=True):
        if not cell.strip():
            raise FarmError(f'{path}, line {line}: the cell of column "{name}" is empty')
    return Row(line, dict(zip(columns, cells, strict=True)))
