"""The file that ``ssl-zoo pack`` writes, while it is written: whatever stops it, a second start goes on from there.

Samples go into ``FILE.part``; what they are goes, by blocks, into ``FILE.journal``: lines of a crc32 and JSON, first
the plan (what is packed how), then what each block added. A block counts when its line is whole and its samples have
their checksums, so that the order in which a disk keeps things does not matter. At the end the index is appended,
everything is flushed, and the part gets its name. The layout is told in :mod:`ssl_zoo.data.image.packed`.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssl_zoo.data.image.packed import COLUMNS, DATA, HEAD, MAGIC, VERSION, VERSION_DEEP
from ssl_zoo.errors import ConfigError
from ssl_zoo.machine import flush_folder


class Row(NamedTuple):
    """An encoded sample."""

    position: int  # in the training samples followed by the validation samples
    content: bytes
    height: int
    width: int
    crc: int


class Writer:
    """``FILE.part`` and its journal: begun, or continued where they are sound.

    Args:
        out: The file that it will be.
        plan: What is packed and how, in plain containers; a part that was begun with another one is refused.
    """

    def __init__(self, out: Path, plan: dict[str, Any]) -> None:
        self.out = out
        self.part = out.with_name(out.name + ".part")
        self.plan = plan
        self.next = 0  # first position that is not done
        self.end = DATA
        self.damaged: list[tuple[int, str, str]] = []
        self.positions, self.ends = array("Q"), array("Q")
        self.crcs, self.heights, self.widths = array("I"), array("I"), array("I")
        begun = self.part.exists()
        self._data = open(self.part, "a+b", buffering=0)  # unbuffered: an error comes from the write that failed
        self._journal = open(journal_of(out), "a+b", buffering=0)
        try:
            _lock(self._journal, self.part)
            if not begun:
                self._journal.truncate(0)  # of a part that somebody has removed
            self._resume()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release both files; what is in them stays."""
        self._data.close()
        self._journal.close()

    def _resume(self) -> None:
        whole = 0
        for line, block in _lines(self._journal):
            if whole == 0:
                self._check_plan(block)
            elif not self._take(block):
                break
            whole += len(line)
        self._journal.truncate(whole)
        if whole == 0:
            _write(self._journal, _line(self.plan))
        self._data.truncate(self.end)  # fills the page of the head with zeros when new

    def _check_plan(self, begun: dict[str, Any]) -> None:
        other = [key for key in self.plan if begun.get(key) != self.plan[key]]
        if other:
            differ = ", ".join(f"{key}={begun.get(key)} (now {self.plan[key]})" for key in other)
            raise ConfigError(
                f"out={self.out}: {self.part.name} was begun with {differ}; repeat that command to finish it, "
                f"or remove {self.part} to begin again"
            )

    def _take(self, block: dict[str, Any]) -> bool:
        """Count a block of the journal if its samples are really in the part."""
        sizes, crcs = block["sizes"], block["crcs"]
        self._data.seek(self.end)
        for size, crc in zip(sizes, crcs, strict=True):
            if zlib.crc32(self._data.read(size)) != crc:
                return False
        self._count(block)
        return True

    def _count(self, block: dict[str, Any]) -> None:
        self.next = block["stop"]
        self.damaged += [tuple(entry) for entry in block["damaged"]]
        self.positions.extend(block["positions"])
        self.ends.extend(itertools.accumulate(block["sizes"], initial=self.end))
        del self.ends[-len(block["sizes"]) - 1]  # where the first one begins
        self.crcs.extend(block["crcs"])
        self.heights.extend(block["heights"])
        self.widths.extend(block["widths"])
        self.end += sum(block["sizes"])

    def add(self, rows: list[Row], damaged: list[tuple[int, str, str]], stop: int) -> None:
        """Append a block; all of it counts, or nothing."""
        _write(self._data, b"".join(row.content for row in rows))
        block = {
            "stop": stop,
            "damaged": damaged,
            "positions": [row.position for row in rows],
            "sizes": [len(row.content) for row in rows],
            "crcs": [row.crc for row in rows],
            "heights": [row.height for row in rows],
            "widths": [row.width for row in rows],
        }
        _write(self._journal, _line(block))
        self._count(block)

    def finish(self, labels: np.ndarray, names: list[bytes], text: dict[str, Any]) -> None:
        """Append the index, write the head, and give the file its name."""
        name_ends = np.cumsum([len(name) for name in names])
        values = (self.ends, name_ends, labels, self.crcs, self.heights, self.widths)
        columns = [np.asarray(value, kind).tobytes() for value, (_, kind) in zip(values, COLUMNS, strict=True)]
        index = b"".join([*columns, *names])
        told = json.dumps(text, sort_keys=True).encode()
        start = -(-self.end // 8) * 8
        end = start + len(index) + len(told)
        crc = zlib.crc32(told, zlib.crc32(index))
        version = VERSION_DEEP if "pixels" in text else VERSION
        head = HEAD.pack(MAGIC, version, 0, len(self.ends), start, start + len(index), end, crc, 0)
        _write(self._data, b"\0" * (start - self.end) + index + told)
        self._data.close()
        with open(self.part, "r+b", buffering=0) as file:
            _write(file, head[:-4] + zlib.crc32(head[:-4]).to_bytes(4, "little"))
            os.fsync(file.fileno())
        self.part.replace(self.out)
        flush_folder(self.out.parent)
        self.close()
        journal_of(self.out).unlink()


def journal_of(out: Path) -> Path:
    """Where the progress of a packing into ``out`` is kept."""
    return out.with_name(out.name + ".journal")


def _lock(file: Any, part: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: two packings into one file are not noticed
        return
    try:
        # Of the process, not of the open file: workers that outlive a killed parent for a moment do not hold it.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise ConfigError(f"{part}: another process is writing it; wait for it, or choose another out=FILE") from None


def _write(file: Any, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]  # a disk that is nearly full takes a part before it refuses


def _line(block: dict[str, Any]) -> bytes:
    told = json.dumps(block).encode()
    return b"%08x %s\n" % (zlib.crc32(told), told)


def _lines(journal: Any) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The whole lines that a journal begins with."""
    journal.seek(0)
    for line in io.BufferedReader(io.FileIO(journal.fileno(), closefd=False)):
        told = line[9:-1]
        if not line.endswith(b"\n") or line[:9] != b"%08x " % zlib.crc32(told):
            return
        yield line, json.loads(told)
