"""Ways in which a file is damaged: on a disk, on a line, by a program that was killed."""

from __future__ import annotations

import random


def flipped(data: bytearray, rng: random.Random) -> None:
    """One to eight bits."""
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def cut(data: bytearray, rng: random.Random) -> None:
    """The end is missing."""
    del data[rng.randrange(len(data)) :]


def swapped(data: bytearray, rng: random.Random) -> None:
    """Two pieces have changed places."""
    size = rng.randint(1, min(512, len(data) // 2))
    a, b = sorted(rng.sample(range(0, len(data) - size + 1), 2))
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def zeroed(data: bytearray, rng: random.Random) -> None:
    """A block that was never written."""
    size = rng.randint(1, min(4096, len(data)))
    at = rng.randrange(len(data) - size + 1)
    data[at : at + size] = bytes(size)


def ended(data: bytearray, rng: random.Random) -> None:
    """Bits in the last kilobytes, where archives keep their directory."""
    for _ in range(rng.randint(1, 4)):
        data[-1 - rng.randrange(min(4096, len(data)))] ^= 1 << rng.randrange(8)


WAYS = (flipped, cut, swapped, zeroed, ended)


def damaged(content: bytes, seed: int) -> bytes:
    """The same damage for the same seed."""
    data = bytearray(content)
    WAYS[seed % len(WAYS)](data, random.Random(seed))
    return bytes(data)
