"""Random numbers as a pure function of (seed, stream, epoch, slot, name, element): no state, any split of the batch.

A draw walks a path of names; every step mixes a static 64-bit hash of the name into a key with the finaliser of
SplitMix64 (Steele, Lea, Flood 2014, https://doi.org/10.1145/2714064.2660195). The slot of a sample and the position of
an element enter as counters. All arithmetic is on int64 tensors that wrap around, so the bits are the same on every
device, and the key is a tensor, so that ``torch.compile`` sees an input where a Python integer would be a constant.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ssl_zoo.augmentations.accelerated import kernels_for
from ssl_zoo.device import to_device


def _signed(value: int) -> int:
    """The int64 with the low 64 bits of ``value``."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


GOLDEN = _signed(0x9E3779B97F4A7C15)   # 2^64 / golden ratio: the step of SplitMix64's counter
STRIDE = _signed(0xD1342543DE82EF95)   # another odd step (Steele & Vigna 2021), for elements within a row
MASK = (1 << 64) - 1
FIRST = _signed(0xBF58476D1CE4E5B9)
SECOND = _signed(0x94D049BB133111EB)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift; ``>>`` of a signed tensor would copy the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    """The finaliser of SplitMix64: every bit of the result depends on every bit of ``z``."""
    z = (z ^ _shift(z, 30)) * FIRST
    z = (z ^ _shift(z, 27)) * SECOND
    return z ^ _shift(z, 31)


def _mix_number(z: int) -> int:
    """:func:`_mix` of a Python number: a hundred times as fast as eleven operations on a tensor without dimensions."""
    z &= MASK
    z = ((z ^ (z >> 30)) * (FIRST & MASK)) & MASK
    z = ((z ^ (z >> 27)) * (SECOND & MASK)) & MASK
    return _signed(z ^ (z >> 31))


def _next(key: Tensor | int, name: Hashable) -> Tensor | int:
    """The key one name further. A tensor where code is compiled, which would hold a Python number for good."""
    if torch.compiler.is_compiling():
        return _mix(key + _hash(name))   # type: ignore[arg-type]
    return _mix_number(int(key) + _hash(name))


@cache
def _digest(text: str) -> int:
    return _signed(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))


def _hash(name: Hashable) -> int:
    """A 64-bit constant for a name; Python's own ``hash`` changes from process to process."""
    return _digest(repr(name))


# What torch.compiler.assume_constant_result sets: compiled code holds the constant. Set by hand because that
# decorator imports the whole compiler.
_hash._dynamo_marked_constant = True   # type: ignore[attr-defined]


def stream_key(seed: int, stream: str, epoch: int) -> Tensor:
    """The key of one pass over the data: 0-d int64 on the CPU.

    Args:
        seed: any integer.
        stream: names the pass ("train", "bank", ...): passes with different names share no numbers.
        epoch: counts from 0.
    """
    return _mix(torch.tensor(_hash(("stream", int(seed), stream))) + torch.tensor(int(epoch) + 1) * GOLDEN)


