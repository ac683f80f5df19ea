"""A data set in one file, as ``ssl-zoo pack`` writes it: memory-mapped, checked, opened in a moment at any size.

Layout, little endian throughout::

    0      head, 56 bytes: magic 8s, version u32, 0 u32, samples N u64, index offset u64, text offset u64,
           size of the file u64, crc32 of everything from the index on u32, crc32 of the 52 bytes before it u32
    4096   the samples, one after another: the training samples, then the validation samples
    index  (at a multiple of 8) u64[N] where each sample ends; u64[N] where its name ends; i64[N] label, -1 = none;
           u32[N] crc32 of each sample; u32[N] height; u32[N] width; the names, one after another, as the file system
           has them
    text   JSON in UTF-8: {"encoding", "channels", "splits": [{"name", "samples", "labelled"}], "classes",
           "uniform": [height, width] or null, "damaged": [[name, reason]], "made": {how}}

A sample begins where the one before it ends. ``decoded`` samples are ``[C, H, W]``, others encoded images
(``original``: the bytes of the file; ``jpeg``: re-encoded). Decoded samples of one size are one array.

Decoded samples are uint8, or what ``"pixels"`` in the text says: {"range": [low, high], "whole"} of
:class:`ssl_zoo.data.image.pixel_range.Range`, whose type they have; such a pack is of version 2. For encoded samples
``"reading"`` may hold the same, with "nodata" and "exif" of :class:`ssl_zoo.data.image.decode.Reader`.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ssl_zoo import machine
from ssl_zoo.data.fingerprint import digest, numbers
from ssl_zoo.data.image.arrays import Arrays
from ssl_zoo.data.image.decode import Reader, Shrink, converted, reader, told
from ssl_zoo.data.image.pixel_range import BYTES, Range, parse, sampled
from ssl_zoo.data.image.source import ImageSource
from ssl_zoo.data.source import DamagedFile, Splits
from ssl_zoo.errors import ConfigError
from ssl_zoo.sides import Side
from ssl_zoo.words import setting

MAGIC = b"\x93SSLPACK"
VERSION, VERSION_DEEP = 1, 2  # of packs of bytes, and of decoded samples of other types
HEAD = struct.Struct("<8sIIQQQQII")
DATA = 4096  # a whole page, so that the array of a uniform pack is aligned
COLUMNS = (("ends", "<u8"), ("name_ends", "<u8"), ("labels", "<i8"), ("crcs", "<u4"), ("heights", "<u4"),
           ("widths", "<u4"))
ROW = sum(np.dtype(kind).itemsize for _, kind in COLUMNS)
SHARE = 0.5  # of the memory: a larger array is read by workers, sample by sample


class PackFile:
    """An open pack. Forked workers share the mapping; a pickled one opens the file again.

    Args:
        path: What ``ssl-zoo pack`` wrote.

    Raises:
        ConfigError: It is no pack, of another version, cut short, or its head or index is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._open()

    def _open(self) -> None:
        self._bytes = np.memmap(self.path, np.uint8, "r") if os.path.getsize(self.path) else np.empty(0, np.uint8)
        self._head = self._bytes[: HEAD.size].tobytes()
        samples, index, text, crc = self._read_head()
        if zlib.crc32(self._bytes[index:].data) != crc:
            raise ConfigError(f"{self.path}: its index is damaged (checksum); copy the file again, or pack again")
        if not (DATA <= index <= text <= len(self._bytes) and index + samples * ROW <= text):
            raise ConfigError(f"{self.path}: its index cannot hold the {samples:,} samples of its head; pack again")
        try:
            self.text: dict[str, Any] = json.loads(self._bytes[text:].tobytes())
            problem = _text_problem(self.text, samples)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:  # JSON of other things
            problem = f"{type(error).__name__}: {error}"
        if problem:
            raise ConfigError(f"{self.path}: what it says of its samples makes no sense ({problem}); pack again")
        columns, at = {}, index
        for name, kind in COLUMNS:
            size = samples * np.dtype(kind).itemsize
            columns[name] = self._bytes[at : at + size].view(kind)
            at += size
        self._ends, self._name_ends, self._crcs = columns["ends"], columns["name_ends"], columns["crcs"]
        self.labels, self.heights, self.widths = columns["labels"], columns["heights"], columns["widths"]
        self._names = self._bytes[at:text]
        most = len(self.text["classes"] or ())
        if samples and not -1 <= int(self.labels.min()) <= int(self.labels.max()) < max(most, 1):
            raise ConfigError(f"{self.path}: it has labels beyond its {most} classes; pack again")
        self._sound = np.zeros(samples, bool)  # rows of the array that this process has checked

    @property
    def range(self) -> Range:
        """Of decoded samples."""
        pixels = self.text.get("pixels")
        return BYTES if pixels is None else Range.of(pixels, self.path)

    def _read_head(self) -> tuple[int, int, int, int]:
        if self._head[:8] != MAGIC:
            raise ConfigError(
                f"{self.path} is no pack: it begins with {self._head[:8]!r}, wanted {MAGIC!r}; write one with "
                "ssl-zoo pack data=folder data.root=DIR out=FILE.pack"
            )
        size = len(self._bytes)
        if size < HEAD.size:
            raise ConfigError(f"{self.path} is cut short: {size} bytes; copy it again")
        _, version, _, samples, index, text, wanted, crc, own = HEAD.unpack(self._head)
        if version not in (VERSION, VERSION_DEEP):
            raise ConfigError(
                f"{self.path} is a pack of version {version}, this ssl_zoo reads versions {VERSION} and "
                f"{VERSION_DEEP}; {'update ssl_zoo, or ' if version > VERSION_DEEP else ''}pack again"
            )
        if zlib.crc32(self._head[:-4]) != own:
            raise ConfigError(f"{self.path}: its head is damaged (checksum); copy the file again, or pack again")
        if size != wanted:
            raise ConfigError(
                f"{self.path} {'is cut short' if size < wanted else 'has something appended'}: "
                f"{size:,} bytes, wanted {wanted:,}; copy it again"
            )
        return samples, index, text, crc

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "head": self._head}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._open()
        if self._head != state["head"]:
            raise ConfigError(f"{self.path} has been replaced since this run opened it; start again")

    def __len__(self) -> int:
        return len(self._ends)

    def name(self, index: int) -> str:
        """The sample for messages: the pack, the position, and the file it was made from."""
        start = int(self._name_ends[index - 1]) if index else 0
        made_from = os.fsdecode(self._names[start : int(self._name_ends[index])].tobytes())
        return f"{self.path}: sample {index}" + (f" ({made_from})" if made_from else "")

    def fingerprint(self, first: int, samples: int) -> str:
        """What the index says of some consecutive samples' content; not their names, nor how the pack was made."""
        rows = slice(first, first + samples)
        sizes = np.diff(self._ends, prepend=np.uint64(DATA)).astype("<u8")
        columns = (self._crcs, sizes, self.heights, self.widths)
        return digest("pack", self.text["encoding"], str(self.text["channels"]), *(column[rows] for column in columns))

    def content(self, index: int) -> np.ndarray:
        """The bytes of a sample, checked: 0.6 us for 3 KB, 22 us for 150 KB (7 GB/s).

        Raises:
            DamagedFile: They are not those that were written.
        """
        start = int(self._ends[index - 1]) if index else DATA
        found = self._bytes[start : int(self._ends[index])]
        crc = zlib.crc32(found.data)
        if crc != self._crcs[index]:
            reason = f"its checksum is {crc:08x}, {int(self._crcs[index]):08x} was written"
            raise DamagedFile(self.name(index), reason)
        return found

    def array(self) -> Tensor:
        """All samples of a uniform decoded pack, ``[N, C, H, W]``, unchecked: a read-only view of the file."""
        shape = (len(self), self.text["channels"], *self.text["uniform"])
        size = math.prod(shape) * np.dtype(self.range.dtype).itemsize
        if DATA + size > len(self._bytes):
            raise ConfigError(f"{self.path}: too small for {len(self)} images of {self.text['uniform']}; pack again")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remark that the file must not be written through the tensor
            return torch.from_numpy(self._bytes[DATA : DATA + size].view(self.range.dtype).reshape(shape))

    def check(self, rows: Tensor) -> None:
        """Check rows of the array, each once in this process.

        Raises:
            ConfigError: One is damaged; batches from memory have no rule to replace a sample.
        """
        fresh = rows.numpy()[~self._sound[rows.numpy()]]
        for row in fresh.tolist():
            try:
                self.content(row)
            except DamagedFile as error:
                raise ConfigError(
                    f"{error}; copy the file again or pack again, or let data.source.in_memory=false replace the sample"
                ) from None
        self._sound[fresh] = True


