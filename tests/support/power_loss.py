"""What a disk may hold after the power went, made of what a program did to its files (tests/faults/recorded_writes.c).

A write that was not fsynced may be there, or not, whatever became of others; the last one may be torn. What was made,
renamed or unlinked in a folder that was not fsynced since may be undone, the last first.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from pathlib import Path

HEADER = struct.Struct("<7Q")
ACKS = "acks"  # the file of what was acknowledged, which no power loss takes away


@dataclass
class Entry:
    what: str
    file: int
    folder: int
    offset: int
    name: str
    other: str
    data: bytes


@dataclass
class File:
    is_folder: bool = False
    data: bytearray = field(default_factory=bytearray)  # what was fsynced
    pending: list[Entry] = field(default_factory=list)
    names: dict[str, File] = field(default_factory=dict)  # of a folder: what was fsynced
    pending_names: list[tuple[str, str, str, File | None]] = field(default_factory=list)


def read_log(path: Path) -> list[Entry]:
    log, entries, at = path.read_bytes(), [], 0
    while at + HEADER.size <= len(log):
        what, file, folder, offset, length, name_bytes, other_bytes = HEADER.unpack_from(log, at)
        at += HEADER.size
        parts = []
        for part in (name_bytes, other_bytes, length if what == ord("W") else 0):
            parts.append(log[at : at + part])
            at += part
        entries.append(Entry(chr(what), file, folder, offset, parts[0].decode(), parts[1].decode(), parts[2]))
    return entries


def write_into(data: bytearray, entry: Entry, kept: int | None = None) -> None:
    """Do what a write or a truncation does, or the first `kept` bytes of it."""
    if entry.what == "T":
        del data[entry.offset :]
        data.extend(bytes(entry.offset - len(data)))
        return
    piece = entry.data[:kept]
    data.extend(bytes(max(0, entry.offset - len(data))))
    data[entry.offset : entry.offset + len(piece)] = piece


def rename_in(names: dict[str, File], change: tuple[str, str, str, File | None]) -> None:
    what, name, other, file = change
    if what == "C" and file is not None:
        names[name] = file
    elif name in names:
        moved = names.pop(name)
        if what == "R":
            names[other] = moved


class Disk:
    """Follows a log up to some entry; `root` is the inode of the folder that was recorded."""

    def __init__(self) -> None:
        self.files: dict[int, File] = {}
        self.root: int | None = None
        self.acks: list[str] = []
        self._acks_inode: int | None = None

    def follow(self, entry: Entry) -> None:
        if entry.what == "C":
            if self.root is None:
                self.root = entry.folder
            made = File(is_folder=entry.offset == 1)
            if entry.name == ACKS:
                self._acks_inode = entry.file
            self.files[entry.file] = made
            self._folder(entry.folder).pending_names.append(("C", entry.name, "", made))
        elif entry.what in "RU":
            self._folder(entry.folder).pending_names.append((entry.what, entry.name, entry.other, None))
        elif entry.file == self._acks_inode:
            self.acks += entry.data.decode().splitlines()
        elif entry.what == "S":
            self._sync(self.files.setdefault(entry.file, File(is_folder=True)))
        else:
            self.files[entry.file].pending.append(entry)

    def _folder(self, inode: int) -> File:
        return self.files.setdefault(inode, File(is_folder=True))

    @staticmethod
    def _sync(file: File) -> None:
        for entry in file.pending:
            write_into(file.data, entry)
        for change in file.pending_names:
            rename_in(file.names, change)
        file.pending, file.pending_names = [], []

    def write_image(self, target: Path, chance: random.Random) -> None:
        """What may be left of it, as a folder."""
        assert self.root is not None
        self._write_folder(self.files[self.root], target, chance)

    def _write_folder(self, folder: File, target: Path, chance: random.Random) -> None:
        target.mkdir(mode=0o700)
        names = dict(folder.names)
        for change in folder.pending_names[: chance.randint(0, len(folder.pending_names))]:
            rename_in(names, change)
        for name, file in names.items():
            if file.is_folder:
                self._write_folder(file, target / name, chance)
            elif name != ACKS:
                (target / name).write_bytes(self._what_is_left(file, chance))

    @staticmethod
    def _what_is_left(file: File, chance: random.Random) -> bytes:
        data = bytearray(file.data)
        likelihood = chance.choice((0.0, 0.5, 1.0))
        kept = [entry for entry in file.pending if chance.random() < likelihood]
        for entry in kept[:-1]:
            write_into(data, entry)
        for entry in kept[-1:]:
            write_into(data, entry, chance.randint(0, len(entry.data)))
        return bytes(data)
