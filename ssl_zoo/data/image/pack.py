"""``ssl-zoo pack``: any data set into one file, decoded by several processes, resumable."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ssl_zoo.data.damage import Damage, readable
from ssl_zoo.data.decoders import auto_workers, stream
from ssl_zoo.data.image.pack_pixels import check_encoding, jpeg, pixels, resized
from ssl_zoo.data.image.pack_writer import Row, Writer
from ssl_zoo.data.image.packed import DATA
from ssl_zoo.data.source import DamagedFile, Source, Splits
from ssl_zoo.errors import ConfigError, nearest, require
from ssl_zoo.words import setting

ENCODINGS = ("decoded", "original", "jpeg")
QUALITY = 95
BLOCK = 32  # samples between two lines of the journal
PROBED = 16  # samples that are encoded beforehand to estimate the size of the file
INDEX_ROW = 36 + 40  # bytes of the index for a sample, with a name of usual length
# The disk, the quota, or the largest file that the file system or the shell allows.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

HELP = f"""\
ssl-zoo pack data=NAME data.root=DIR out=FILE.pack [encoding={'|'.join(ENCODINGS)}] [size=N] [quality=95] [workers=auto]
ssl-zoo pack data=NAME data.root=DIR out=STORE chunk=64MB
  data=..., data.*  what to pack, as for training: data=folder data.root=DIR, data=cifar10, ...; training and validation
                    samples with their labels (data.subset and its like choose when it is read)
  out               the file; an interrupted packing is continued by the same command
  encoding          decoded (default): pixels; squares of one size are then read as one array, without workers
                    original: the bytes of the image files; jpeg: JPEG, files that are JPEG and small enough as they are
                    (8 bits, grey or colour)
  size              larger images are resized so that their shorter side has so many pixels (default: as they are)
  quality           of the JPEG encoder, 1 to 100 (default: 95)
  workers           processes that decode (default: one a core)
  chunk             write a folder of chunks of so many bytes instead, for data=stream: copy it to any object store
