"""Sharded data in an object store or on a shared disk: litdata stores, for sets larger than one machine.

litdata (https://github.com/Lightning-AI/litData) writes the chunks and fetches them (s3://, gs://, azure://, folders).
Which sample is read when is decided by :func:`ssl_zoo.data.sampler.sharded_order` and not by litdata, whose own order
depends on the number of processes and workers. Chunks are read here by position: litdata's reader keeps one chunk open
and lets go of it when another is asked for, and an epoch of ours goes through many at a time.

A store is a folder, or one with ``train/`` and ``val/``, of ``chunk-*.bin``, ``index.json``, and if there are labels
``labels.npy`` (``[N]`` int64, -1 = none, in the order of the chunks) and ``classes.json`` (their names). What is black
and white, and how many bands there are, stands in ``reading.json`` (:meth:`ssl_zoo.data.image.decode.Reader.kept`).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import struct
import warnings
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_zoo.data.damage import Damage
from ssl_zoo.data.fingerprint import digest, numbers
from ssl_zoo.data.image.chunks import INDEX, Cached, Index, InPlace, Place, count_bytes, litdata, read_small
from ssl_zoo.data.image.decode import Reader, Shrink, range_of, reader
from ssl_zoo.data.image.pixel_range import Range, sampled
from ssl_zoo.data.image.source import ImageSource
from ssl_zoo.data.source import DamagedFile, Shards, Source, Splits
from ssl_zoo.data.splits import fixed_permutation
from ssl_zoo.errors import ConfigError
from ssl_zoo.sides import Side

LABELS, CLASSES, READING = "labels.npy", "classes.json", "reading.json"


def stream(
    root: str | None,
    channels: int,
    image_size: Side,
    labels: Literal["auto", "none"] = "auto",
    max_damaged: int | None = None,
    cache: str | None = None,
    max_cache_size: str | int | None = "100GB",
    lanes: int = 64,
    window: int = 2,
    draft: bool = True,
    download: bool = False,
    range: Literal["auto"] | tuple[float, float] = "auto",
    nodata: float | None = None,
    max_pixels: int | None = None,
) -> Splits:
    """The store at ``root``, or ``root/train`` and ``root/val`` where they exist.

    Args:
        root: A folder, which is read in place unless ``cache`` is set, or a URL, which is read through a cache.
        channels: Bands of the images: 1 (grey), 3 (colour), or as many as the files have.
        image_size: Not used here: views cut images of any size.
        labels: ``auto``: the store's, if it has any. ``none``: unlabelled, and no validation set.
        max_damaged: Unreadable samples that are replaced before the run ends; None: the larger of 100 and 1 %.
        cache: Folder where downloaded chunks are kept, shared by all processes of a node; None: for a URL
            ``~/.cache/ssl_zoo``, for a folder none. Each version of a store has its own sub-folder there.
        max_cache_size: Bytes of chunks kept there ("100GB"), the least recently used go first; None: no limit.
        lanes, window: Of the order, see :func:`ssl_zoo.data.sampler.sharded_order`.
        draft: Decode JPEG files that are more than four times as large as needed at 1/2, 1/4 or 1/8 of their size.
        download: Not needed: chunks come when they are asked for.
        range, nodata, max_pixels: As :func:`ssl_zoo.data.image.decode.reader` takes them; the first chunk is looked
            into.

    Raises:
        ConfigError: No store, none that this can read, a cache that cannot be written or holds not one chunk.
    """
    _check(root, labels, lanes, window, download)
    base = str(root).rstrip("/") if "://" in str(root) else str(Path(os.path.expanduser(str(root))).absolute())
    limit = None if max_cache_size is None else count_bytes("data.source.max_cache_size", max_cache_size)
    shelf = _shelf(base, cache)
    part, content = _find(base)

    def source(part: str, content: bytes, read: Reader | None = None) -> Stream:
        where = f"{base}/{part}" if part else base
        index = Index(f"{where}/{INDEX}", content)
        known = None if labels == "none" else _labels(where, len(index))
        damage_limit = max(100, len(index) // 100) if max_damaged is None else max_damaged
        place = _place(where, part, index, shelf, limit, lanes * window)
        read = read or _reader(index, place, where, channels, range, options)
        return Stream(index, place, where, known, read, damage_limit, lanes, window)

    options = {"nodata": nodata, "draft": draft, "max_pixels": max_pixels}
    train = source(part, content)
    held_out = read_small(f"{base}/val", INDEX) if part and train.labels is not None else None
    if held_out is None:
        return Splits(train, None)
    val = source("val", held_out, train.reader)
    if val.labels is None or val.classes != train.classes:
        raise ConfigError(
            f"data.root={root}: train/{CLASSES} and val/{CLASSES} are not the same; write both parts of the store from "
            "one set of classes, or set data.source.labels=none"
        )
    return Splits(train, val)


def _check(root: str | None, labels: str, lanes: int, window: int, download: bool) -> None:
    if root is None:
        raise ConfigError("data.root is not set: wanted the folder or the URL (s3://...) of a litdata store")
    if download:
        raise ConfigError("data.download=true: a stream fetches what it needs by itself; set data.download=false")
    if labels not in ("auto", "none"):
        raise ConfigError(f"data.source.labels={labels}: wanted auto or none")
    for name, value in (("lanes", lanes), ("window", window)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"data.source.{name}={value}: wanted a whole number, 1 or more")


def _find(base: str) -> tuple[str, bytes]:
    """The sub-folder of the training samples and their index."""
    for part in ("train", ""):
        found = read_small(f"{base}/{part}" if part else base, INDEX)
        if found is not None:
            return part, found
    raise ConfigError(
        f"data.root={base}: no litdata store there (looked for train/{INDEX} and {INDEX}); write one from any data "
        "with ssl-zoo pack data=folder data.root=DIR out=STORE chunk=64MB, or with litdata.optimize"
    )


def _shelf(base: str, cache: str | None) -> Path | None:
    """The folder in which a store is cached; None: it is read in place."""
    if cache is None and "://" not in base:
        return None
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ssl_zoo"
    home = home if cache is None else Path(os.path.expanduser(cache)).absolute()
    return home / f"stream-{hashlib.sha256(base.encode()).hexdigest()[:16]}"


def _place(where: str, part: str, index: Index, shelf: Path | None, limit: int | None, open_chunks: int) -> Place:
    if shelf is None:
        return InPlace(Path(where), index)
    largest = max(index.bytes)
    wanted = min(open_chunks, len(index.bytes)) * largest
    if limit is not None and limit < largest:
        raise ConfigError(
            f"data.source.max_cache_size={limit} bytes is less than the largest chunk ({largest}); wanted {wanted} or "
            "more: data.source.lanes x data.source.window chunks, less by the number of nodes"
        )
    if limit is not None and limit < wanted:
        warnings.warn(
            f"data.source.max_cache_size={limit} bytes holds less than the data.source.lanes x data.source.window "
            f"chunks that an epoch reads at a time ({wanted} bytes): on fewer than {-(-wanted // limit)} nodes chunks "
            "will be fetched again and again",
            stacklevel=2,
        )
    return Cached(where, shelf / f"{part or 'all'}-{index.version}", shelf, index, limit)


def _reader(
    index: Index, place: Place, where: str, channels: int, range: Any, options: dict[str, Any]
) -> Reader:
    """How the images are read: as the store says; of one that says nothing, by its first chunk, a fair sample."""
    content = read_small(where, READING)
    try:
        kept = None if content is None else json.loads(content)
    except ValueError as error:
        raise ConfigError(f"{where}/{READING} cannot be read ({error}); write the store again") from None
    contents, names = [], []
    known = kept is not None or index.kind == "jpeg" and channels in (1, 3)
    for row in [] if known else sampled(int(index.ends[0])):
        try:
            contents.append(index.image(place.read(0, row)))
            names.append(f"{where}/{index.names[0]}, sample {row}")
        except (ValueError, struct.error, OSError):
            continue  # named when its turn comes
    return reader(contents, channels, range, names=names, kept=kept, **options)


class Known(NamedTuple):
    """Labels of a store and the names of the classes."""

    labels: Tensor
    classes: list[str]


def _labels(where: str, n: int) -> Known | None:
    content = read_small(where, LABELS)
    if content is None:
        warnings.warn(f"{where} holds no {LABELS}: its images are taken as unlabelled", stacklevel=2)
        return None
    try:
        labels = torch.from_numpy(np.load(io.BytesIO(content), allow_pickle=False).astype(np.int64))
        names = read_small(where, CLASSES)
        classes = [str(name) for name in json.loads(names)] if names is not None else None
    except (ValueError, TypeError, EOFError) as error:
        raise ConfigError(f"{where}: {LABELS} or {CLASSES} cannot be read ({error})") from None
    classes = [str(i) for i in range(int(labels.max()) + 1)] if classes is None else classes
    if labels.shape != (n,) or int(labels.max()) >= len(classes) or int(labels.min()) < -1:
        raise ConfigError(
            f"{where}/{LABELS} holds {list(labels.shape)} labels from {int(labels.min())} to {int(labels.max())}; "
            f"wanted [{n}], one for each sample of {INDEX}, from -1 (none) to {len(classes) - 1}"
        )
    return Known(labels, classes)


class Stream(ImageSource):
    """Images of a litdata store; decoded when asked for.

    Args:
        index: Of the store.
        place: Where its chunks are.
        where: The store's name, for messages.
        known: Labels, or None.
        reader: How files become images.
        damage_limit: So many damaged samples are replaced.
        lanes, window: Of the order.
    """

    in_memory = False
    image_size: Side | None = None

    def __init__(
        self,
        index: Index,
        place: Place,
        where: str,
        known: Known | None,
        reader: Reader,
        damage_limit: int,
        lanes: int,
        window: int,
    ) -> None:
        self.index = index
        self.place = place
        self.where = where
        self.labels = None if known is None else known.labels
        self.classes = None if known is None else known.classes
        self.reader = reader
        self.resolved = reader.resolved
        self.decisions = list(reader.decisions)
        self.white = reader.range.white
        self.channels = reader.channels
        self.damage_limit = damage_limit
        sizes = torch.from_numpy(np.diff(index.ends, prepend=0))
        number = torch.arange(len(sizes), dtype=torch.int32).repeat_interleave(sizes)
        self.shards: Shards | None = Shards(number, lanes, window)

    def __len__(self) -> int:
        return len(self.index)

    def load(self, index: int, shrink: Shrink | None = None) -> Tensor:
        content, name = self.encoded(index)
        return self.reader(content, name, shrink)

    def masked(self, index: int) -> tuple[Tensor, Tensor | None]:
        """A sample, and where it has no data: :meth:`ssl_zoo.data.image.decode.Reader.masked`."""
        return self.reader.masked(*self.encoded(index))

    def fingerprint(self) -> str:
        return digest("stream", self.index.version, numbers(self.labels))

    def encoded(self, index: int) -> tuple[bytes, str]:
        """The image file as it was written, and a name for it.

        Raises:
            DamagedFile: If the chunk is cut short or its table makes no sense there.
        """
        chunk, row = self.index.find(index)
        name = f"{self.where}/{self.index.names[chunk]}, sample {row}"
        try:
            return self.index.image(self.place.read(chunk, row)), name
        except (ValueError, struct.error, OSError) as error:
            raise DamagedFile(name, f"the chunk is damaged there ({error})") from None

    def fetch(self, index: Tensor) -> Tensor:
        raise TypeError("a stream is read with load(i): its images differ in size")

    def to(self, device: torch.device) -> Stream:
        return self


# Writing


def write_splits(splits: Splits, folder: str | Path, chunk_bytes: str | int = "64MB") -> None:
    """Write a store with ``train/`` and, if there is one, ``val/``; see :func:`write_stream`."""
    parts = {"train": splits.train, "val": splits.val}
    for part in parts:
        _check_new(Path(folder, part))
    for part, source in parts.items():
        if source is not None:
            write_stream(source, Path(folder, part), chunk_bytes)


def write_stream(source: Source, folder: str | Path, chunk_bytes: str | int = "64MB") -> None:
    """Write the samples of a source as a litdata store with labels.

    Samples stand in a fixed shuffled order, so that every chunk is a fair sample of the classes. Files are kept as
    they are; what lies in memory becomes PNG, or ``.npy`` if it is not 8 bits of grey or colour. Unreadable files are
    left out, up to the source's limit. The store appears under its name when it is complete.

    Args:
        source: Of any kind.
        folder: A new or empty one.
        chunk_bytes: Of a chunk; larger chunks mean fewer requests, and a larger cache.

    Raises:
        ConfigError: A folder that is not empty, a full disk, too many unreadable files.
    """
    folder = Path(folder).absolute()
    size = count_bytes("chunk_bytes", chunk_bytes)
    if size >= 2**32:
        raise ConfigError(f"chunk_bytes={chunk_bytes}: a chunk counts its bytes in 32 bits; wanted less than 4GB")
    _check_new(folder)
    aside = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(aside, ignore_errors=True)  # of a run that was ended
    try:
        aside.mkdir(parents=True)
        rows = _write_chunks(source, aside, size)
        if source.labels is not None:
            np.save(aside / LABELS, source.labels.cpu()[rows].numpy())
            (aside / CLASSES).write_text(json.dumps(source.classes))
        (aside / READING).write_text(json.dumps(_kept(source)))
        shutil.rmtree(folder, ignore_errors=True)  # empty, or it would have been refused
        aside.rename(folder)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written ({error}); free some space or choose another folder") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _check_new(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already and not empty; remove it, or choose another folder")


def _write_chunks(source: Source, folder: Path, size: int) -> Tensor:
    """Chunks and their index in ``folder``; returns ``[n]`` the positions that were written, in their order."""
    writer = litdata()[0].Cache(str(folder), chunk_bytes=size)
    damage = Damage(source.damage_limit, len(source), remedy="left out of the store")
    rows: list[int] = []
    for position in fixed_permutation(len(source)).tolist():
        try:
            image = _encoded(source, position)
        except DamagedFile as error:
            damage.add([(error.path, error.reason)])
        else:
            writer[len(rows)] = image
            rows.append(position)
    damage.tell()
    writer.done()
    writer.merge()
    return torch.tensor(rows)


def _encoded(source: Any, index: int) -> bytes:
    image_file = getattr(source, "image_file", None)
    stored: bytes | None = None if image_file is None else image_file(index)
    if stored is not None:
        return stored
    path = getattr(source, "path", None)
    if path is None:
        pixels, out = source.load(index).permute(1, 2, 0).numpy(), io.BytesIO()
        if pixels.dtype == np.uint8 and source.channels in (1, 3):
            Image.fromarray(pixels if source.channels == 3 else pixels[..., 0]).save(out, "PNG")
        else:
            np.save(out, pixels)
        return out.getvalue()
    try:
        content = Path(path(index)).read_bytes()
    except OSError as error:
        raise DamagedFile(path(index), str(error)) from None
    source.reader(content, path(index), lambda height, width: 8)  # damaged? Eight times smaller tells too
    return content


def _kept(source: Any) -> dict[str, Any]:
    """What the store must say, so that its files become the same images."""
    if hasattr(source, "path") or getattr(source, "image_file", lambda index: None)(0) is not None:
        return source.reader.kept()
    found = range_of(source)  # of images as they travel
    found = Range(0.0, 1.0, False) if found.dtype is np.float32 else Range(0, found.white)
    return Reader(source.channels, found).kept()
