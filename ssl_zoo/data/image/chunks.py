"""Where the chunks of a litdata store are: in a folder, or elsewhere and then in a bounded cache of this node."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import struct
import tempfile
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from ssl_zoo.errors import ConfigError

INDEX = "index.json"
ENCODED = ("bytes", "jpeg")  # what litdata calls items that are stored as an image file's content
ARROW = b"LDARW01\0"  # the end of a chunk that is an Arrow table
PAUSES = (2.0, 10.0, 30.0)  # seconds before a download is tried again
TURNS = 3000  # attempts to find room in the cache while other processes fill it
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def count_bytes(name: str, value: str | int) -> int:
    """``"64MB"`` -> 64,000,000; units are decimal, as litdata's are."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B?)", str(value).strip().upper())
    if not found or found[2] not in UNITS or float(found[1]) <= 0:
        raise ConfigError(f"{name}={value}: wanted a number of bytes such as 500MB or 100GB")
    return int(float(found[1]) * UNITS[found[2]])


def litdata() -> Any:
    try:
        from litdata import streaming
        from litdata.streaming import downloader
    except ImportError:
        raise ConfigError("data=stream needs the package litdata: pip install ssl_zoo[stream]") from None
    return streaming, downloader


@lru_cache(maxsize=8)
def _client(scheme: str, process: int) -> Any:
    """litdata's downloader for URLs of a kind; one for each process, because none survives a fork."""
    url = f"{scheme}://" if scheme else ""
    try:
        return litdata()[1].get_downloader(url, "", [], _patience(scheme))
    except ModuleNotFoundError as error:  # of the object store's own client
        raise ConfigError(f"data.root={url}...: {' '.join(map(str, error.args))}") from None


def _patience(scheme: str) -> dict[str, Any]:
    """Options of the S3 client: litdata lets it try a thousand times, and nobody would hear why nothing moves."""
    if scheme != "s3":
        return {}
    from botocore.config import Config

    return {"config": Config(retries={"max_attempts": 4, "mode": "standard"}, connect_timeout=10)}


def read_small(base: str, name: str) -> bytes | None:
    """Content of a small file of a store, whole and never from a cache; None if it is not there."""
    try:
        if "://" not in base:
            return Path(base, name).read_bytes()
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder, name)
            _download(f"{base}/{name}", local)
            return local.read_bytes()
    except ConfigError:
        raise
    except Exception as error:  # whatever the client of the object store raises
        if _missing(error):
            return None
        raise ConfigError(
            f"{base}/{name} cannot be read ({type(error).__name__}: {error}); check data.root, the connection and the "
            "credentials of this machine"
        ) from None


def _download(url: str, path: Path) -> None:
    """``url`` into a new file.

    litdata's ``download_file`` prefers obstore, whose threads no worker survives that is forked after them, and which
    refuses S3 servers without TLS; ``download_fileobj`` is the object store's own client.
    """
    client = _client(url.partition("://")[0] if "://" in url else "", os.getpid())
    with path.open("wb") as file:
        client.download_fileobj(url, file)
    if not path.stat().st_size:  # for folders litdata has only the other
        path.unlink()
        client.download_file(url, str(path))


def _missing(error: Exception) -> bool:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return True
    return bool(re.search(r"\b404\b|NoSuchKey|NotFound|Not Found|does not exist", f"{type(error).__name__}: {error}"))