class Draw:
    """Named random numbers of one place in the program, one row for each slot.

    Args:
        key: 0-d int64 on the CPU, from :func:`stream_key`; or the number in it.
        slot: ``[B]`` int64, position of each sample in the epoch's global order; None for a draw that the whole global
            batch shares, which has no leading dimension.
        device: of a shared draw; a draw with slots lives where they do.
    """

    def __init__(self, key: Tensor | int, slot: Tensor | None, device: torch.device | str | None = None,
                 reports: dict[str, Tensor] | None = None, path: str = "", counter: Tensor | None = None):
        self.key = key
        self.slot = slot
        self._counter = counter
        self.device = torch.device(device or "cpu") if slot is None else slot.device
        self.reports: dict[str, Tensor] = {} if reports is None else reports
        self.path = path

    def child(self, name: Hashable, path: str | None = None) -> Draw:
        """A draw independent of this one and of every child with another name; ``path`` prefixes what it reports."""
        path = self.path if path is None else path
        return Draw(_next(self.key, name), self.slot, self.device, self.reports, path, self._rows())

    def in_common(self, rows: int) -> Draw:
        """The same place with one draw for every ``rows`` samples in a row of the epoch's global order."""
        if self.slot is None or rows == 1:
            return self
        return Draw(self.key, self.slot // rows, reports=self.reports, path=self.path)

    def spread(self, parts: int) -> Draw:
        """The same place with ``[B * parts]`` slots, one for each part of every sample; it reports apart."""
        if self.slot is None:
            return self
        return Draw(self.key, (self.slot.unsqueeze(1) * parts + torch.arange(parts, device=self.device)).flatten())

    def _rows(self) -> Tensor | None:
        """``[B]`` what the slots add to a key: one multiplication for all draws of a batch."""
        if self._counter is None and self.slot is not None:
            self._counter = (self.slot + 1) * GOLDEN
        return self._counter

    def uniform(self, name: Hashable, *shape: int) -> Tensor:
        """``[B, *shape]`` float32 in [0, 1), 24 bits."""
        return self._bits("uniform", name, shape, uniform=True)

    def normal(self, name: Hashable, *shape: int) -> Tensor:
        """``[B, *shape]`` float32, mean 0, variance 1 (Box-Muller in float64, so that devices agree after rounding)."""
        pair = _shift(self._bits("normal", name, (*shape, 2)), 11).to(torch.float64) * 2.0**-53
        radius = (-2.0 * torch.log1p(-pair[..., 0])).sqrt()
        return (radius * torch.cos(2.0 * math.pi * pair[..., 1])).to(torch.float32)

    def integers(self, name: Hashable, high: int, *shape: int) -> Tensor:
        """``[B, *shape]`` int64 in [0, high), for 1 <= high <= 2^31."""
        if not 1 <= high <= 1 << 31:
            raise ValueError(f"integers({name!r}): high is {high}, it must lie in [1, 2^31]")
        return (_shift(self._bits("integers", name, shape), 32) * high) >> 32

    def permutation(self, n: int, name: Hashable = "") -> Tensor:
        """``[B, n]`` int64: a permutation of 0..n-1 for each row, each of the n! equally likely."""
        return self._bits("permutation", name, (n,)).argsort(dim=-1, stable=True)

    def _named_permutation(self, name: Hashable, n: int) -> Tensor:
        return self.permutation(n, name)

    def report(self, name: str, tensor: Tensor) -> None:
        """Tell the method what was drawn (crop boxes, permutations); it finds it in ``batch.extra``."""
        self.reports[f"{self.path}/{name}" if self.path else name] = tensor

    def _bits(self, kind: str, name: Hashable, shape: tuple[int, ...], uniform: bool = False) -> Tensor:
        """``[B, *shape]`` int64; or, in the same launch on a GPU, their first 24 as ``uniform`` float32."""
        key, rows, count = _next(self.key, (kind, name)), self._rows(), math.prod(shape)
        if rows is not None and (kernels := kernels_for(rows)) is not None:
            return kernels.random(rows, int(key), count, uniform).view(len(rows), *shape)
        element = torch.arange(1, count + 1, device=self.device) * STRIDE     # [n]
        if rows is None:
            bits = _mix(element + key).view(shape)
        else:
            bits = _mix(_mix(rows + key).unsqueeze(-1) + element).view((len(rows), *shape))
        return _shift(bits, 40).to(torch.float32) * 2.0**-24 if uniform else bits


class Rows:
    """Draws for one row at a time, made for all rows of a batch at once.

    A worker that changes images one by one would spend more on the overhead of hashing single numbers than on a crop.

    Args:
        draw: of all rows.
    """

    LARGE = 4096   # numbers a row from which on the overhead does not matter: pixels of noise

    def __init__(self, draw: Draw):
        self.draw = draw
        self._children: dict[Hashable, Rows] = {}
        self._made: dict[Hashable, Tensor] = {}

    def _slots(self) -> Tensor:
        assert self.draw.slot is not None
        return self.draw.slot

    def row(self, i: int) -> Draw:
        """Equal to the draw of slot ``i`` alone."""
        return _RowDraw(self, i, {}, "")

    def child(self, name: Hashable) -> Rows:
        if name not in self._children:
            self._children[name] = Rows(self.draw.child(name))
        return self._children[name]

    def made(self, kind: str, row: int, name: Hashable, *numbers: int) -> Tensor:
        """Row ``row`` of what the method ``kind`` of a draw gives, ``[1, ...]``."""
        if math.prod(numbers[kind == "integers":]) > self.LARGE:   # an integer's first number is its bound
            return getattr(Draw(self.draw.key, self._slots()[row:row + 1]), kind)(name, *numbers)
        key = (kind, name, numbers)
        if key not in self._made:
            self._made[key] = getattr(self.draw, kind)(name, *numbers)
        return self._made[key][row:row + 1]


class _RowDraw(Draw):
    def __init__(self, rows: Rows, row: int, reports: dict[str, Tensor], path: str):
        super().__init__(rows.draw.key, rows._slots()[row:row + 1], reports=reports, path=path)
        self.rows, self.row = rows, row

    def child(self, name: Hashable, path: str | None = None) -> Draw:
        return _RowDraw(self.rows.child(name), self.row, self.reports, self.path if path is None else path)

    def uniform(self, name: Hashable, *shape: int) -> Tensor:
        return self.rows.made("uniform", self.row, name, *shape)

    def normal(self, name: Hashable, *shape: int) -> Tensor:
        return self.rows.made("normal", self.row, name, *shape)

    def integers(self, name: Hashable, high: int, *shape: int) -> Tensor:
        return self.rows.made("integers", self.row, name, high, *shape)

    def permutation(self, n: int, name: Hashable = "") -> Tensor:
        return self.rows.made("_named_permutation", self.row, name, n)


class BatchRNG:
    """The draws of one micro-batch.

    Args:
        seed: of the run.
        epoch: counts from 0.
        micro: position of the micro-batch in the epoch.
        slot: ``[B]`` int64 on the CPU, position of each sample in the epoch's global order.
        stream: names the pass over the data.
        device: where the draws lie; None: where ``slot`` does.
    """

    def __init__(self, seed: int, epoch: int, micro: int, slot: Tensor, stream: str = "train",
                 device: torch.device | str | None = None):
        self.key = stream_key(seed, stream, epoch)
        self.micro = torch.tensor(micro)
        self.slot = to_device(slot, device or slot.device)
        self._host_slot = slot

    @property
    def host(self) -> BatchRNG:
        """The same draws on the CPU, for what decides a shape or a count: a device would have to be waited for."""
        rng = copy.copy(self)
        rng.slot = self._host_slot
        return rng

    def sample(self, name: Hashable) -> Draw:
        """One row for each sample, whatever batch or process it sits in."""
        return Draw(self.key, self.slot).child(("sample", name))

    def shared(self, name: Hashable) -> Draw:
        """One draw for the whole global micro-batch, equal on all processes, on the device of the slots."""
        key = _mix(self.key + (self.micro + 1) * GOLDEN)
        return Draw(key, None, self.slot.device).child(("shared", name))


class RecordedDraw(Draw):
    """Given numbers instead of drawn ones, for tests and recorded cases.

    Args:
        values: name to tensor, or to a mapping (or RecordedDraw) for a child of that name.
    """

    def __init__(self, values: Mapping[Any, Any]):
        super().__init__(torch.tensor(0), None)
        self.values = values

    def _value(self, name: Hashable) -> Any:
        if name not in self.values:
            raise LookupError(f"no recorded draw {name!r}; recorded are {sorted(map(repr, self.values))}")
        return self.values[name]

    def child(self, name: Hashable, path: str | None = None) -> Draw:
        value = self._value(name)
        return value if isinstance(value, Draw) else RecordedDraw(value)

    def uniform(self, name: Hashable, *shape: int) -> Tensor:
        return self._value(name)

    def normal(self, name: Hashable, *shape: int) -> Tensor:
        return self._value(name)

    def integers(self, name: Hashable, high: int, *shape: int) -> Tensor:
        return self._value(name)

    def permutation(self, n: int, name: Hashable = "") -> Tensor:
        return self._value(name)


class RecordedRNG(BatchRNG):
    """A :class:`BatchRNG` whose draws were written down.

    Args:
        sample, shared: name to :class:`RecordedDraw` (or to a mapping of its values).
    """

    def __init__(self, sample: Mapping[Any, Any] | None = None, shared: Mapping[Any, Any] | None = None):
        super().__init__(0, 0, 0, torch.zeros(0, dtype=torch.int64))
        self._sample, self._shared = RecordedDraw(sample or {}), RecordedDraw(shared or {})

    def sample(self, name: Hashable) -> Draw:
        return self._sample.child(name)

    def shared(self, name: Hashable) -> Draw:
        return self._shared.child(name)