class Packed(ImageSource):
    """Some consecutive samples of a pack: one of its splits.

    Args:
        file: The pack.
        first, samples: Which ones.
        labelled: Whether to show their labels.
        reader: How encoded samples become images; of decoded ones their range, and the channels they are converted to.
        damage_limit: So many damaged samples are replaced.
        in_memory: Whether batches are gathered from one array; otherwise workers load the samples one by one.
    """

    def __init__(
        self,
        file: PackFile,
        first: int,
        samples: int,
        labelled: bool,
        reader: Reader,
        damage_limit: int,
        in_memory: bool,
    ) -> None:
        self.file = file
        self.first = first
        self.samples = samples
        self.reader = reader
        self.decisions = list(reader.decisions)
        self.white = reader.range.white
        self.channels = reader.channels
        self.damage_limit = damage_limit
        self.in_memory = in_memory
        self.resolved = {"in_memory": in_memory, **reader.resolved}  # `auto` looks at this machine's memory
        self.decoded = file.text["encoding"] == "decoded"
        height, width = file.text["uniform"] or (0, 1)
        self.image_size: Side | None = height if self.decoded and height == width else None
        own = file.labels[first : first + samples].astype(np.int64)
        self.labels = torch.from_numpy(own) if labelled else None
        self.classes: list[str] | None = file.text["classes"] if labelled else None

    def __len__(self) -> int:
        return self.samples

    def load(self, index: int, shrink: Shrink | None = None) -> Tensor:
        i = self.first + index
        content = self.file.content(i)
        if not self.decoded:
            return self.reader(content.tobytes(), self.file.name(i), shrink)
        shape = (self.file.text["channels"], int(self.file.heights[i]), int(self.file.widths[i]))
        kind = np.dtype(self.reader.range.dtype)
        if len(content) != math.prod(shape) * kind.itemsize:
            wanted = f"{list(shape)} of {kind}"
            raise DamagedFile(self.file.name(i), f"it has {len(content)} bytes, wanted {wanted}")
        return converted(torch.from_numpy(content.copy().view(kind).reshape(shape)), self.channels)

    def masked(self, index: int) -> tuple[Tensor, Tensor | None]:
        """A sample, and where it has no data: :meth:`ssl_zoo.data.image.decode.Reader.masked`."""
        if self.decoded:
            return self.load(index), None
        i = self.first + index
        return self.reader.masked(self.file.content(i).tobytes(), self.file.name(i))

    def fingerprint(self) -> str:
        return digest(self.file.fingerprint(self.first, self.samples), numbers(self.labels))

    def image_file(self, index: int) -> bytes | None:
        """The encoded image as it is stored; None for decoded samples."""
        return None if self.decoded else self.file.content(self.first + index).tobytes()

    def fetch(self, index: Tensor) -> Tensor:
        if not self.in_memory:
            raise TypeError("this pack is read with load(i): its images differ in size, are encoded, or exceed memory")
        rows = index.cpu() + self.first
        self.file.check(rows)
        return converted(self.file.array().index_select(0, rows), self.channels)  # whole rows: [rows] is slower

    def to(self, device: torch.device) -> Packed | Arrays:
        if not self.in_memory:
            return self
        images = self.fetch(torch.arange(len(self)))
        return Arrays(images, self.labels, self.classes, white=self.white).to(device)