for ImageNet: ssl-zoo pack data=imagenet data.root=DIR out=imagenet.pack encoding=jpeg size=256
then:         ssl-zoo train data=packed data.root=imagenet.pack scale=large data.image_size=224"""


@dataclass(frozen=True)
class Options:
    """What the command line says beside the data; checked when made.

    Args:
        out: The file to write.
        encoding: One of ``ENCODINGS``.
        size: Pixels of the shorter side of larger images; None: as they are.
        quality: Of the JPEG encoder; None: 95.
        workers: Processes; ``auto``: one a core.
        chunk: Bytes of a chunk of a store for ``data=stream``; None: one file.
    """

    out: str
    encoding: str = "decoded"
    size: int | None = None
    quality: int | None = None
    workers: int | str = "auto"
    chunk: str | None = None

    def __post_init__(self) -> None:
        if self.chunk is not None and (self.encoding, self.size, self.quality) != ("decoded", None, None):
            raise ConfigError(
                f"chunk={self.chunk}: a store keeps image files as they are; leave encoding, size and quality out, or "
                "pack with them into one file first and that file (data=packed) into a store"
            )
        require("encoding", self.encoding, ENCODINGS, ConfigError)
        if self.size is not None and (self.encoding == "original" or self.size < 1):
            raise ConfigError(f"size={self.size}: wanted at least 1 pixel, and encoding=jpeg or decoded to resize with")
        if self.quality is not None and (self.encoding != "jpeg" or not 1 <= self.quality <= 100):
            raise ConfigError(f"quality={self.quality}: wanted 1 to 100, with encoding=jpeg (got {self.encoding})")
        auto_workers(self.workers, True, 1, 1)


def parse(argv: Sequence[str]) -> tuple[Options, list[str]]:
    """Own options, and the overrides that choose the data."""
    own = [field.name for field in fields(Options)]
    given: dict[str, Any] = {}
    overrides, problems = [], []
    for word in argv:
        key, _, value = word.partition("=")
        if key in own:
            given[key] = value
        elif key in ("data.subset", "data.labels", "data.imbalance", "data.val_fraction", "data.source.shares"):
            problems.append(f"{word}: a pack holds all samples; give it to the run that reads them instead")
        elif key == "data" or key.lstrip("+").startswith(("data.", "hydra.")):
            overrides.append(word)
        else:
            problems.append(f"ssl-zoo pack has no option {key!r}; {nearest(key, [*own, 'data', 'data.root'])}")
    for key in given.keys() & {"size", "quality", "workers"}:
        try:
            given[key] = given[key] if given[key] == "auto" and key == "workers" else int(given[key])
        except ValueError:
            problems.append(f"{key}={given[key]}: wanted a whole number{', or auto' if key == 'workers' else ''}")
    if not given.get("out"):
        problems.append("out=FILE.pack is missing: where to write (ssl-zoo pack alone prints all options)")
    if problems:
        raise ConfigError("\n".join(problems))
    return Options(**given), overrides


class EncodeTask(Dataset):
    """Encode the samples ``[start, stop)`` of a request.

    Args:
        sources: Training samples, then validation samples.
        options: How.
    """

    def __init__(self, sources: Sequence[Source], options: Options) -> None:
        self.sources = sources
        self.options = options

    def __getitem__(self, request: tuple[int, int]) -> dict[str, Any]:
        rows: list[Row] = []
        damaged: list[tuple[int, str, str]] = []
        for position in range(*request):
            try:
                content, height, width = self._encoded(position)
            except DamagedFile as error:
                damaged.append((position, error.path, error.reason))
                continue
            rows.append(Row(position, content, height, width, zlib.crc32(content)))
        return {"stop": request[1], "rows": rows, "damaged": damaged}

    def _encoded(self, position: int) -> tuple[bytes, int, int]:
        source, index = locate(self.sources, position)
        image, options = source.load(index), self.options
        larger = options.size is not None and min(image.shape[1:]) > options.size
        if options.size is not None and larger:
            image = resized(image, options.size)
        height, width = image.shape[1:]
        if options.encoding == "decoded":
            return image.numpy().tobytes(), height, width
        content = file_of(source, index)
        if options.encoding == "jpeg" and (larger or not content.startswith(b"\xff\xd8\xff")):
            content = jpeg(image, options.quality or QUALITY)
        return content, height, width


def locate(sources: Sequence[Source], position: int) -> tuple[Source, int]:
    """The source of a position that counts through all of them, and the sample's index there."""
    for source in sources:
        if position < len(source):
            return source, position
        position -= len(source)
    raise IndexError(position)


def file_of(source: Source, index: int) -> bytes:
    """The bytes of the sample's file; none for a source that has no files."""
    if not hasattr(source, "path"):
        return b""
    path = source.path(index)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DamagedFile(path, str(error)) from None


