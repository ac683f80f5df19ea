"""Numbers that come out of files are bounded before memory is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from ssl_zoo import renamed
from ssl_zoo.data.batch import DataInfo
from ssl_zoo.errors import ConfigError
from ssl_zoo.sides import WORDS, is_side

MOST = 1 << 53  # of any whole number: what a double holds
# Largest values of settings that decide how much memory or how many processes an evaluation takes.
LIMITS = {
    "image_size": 4096, "size": 4096, "channels": 4096, "in_channels": 1024, "batch_size": 1 << 20, "workers": 1024,
    "devices": 4096, "num_nodes": 1 << 16, "accumulate": 1 << 20,
}  # fmt: skip
FACTS = 1 << 16  # values of a fact: the columns of a table, the words of a vocabulary
AUGMENTATION = 1 << 16  # of whole numbers in a view: pixels, counts, bits
TENSOR, TENSORS = 64 << 20, 512 << 20  # bytes that a network may always take: the largest tensor, all that are made
# Operations while a network is built: always, and for each tensor of the checkpoint, of which methods take at most 7.
STEPS, STEPS_EACH = 5_000, 50


def number_problem(path: str, value: int) -> str | None:
    """What is wrong with a whole number at a place of a stored configuration; None: nothing."""
    name = path.rstrip(".0123456789").rpartition(".")[2]  # of a list too
    limit = AUGMENTATION if ".augmentation." in f".{path}." else MOST
    limit = min(limit, LIMITS.get(name, limit))
    return None if abs(value) <= limit else f"is {str(value)[:40]}, and a file may ask for at most {limit}"


def data_info(found: Any, where: str) -> DataInfo:
    """What a checkpoint says of its data: whole numbers of at least 1, and facts in plain values."""
    names = [field.name for field in fields(DataInfo)]
    found = renamed.current_info(found) if isinstance(found, Mapping) else {}
    if {*found} != {*names} or not isinstance(found["facts"], Mapping):
        raise ConfigError(f"{where}: does not say of which data it is; the file is damaged or was changed")
    facts = {key: tuple(value) if isinstance(value, list) else value for key, value in found["facts"].items()}
    names.remove("facts")
    problems = {key: _whole_problem(key, found[key]) for key in names}
    problems |= {key: _fact_problem(key, value) for key, value in facts.items()}
    for key, problem in problems.items():
        if problem and not (key == "classes" and found[key] is None):
            raise ConfigError(f"{where}: data_info.{key} {problem}")
    return DataInfo(**{key: found[key] for key in names}, facts=facts)


def _fact_problem(key: str, value: Any) -> str | None:
    """Words and numbers, and lists of them."""
    several = value if isinstance(value, (list, tuple)) else [value]
    if len(several) > FACTS:
        return f"has {len(several):,} values, and a file may have at most {FACTS:,}"
    if key in LIMITS and not is_side(value):  # what decides how much memory an evaluation takes
        return _whole_problem(key, value) or f"is {str(value)[:40]!r}, wanted {WORDS}"
    numbers = (one for one in several if not isinstance(one, (str, float, bool)) and value is not None)
    return next((told for one in numbers if (told := _whole_problem(key, one))), None)


def _whole_problem(key: str, value: Any) -> str | None:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    return number_problem(key, value) if whole else f"is {str(value)[:40]!r}, wanted a whole number"


class Budget(TorchDispatchMode):
    """Refuse tensors that a checkpoint cannot need, before they are made, while its network is built.

    A network is as large as its weights in the file: a tensor of twice the largest of them, or eight times all of them
    together, belongs to no network that could be filled from it.

    Args:
        state: The tensors of the checkpoint.
        where: What to call the file in messages.
    """

    def __init__(self, state: Mapping[str, Any], where: str) -> None:
        super().__init__()
        sizes = [value.untyped_storage().nbytes() for value in state.values() if isinstance(value, Tensor)]
        self.where = where
        self.largest = max(TENSOR, 2 * max(sizes, default=0))
        self.left = max(TENSORS, 8 * sum(sizes))
        self.steps = STEPS + STEPS_EACH * len(sizes)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.steps -= 1
        if self.steps < 0:
            raise self._refused("more layers than there are weights in it")
        if not func._schema.is_mutable and not func.is_view:
            self._count(func, args, kwargs)
        return func(*args, **kwargs)

    def _count(self, func: Any, args: Any, kwargs: Any) -> None:
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        numbers = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, int)]
        if given and max(map(abs, numbers), default=0) < 1 << 16 and sum(x.numel() for x in given) < 1 << 20:
            return  # nothing that these could be made into is worth counting
        size = _size(func, args, kwargs, bool(given))
        if size > self.largest:
            raise self._refused(f"a tensor of {size:,} bytes, {self.largest:,} at most")
        self.left -= 0 if given else size
        if self.left < 0:
            raise self._refused("more weights than there are in it")

    def _refused(self, what: str) -> ConfigError:
        return ConfigError(f"{self.where}: its configuration asks for {what}: it is not of this file, or was changed")


def _size(func: Any, args: Any, kwargs: Any, given: bool) -> int:
    """Bytes of what an operation will make, found without making it; 0 where that cannot be known."""
    if given:
        args, kwargs = tree_map_only(Tensor, lambda x: torch.empty_strided(x.size(), x.stride(), dtype=x.dtype,
                                                                         device="meta"), (args, kwargs))
    elif not any(argument.name == "device" for argument in func._schema.arguments):
        return 0
    kwargs = {**kwargs, **({"device": torch.device("meta")} if "device" in kwargs or not given else {})}
    kwargs |= {key: None for key in ("generator", "pin_memory") if key in kwargs}  # of the CPU
    try:
        made = func(*args, **kwargs)
    except NotImplementedError:  # its size depends on values (nonzero, unique): never more than what it was given
        return 0
    return sum(x.numel() * x.element_size() for x in tree_leaves(made) if isinstance(x, Tensor))