def _text_problem(text: Any, samples: int) -> str | None:
    """What is wrong with a pack's own description, whose numbers decide how much memory is taken; None: nothing."""
    parts, uniform, classes = text["splits"], text["uniform"], text["classes"]
    counts = [part["samples"] for part in parts]
    if any(type(n) is not int or n < 0 for n in counts) or sum(counts) != samples:
        return f"parts of {counts} samples, {samples:,} in all"
    if [part["name"] for part in parts] not in (["train"], ["train", "val"]):
        return "its parts are not train and val"
    bands = text["channels"]
    if type(bands) is not int or not 0 < bands < 2**16 or text["encoding"] not in ("decoded", "original", "jpeg"):
        return f"{text['encoding']} with {text['channels']} channels"
    sizes = uniform if isinstance(uniform, list) and len(uniform) == 2 else [1, 1] if uniform is None else [0]
    if any(type(size) is not int or size < 1 for size in sizes):
        return f"images of {uniform}"
    named = classes is None or isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    return None if named else "its classes are no list of names"


def packed(
    root: str | None,
    channels: int,
    image_size: Side,
    labels: Literal["auto", "none"] = "auto",
    max_damaged: int | None = None,
    in_memory: Literal["auto"] | bool = "auto",
    draft: bool = True,
    download: bool = False,
    range: Literal["auto"] | tuple[float, float] = "auto",
    nodata: float | None = None,
    max_pixels: int | None = None,
) -> Splits:
    """The training and validation samples of a pack.

    Args:
        root: The file.
        channels: Bands of the images: 1 (grey), 3 (colour), or as many as the pack has.
        image_size: Not used here: views cut images of any size.
        labels: ``auto``: those of the pack; ``none``: unlabelled, and no validation set.
        max_damaged: Damaged samples that are replaced before the run ends; None: the larger of 100 and 1 %.
        in_memory: Gather batches from one array in the training process, instead of sample by sample in workers.
            ``auto``: if the samples are decoded squares of one size that fill at most half of this machine's memory.
        draft: Decode JPEG images that are more than four times as large as needed at 1/2, 1/4 or 1/8 of their size.
        download: Not possible for a pack.
        range, nodata, max_pixels: As :func:`ssl_zoo.data.image.decode.reader` takes them, of encoded samples; decoded
            ones have the range with which they were packed.

    Raises:
        ConfigError: No such file, or no sound pack.
    """
    file = PackFile(_found(root, download))
    if labels not in ("auto", "none"):
        raise ConfigError(f"data.source.labels={labels}: wanted auto or none")
    array = _in_memory(file, in_memory)
    read = _reader(file, channels, range, {"nodata": nodata, "draft": draft, "max_pixels": max_pixels})
    sources, first = {}, 0
    for part in file.text["splits"]:
        n = part["samples"]
        limit = max(100, file.text["splits"][0]["samples"] // 100) if max_damaged is None else max_damaged
        labelled = part["labelled"] and labels != "none"
        sources[part["name"]] = Packed(file, first, n, labelled, read, limit, array)
        first += n
    return Splits(sources["train"], None if labels == "none" else sources.get("val"))


def _reader(file: PackFile, channels: int, range: Any, options: dict[str, Any]) -> Reader:
    """How the samples become images; the pack's own range and settings, where it has any."""
    if file.text["encoding"] == "decoded":
        _check_decoded(file, channels, range, options["nodata"])
        return Reader(channels, file.range, decisions=tuple(told(file.range, "as it was packed")))
    rows = sampled(file.text["splits"][0]["samples"])
    contents = [file.content(i).tobytes() for i in rows]
    names, kept = [file.name(i) for i in rows], file.text.get("reading")
    return reader(contents, channels, range, names=names, kept=kept, **options)


def _check_decoded(file: PackFile, channels: int, range: Any, nodata: float | None) -> None:
    have = file.text["channels"]
    if have != channels and not {have, channels} <= {1, 3}:
        raise ConfigError(f"data.channels={channels}: {file.path} has {have} bands; set data.channels={have}")
    if range != "auto" and parse(range, file.range.whole) != file.range or nodata is not None:
        raise ConfigError(
            f"data.source.range={range} data.source.nodata={nodata}: {file.path} was decoded with the range "
            f"{file.range.plain()}; set auto and null, or pack again with encoding=original"
        )


def _found(root: str | None, download: bool) -> Path:
    if root is None:
        raise ConfigError("data.root is not set: wanted the file that ssl-zoo pack wrote, data.root=FILE.pack")
    if download:
        raise ConfigError("data.download=true: nobody knows where this pack comes from; fetch it and set data.root")
    path = Path(os.path.expanduser(str(root))).absolute()
    if path.is_dir():
        raise ConfigError(
            f"data.root={root} is a folder, data=packed wants a file; train on it with data=folder, or pack it: "
            f"ssl-zoo pack data=folder {setting('data.root', root)} {shlex.quote(f'out={path.name}.pack')}"
        )
    if not path.is_file():
        part = path.with_name(path.name + ".part")
        hint = f"its packing was interrupted ({part.name}): the same ssl-zoo pack command finishes it"
        hint = hint if part.is_file() else "write it with ssl-zoo pack data=folder data.root=DIR out=FILE.pack"
        raise ConfigError(f"data.root={root}: there is no such file (looked at {path}); {hint}")
    return path


def _in_memory(file: PackFile, wanted: str | bool) -> bool:
    if wanted not in ("auto", True, False):
        raise ConfigError(f"data.source.in_memory={wanted}: wanted auto, true or false")
    uniform, encoding = file.text["uniform"], file.text["encoding"]
    possible = encoding == "decoded" and uniform is not None and uniform[0] == uniform[1]
    if wanted is True and not possible:
        sizes = f"{uniform[0]}x{uniform[1]}" if uniform else "different sizes"
        raise ConfigError(
            f"data.source.in_memory=true: wanted decoded square images of one size, {file.path} holds {encoding} "
            f"images of {sizes}; set data.source.in_memory=auto, or pack with encoding=decoded"
        )
    if wanted != "auto":
        return bool(wanted)
    values = len(file) * file.text["channels"] * uniform[0] * uniform[1] if possible else 0
    return possible and values * np.dtype(file.range.dtype).itemsize <= SHARE * machine.memory()