def pack(
    splits: Splits,
    options: Options,
    origin: str,
    root: str | Sequence[str] | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> str:
    """Write the samples of both splits into one file, or finish writing it.

    Args:
        splits: What to pack.
        options: How, and where to.
        origin: What made ``splits``, for the record.
        root: Where they lie: the names of samples are told relative to it.
        report: Called with a line of progress after every block.

    Returns:
        What was written, in one line.

    Raises:
        ConfigError: The file is there already, the part of another packing is in the way, too many images are damaged,
            or the disk is full; whatever was written then serves the next call.
    """
    out = Path(os.path.expanduser(options.out)).absolute()
    sources = [source for source in splits if source is not None]
    if out.exists():
        raise ConfigError(f"out={options.out} exists already; remove it, or choose another name")
    if options.encoding == "original" and not all(hasattr(source, "path") for source in sources):
        raise ConfigError(f"encoding=original: {origin} has no image files to copy; use encoding=decoded or jpeg")
    check_encoding(sources[0], options.encoding)
    base = _base(root)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _check_space(out, sources, options)
        writer = Writer(out, _plan(sources, options, origin, base))
    except OSError as error:
        raise ConfigError(f"out={options.out} cannot be written: {error}") from None
    total = sum(map(len, sources))
    try:
        _fill(writer, sources, options, report)
        _finish(writer, sources, base)
    except KeyboardInterrupt:
        raise ConfigError(f"interrupted after {writer.next:,} of {total:,}; the same command continues there") from None
    except OSError as error:
        raise ConfigError(_full(writer, total, error) if error.errno in FULL else f"out={out}: {error}") from None
    finally:
        writer.close()
    counts = " and ".join(f"{n:,} {name}" for n, name in _counts(writer, sources))
    lost = f", {len(writer.damaged)} damaged left out" if writer.damaged else ""
    return (
        f"{out}: {counts} images, {options.encoding}, {_size(out.stat().st_size)}{lost}; "
        f"use it with data=packed {setting('data.root', options.out)}"
    )


def _base(root: str | Sequence[str] | None) -> str | None:
    """The folder in which all roots lie; that of a table."""
    if root is None:
        return None
    places = [Path(os.path.expanduser(one)).absolute() for one in ([root] if isinstance(root, str) else root)]
    return os.path.commonpath([place.parent if place.is_file() else place for place in places])


def _plan(sources: Sequence[Any], options: Options, origin: str, root: str | None) -> dict[str, Any]:
    """What two packings must have in common for the one to continue the other; kept in the pack."""
    quality = (options.quality or QUALITY) if options.encoding == "jpeg" else None
    plan = {"encoding": options.encoding, "size": options.size, "quality": quality, "origin": origin, "root": root}
    prints = [_print(source) for source in sources]
    kept = pixels(sources[0], options.encoding)
    return {**plan, **kept, "channels": sources[0].channels, "samples": list(map(len, sources)), "content": prints}


def _print(source: Source) -> str:
    """A checksum of the names and labels of a source; without names, of its first and last image."""
    path_of, crc = getattr(source, "path", None), 0
    if path_of is not None:
        for i in range(len(source)):
            crc = zlib.crc32(os.fsencode(path_of(i)) + b"\0", crc)
    else:
        for i in (0, len(source) - 1):
            image = readable(source, i).sample
            crc = crc if image is None else zlib.crc32(image.numpy().tobytes(), crc)
    return f"{crc if source.labels is None else zlib.crc32(source.labels.numpy().tobytes(), crc):08x}"


def _fill(writer: Writer, sources: Sequence[Source], options: Options, report: Callable[[str], None]) -> None:
    total = sum(map(len, sources))
    damage = Damage(sources[0].damage_limit, total, remedy="left out of the pack")
    _tell(damage, writer.damaged)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = auto_workers(options.workers, sources[0].in_memory, 1, cores)
    requests = [(i, min(i + BLOCK, total)) for i in range(writer.next, total, BLOCK)]
    began, already = time.monotonic(), writer.next
    for item in stream(EncodeTask(sources, options), requests, min(workers, len(requests))):
        _tell(damage, item["damaged"])
        writer.add(item["rows"], item["damaged"], item["stop"])
        speed = (writer.next - already) / max(time.monotonic() - began, 1e-9)
        left = timedelta(seconds=round((total - writer.next) / speed))
        report(f"{writer.next:,} of {total:,} images, {speed:,.0f} images/s, {left} left")
    damage.tell()


def _tell(damage: Damage, damaged: list[tuple[int, str, str]]) -> None:
    damage.add([(path, reason) for _, path, reason in damaged])


def _finish(writer: Writer, sources: Sequence[Source], root: str | None) -> None:
    positions = np.asarray(writer.positions, np.int64)
    if not _counts(writer, sources)[0][0]:
        raise ConfigError(f"out={writer.out}: no training image can be read ({writer.damaged[0][2]}); check data.root")
    every = [torch.full((len(s),), -1) if s.labels is None else s.labels for s in sources]
    labels = torch.cat(every).numpy()[positions]
    sizes = set(zip(writer.heights, writer.widths, strict=True)) if writer.plan["encoding"] == "decoded" else set()
    labelled = (source.labels is not None for source in sources)
    text = {
        **pixels(sources[0], writer.plan["encoding"]),
        "encoding": writer.plan["encoding"],
        "channels": writer.plan["channels"],
        "splits": [
            {"name": name, "samples": n, "labelled": has}
            for (n, name), has in zip(_counts(writer, sources), labelled, strict=True)
            if n
        ],
        "classes": sources[0].classes,
        "uniform": list(sizes.pop()) if len(sizes) == 1 else None,
        "damaged": [[_relative(path, root), reason] for _, path, reason in writer.damaged],
        "made": writer.plan,
    }
    names = [os.fsencode(_name(sources, position, root)) for position in positions.tolist()]
    writer.finish(labels, names, text)


def _name(sources: Sequence[Source], position: int, root: str | None) -> str:
    source, index = locate(sources, position)
    return _relative(source.path(index), root) if hasattr(source, "path") else ""


def _relative(path: str, root: str | None) -> str:
    return path if root is None else path.removeprefix(root.rstrip(os.sep) + os.sep)


def _counts(writer: Writer, sources: Sequence[Source]) -> list[tuple[int, str]]:
    """(written samples, name) of each split."""
    train = int(np.searchsorted(np.frombuffer(writer.positions, "u8"), len(sources[0])))
    return list(zip((train, len(writer.positions) - train), ("train", "val"), strict=True))[: len(sources)]


# Space on the disk


def _check_space(out: Path, sources: Sequence[Source], options: Options) -> None:
    """Refuse before the first byte if the disk is clearly too small."""
    need, exact = _expected(sources, options)
    part = out.with_name(out.name + ".part")
    need -= part.stat().st_size if part.exists() else 0
    free = shutil.disk_usage(out.parent).free
    # An estimate of 16 images may be a fifth too high; a disk that then fills up after all costs nothing.
    if free < (need if exact else 0.8 * need):
        raise ConfigError(
            f"out={options.out}: {'' if exact else 'about '}{_size(need)} needed and {_size(free)} free on that disk; "
            f"free some, choose another out=FILE{', or a smaller size=N with encoding=jpeg' * (not exact)}"
        )


def _expected(sources: Sequence[Source], options: Options) -> tuple[int, bool]:
    """Bytes of the finished file, and whether they are known and not estimated."""
    total = sum(map(len, sources))
    exact = options.encoding == "decoded" and options.size is None and all(source.in_memory for source in sources)
    probed = [total * i // PROBED for i in range(1 if exact else PROBED)]
    task = EncodeTask(sources, options)
    found = [len(row.content) for position in sorted(set(probed)) for row in task[position, position + 1]["rows"]]
    mean = sum(found) / max(len(found), 1)
    return DATA + round(total * (mean + INDEX_ROW)), exact


def _full(writer: Writer, total: int, error: OSError) -> str:
    done = max(writer.next, 1)
    free = shutil.disk_usage(writer.out.parent).free
    more = round((writer.end - DATA) / done * (total - writer.next)) + total * INDEX_ROW
    return (
        f"out={writer.out}: {error.strerror} after {writer.next:,} of {total:,} images ({_size(writer.end)}); about "
        f"{_size(more)} more needed, {_size(free)} free. Nothing is lost: free some space, and "
        f"the same command continues from {writer.part.name}"
    )


def _size(n: int) -> str:
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.1f} MB"


class Progress:
    """A line that is kept up to date on a terminal; in a log, one every half minute."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.next = 0.0

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        if now >= self.next:
            print(text, end="\033[K\r" if self.live else "\n", file=sys.stderr, flush=True)
            self.next = now + (0.5 if self.live else 30.0)
