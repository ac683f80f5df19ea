"""The data fingerprint: a few bytes that tell whether a run that goes on still sees the data that it began with.

A digest is the same on every machine, in every process and with every version of Python, and does not depend on where
the data lies. What each kind of source puts into it:

- folder: the number of images, their relative names in the order of the samples (which is sorted), the labels, and the
  sizes in bytes of 1,024 files that follow from the names (of all, if there are fewer), and the first 64 KiB of 32 of
  these. **An edit in place goes unseen if the file is not among the 1,024, or if it leaves the size as it was and the
  file is not among the 32.** Nothing but these files is touched.
- table: the same; several roots: also the position of the first sample of each.
- pack: the checksum, size, height and width of each sample, and the labels.
- stream: its index (names, sizes and counts of the chunks), and the labels.
- arrays: the pixels as they are stored, all of them up to 512 MiB, else 4,096 rows spread evenly, and the labels.
- a source without ``fingerprint()``: number, labels, and 4,096 rows of one in memory; files without names go unseen.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_zoo.samples import leaves

WHOLE = 512 * 2**20  # bytes of an array up to which all of it is read
ROWS = 4096  # of a larger one
FILES = 1024  # whose sizes are asked for

Block = str | np.ndarray


def digest(*parts: Block) -> str:
    """32 hex digits of words and arrays; each with its length, so that none can run into the next."""
    found = blake2b(digest_size=16)
    for part in parts:
        block = memoryview(part.encode()) if isinstance(part, str) else np.ascontiguousarray(part).data
        found.update(block.nbytes.to_bytes(8, "little"))
        found.update(block)
    return found.hexdigest()


def of(source: Any) -> str:
    """Fingerprint of a source of any kind, also of one that has no ``fingerprint()``."""
    own = getattr(source, "fingerprint", None)
    if own is not None:
        return str(own())
    head = ["source", str(len(source)), numbers(source.labels)]
    if not source.in_memory or not len(source):
        return digest(*head)
    parts = leaves(source.fetch(spread(len(source))))
    said = [block for x in parts for block in (str(x.dtype), str(list(x.shape)), content(x))]
    return digest(*head, *said)


def numbers(labels: Tensor | None) -> Block:
    """``[N]`` integers as bytes that every machine has alike; None as a word."""
    return "none" if labels is None else labels.cpu().numpy().astype("<i8")


def sampled(images: Tensor) -> Tensor:
    """``[N, ...]`` if that is at most 512 MiB, else 4,096 of its rows."""
    return images if images.numel() * images.element_size() <= WHOLE else images[spread(len(images)).to(images.device)]


def content(images: Tensor) -> np.ndarray:
    """The bytes of a tensor, row by row."""
    return images.cpu().contiguous().flatten().view(torch.uint8).numpy()


def spread(n: int, count: int = ROWS) -> Tensor:
    """At most ``count`` positions below ``n``, evenly spread, the first among them."""
    return torch.arange(n) if n <= count else torch.arange(count) * n // count


def chosen(names: str, n: int, count: int = FILES) -> list[int]:
    """At most ``count`` positions below ``n`` that follow from the digest of the names, in increasing order."""
    if n <= count:
        return list(range(n))
    draws = np.random.RandomState(int(names[:8], 16))  # NumPy keeps this legacy stream for good
    return sorted(draws.permutation(n)[:count].tolist())


def changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """What differs between two fingerprints of a data module, as a part of a sentence; None: nothing.

    Args:
        old, new: As ``DataModule.fingerprint()`` gives them. Where the data lies is not compared.
    """
    parts = [_differs(old[name], new[name], kind) for name, kind in (("train", "training"), ("val", "validation"))]
    return "; ".join(part for part in parts if part) or None


def _differs(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None, kind: str) -> str | None:
    before, now = (0 if part is None else int(part["samples"]) for part in (old, new))
    if before != now:
        return f"{_images(before, kind)} at the start of the run, {f'{now:,}' if now else 'none'} now"
    if old is None or new is None or old["digest"] == new["digest"]:
        return None
    return f"{_images(now, kind)} as before, but others (names, labels or sizes differ)"


def _images(n: int, kind: str) -> str:
    return f"{f'{n:,}' if n else 'no'} {kind} image{'' if n == 1 else 's'}"


def place(root: Any) -> Any:
    """Where data lie, as every process sees it: a folder as an absolute path, an URL as it is, several as a list."""
    if isinstance(root, list):
        return [place(one) for one in root]
    return root if root is None or "://" in str(root) else os.path.abspath(os.path.expanduser(str(root)))
