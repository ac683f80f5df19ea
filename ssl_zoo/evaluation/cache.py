"""Features that were extracted once are kept in the run folder for the next protocol."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ssl_zoo.distributed import broadcast_object, is_main
from ssl_zoo.features import Features
from ssl_zoo.samples import leaves, select

FIRST = 16  # samples of the key: few, so that the share of one of several processes begins with them too


def sha256(path: Path) -> str:
    """Digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**24):
            digest.update(piece)
    return digest.hexdigest()


def fingerprint(loader: Iterable[Any], **facts: Any) -> str:
    """Key of cached features: ``facts`` (checkpoint, data, split, device) and the first samples as a network sees them.

    Their numbers stand for what the configuration cannot tell: size, normalisation and evaluation view as really
    applied, and files that were replaced under the same name.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    view, label, index = next(iter(loader))
    first = select(view, torch.arange(min(FIRST, len(index)), device=leaves(view)[0].device))
    for part in (*leaves(first), index[:FIRST], *([] if label is None else [label[:FIRST]])):
        digest.update(str((part.dtype, tuple(part.shape))).encode())
        digest.update(part.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:24]


def cached(folder: Path | None, key: str, make: Callable[[], Features]) -> Features:
    """``make()``, or what it gave the last time under this ``key``; ``folder=None`` switches the cache off.

    Of several processes the main one looks and writes.
    """
    if folder is None:
        return make()
    file = folder / f"{key}.safetensors"
    if broadcast_object(file.is_file()):
        return Features(**load_file(file))
    made = make()
    if not is_main():
        return made
    folder.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")  # renamed when complete: a killed run leaves no half cache
    save_file({name: value.contiguous() for name, value in made._asdict().items()}, part)
    part.replace(file)
    return made
