"""Files of PyTorch, read as data and only if they are whole: every byte of a tensor is under a checksum."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ssl_zoo.machine import REPLACES_MAPPED

PIECE = 1 << 20  # bytes read at a time


class Unreadable(Exception):
    """A file that is damaged or no archive of PyTorch; the message says why, in one line."""


# What the parsers of such files raise on bytes that make no sense to them, as found by tests/fuzz.
DAMAGED = (
    zipfile.BadZipFile,  # no archive; a checksum, a name or a header that does not match
    zlib.error,  # an entry that claims to be compressed
    NotImplementedError,  # compressed in a way that there is not
    pickle.UnpicklingError,  # code, or no pickle at all
    RuntimeError,  # PyTorch's own reader; an entry that claims to be encrypted
    OSError, EOFError, struct.error,  # cut short, or offsets that lie outside of the file
    ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError,  # a pickle of other things than ours
    OverflowError, MemoryError, RecursionError,  # absurd counts
)  # fmt: skip


def verify(file: Path) -> None:
    """Compare every entry of a zip archive with its CRC-32, once in this process for a file that has not changed.

    Raises:
        Unreadable: If one differs, or it is no zip archive.
    """
    stat = os.stat(file)
    _verify(str(file), stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _verify(path: str, *identity: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                with archive.open(entry) as content:  # it compares when it reaches the end
                    while content.read(PIECE):
                        pass
    except DAMAGED as error:
        raise Unreadable(_first_line(error)) from None


def read(file: Path, mmap: bool = True, allowed: Sequence[type] = ()) -> Any:
    """What a file holds, tensors and plain containers only, on the CPU.

    Args:
        mmap: Tensors stay in the file until they are used (not on Windows), which only zip archives can; otherwise
            files of before PyTorch 1.6 are read too, which have no checksums.
        allowed: Classes of plain data that may be among them.

    Raises:
        Unreadable: If it is damaged, or holds anything else.
    """
    try:
        if mmap or zipfile.is_zipfile(file):
            verify(file)
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap and REPLACES_MAPPED)
    except DAMAGED as error:
        raise Unreadable(_first_line(error)) from None


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` file; its header, which is bounded by its size, says where each lies.

    Raises:
        Unreadable: If it is damaged or no such file.
    """
    try:
        return load_file(file)
    except (SafetensorError, *DAMAGED) as error:
        raise Unreadable(_first_line(error)) from None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