class Index:
    """What ``index.json`` says: the chunks, and where in an item the image is.

    Args:
        name: Of the file, for messages.
        content: The file.
    """

    def __init__(self, name: str, content: bytes) -> None:
        try:
            found = json.loads(content)
            stored = found["chunks"] or []
            self.names = [str(chunk["filename"]) for chunk in stored]
            self.bytes = [int(chunk["chunk_bytes"]) for chunk in stored]
            sizes = [int(chunk["chunk_size"]) for chunk in stored]
            self.ends = np.cumsum(sizes, dtype=np.int64)
            config = found["config"] or {}
            formats = list(config.get("data_format") or [])
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ConfigError(f"{name} is no index of a litdata store ({type(error).__name__}: {error})") from None
        if not self.names or not self.ends[-1]:
            raise ConfigError(f"{name}: the store is empty")
        # An item has at least four bytes, by which a number of samples that is made up is told before it takes memory.
        if any(not 0 <= 4 * n <= size for n, size in zip(sizes, self.bytes, strict=True)):
            raise ConfigError(f"{name}: it counts more samples than its chunks have room for; write the store again")
        strange = next((found for found in self.names if not re.fullmatch(r"chunk-[\w.-]+\.bin", found)), None)
        if strange is not None:  # never a path that leads out of the cache
            raise ConfigError(f"{name}: a chunk is called {strange!r}; wanted chunk-....bin, as litdata calls them")
        images = [i for i, kind in enumerate(formats) if kind in ENCODED]
        packed = [key for key in ("compression", "ipc_compression", "encryption") if config.get(key)]
        if len(images) != 1 or packed:
            raise ConfigError(
                f"{name}: items hold {formats}{''.join(f' with {key}' for key in packed)}; wanted exactly one image "
                f"file among them ({' or '.join(ENCODED)}), neither compressed nor encrypted"
            )
        self.leaf, self.leaves, self.kind = images[0], len(formats), str(formats[images[0]])
        self.version = hashlib.sha256(content).hexdigest()[:12]

    def __len__(self) -> int:
        """Samples."""
        return int(self.ends[-1])

    def find(self, sample: int) -> tuple[int, int]:
        """The chunk of a sample, and its row there."""
        chunk = int(np.searchsorted(self.ends, sample, side="right"))
        return chunk, sample - (int(self.ends[chunk - 1]) if chunk else 0)

    def image(self, item: bytes) -> bytes:
        """The leaf of an item that is the image: ``uint32`` sizes of all leaves stand before them."""
        sizes = struct.unpack_from(f"<{self.leaves}I", item)
        start = 4 * self.leaves + sum(sizes[: self.leaf])
        image = item[start : start + sizes[self.leaf]]
        if len(image) != sizes[self.leaf] or not image:
            raise ValueError(f"{len(image)} of {sizes[self.leaf]} bytes")
        return image


class InPlace:
    """Chunks of a local folder.

    Args:
        folder: Where they are.
        index: Which.
    """

    def __init__(self, folder: Path, index: Index) -> None:
        there = set(os.listdir(folder))
        absent = [name for name in index.names if name not in there]
        if absent:
            raise ConfigError(
                f"{folder} is not complete: {absent[0]} is missing, {len(absent)} of {len(index.names)} chunks in all; "
                "copy or write the store again"
            )
        self.folder = folder
        self.index = index

    def read(self, chunk: int, row: int) -> bytes:
        """An item; raises as :func:`read_item` does."""
        return read_item(self.folder / self.index.names[chunk], row, self.index.bytes[chunk])


class Cached:
    """Chunks that are downloaded when they are asked for, into a folder that all processes of a node share.

    A chunk is written beside its place and renamed; the folder of all parts of the store never holds more than
    ``limit`` bytes of chunks, those on their way included. What was not used for the longest time goes first; a chunk
    that another process was about to read is simply fetched again. No file is kept open: what is removed is gone.

    Args:
        url: Of the folder of the chunks.
        folder: Where they go.
        shelf: What is bounded: ``folder``, or a folder around it and those of the other parts.
        index: Which chunks there are.
        limit: Bytes; None: no limit.
    """

    def __init__(self, url: str, folder: Path, shelf: Path, index: Index, limit: int | None) -> None:
        litdata()  # what is missing is said at the start and not in a worker
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise _no_cache(folder, error) from None
        self.url = url
        self.folder = folder
        self.shelf = shelf
        self.index = index
        self.limit = limit

    def read(self, chunk: int, row: int) -> bytes:
        """An item; raises as :func:`read_item` does."""
        path = self.folder / self.index.names[chunk]
        for _ in range(TURNS):
            try:
                os.utime(path)  # last used now
                return read_item(path, row, self.index.bytes[chunk])
            except FileNotFoundError:  # not yet here, or another process has just made room
                self._fetch(chunk, path)
        raise self._too_small()

    def _fetch(self, chunk: int, path: Path) -> None:
        from filelock import FileLock

        part, claim = (path.with_name(f"{path.name}.{kind}") for kind in ("part", "claim"))
        try:
            with FileLock(f"{path}.lock"):
                if path.exists():
                    return
                try:
                    self._claim(claim, self.index.bytes[chunk])
                    self._bring(f"{self.url}/{path.name}", part, self.index.bytes[chunk])
                    with FileLock(self.shelf / ".lock"):  # whoever counts sees the claim or the chunk, never neither
                        part.replace(path)
                        claim.unlink()
                finally:
                    part.unlink(missing_ok=True)
                    claim.unlink(missing_ok=True)
        except OSError as error:
            raise _no_cache(self.folder, error) from None

    def _claim(self, claim: Path, size: int) -> None:
        """Make room and hold it with a file without content of the chunk's size."""
        from filelock import FileLock

        for _ in range(TURNS if self.limit is not None else 1):
            with FileLock(self.shelf / ".lock"):
                if self.limit is None or self._make_room(self.limit - size):
                    with claim.open("wb") as file:
                        file.truncate(size)
                    return
            time.sleep(0.1)
        raise self._too_small()

    def _too_small(self) -> ConfigError:
        return ConfigError(
            f"data.source.max_cache_size={self.limit} bytes in {self.shelf} are taken by the chunks that other "
            "processes read; raise it, or lower data.workers"
        )

    def _make_room(self, limit: int) -> bool:
        """Remove chunks until ``limit`` bytes are left at most; whether that was possible."""
        held = sorted(self._held())
        total = sum(size for _, size, _ in held)
        for _, size, path in held:
            if total <= limit:
                break
            if path.suffix != ".claim":
                path.unlink(missing_ok=True)
                total -= size
        return total <= limit

    def _held(self) -> Iterator[tuple[float, int, Path]]:
        """(last used, bytes, file) of all chunks and claims of running processes."""
        for path in self.shelf.rglob("chunk-*"):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            if path.suffix == ".claim" and _abandoned(path):
                for left in (path, *path.parent.glob(f"{path.stem}.part*")):
                    left.unlink(missing_ok=True)
            elif path.suffix in (".bin", ".claim"):
                yield stat.st_mtime, stat.st_size, path

    def _bring(self, url: str, part: Path, size: int) -> None:
        """``url`` into ``part``; tried again where it failed or came short."""
        for pause in (*PAUSES, None):
            part.unlink(missing_ok=True)
            try:
                _download(url, part)
                if part.stat().st_size == size or pause is None:
                    return  # a chunk that is short in the store too holds damaged samples, and others
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
                    raise
                self._give_up(url, error, pause)
            except Exception as error:  # whatever the client of the object store raises
                self._give_up(url, error, pause)
            time.sleep(pause or 0)

    @staticmethod
    def _give_up(url: str, error: Exception, pause: float | None) -> None:
        if _missing(error):
            raise ConfigError(f"{url} is missing: the store is not complete; write or upload it again") from None
        if pause is None:
            raise ConfigError(
                f"{url} cannot be fetched ({type(error).__name__}: {error}), tried {len(PAUSES) + 1} times; check the "
                "connection, then continue with resume=auto"
            ) from None


Place = InPlace | Cached


def _abandoned(claim: Path) -> bool:
    """Whether the process that made a claim is gone: the system has then released its lock."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(f"{claim.with_suffix('')}.lock", timeout=0):
            return True
    except Timeout:
        return False


def _no_cache(folder: Path, error: OSError) -> ConfigError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(folder).free
        return ConfigError(
            f"the disk of the cache {folder} is full ({error.strerror}, {free // 10**6} MB are free); lower "
            "data.source.max_cache_size, or set data.source.cache to a folder on another disk"
        )
    return ConfigError(f"the cache {folder} cannot be written ({error}); set data.source.cache to a folder that can be")


def read_item(path: Path, row: int, size: int) -> bytes:
    """Bytes of an item: ``uint32`` count, count + 1 ``uint32`` places of the items, then the items; little endian.

    Args:
        path: Of the chunk.
        row: Of the item in it.
        size: What the chunk's bytes should be.

    Raises:
        ValueError, struct.error: If the chunk is cut short, or its table makes no sense there.
    """
    with path.open("rb", buffering=0) as file:
        file.seek(4 * (1 + row))
        start, end = struct.unpack("<II", file.read(8))
        if not start < end <= size:
            raise ValueError(f"its table says bytes {start} to {end} of {size}{_by_arrow(file, size)}")
        file.seek(start)
        item = file.read(end - start)
    if len(item) < end - start:
        raise ValueError(f"{len(item)} of {end - start} bytes")
    return item


def _by_arrow(file: IO[bytes], size: int) -> str:
    """What is told of a chunk that litdata wrote as an Arrow table, which it does to dicts where pyarrow is there."""
    file.seek(max(size - len(ARROW), 0))
    told = ": litdata wrote an Arrow table, which is not read here; give it tuples instead of dicts"
    return told if file.read(len(ARROW)) == ARROW else ""
