"""Batches of samples and views of any kind: tensors, or small dataclasses of them.

Everything that cuts, joins, moves or shuffles a batch does it through this module, so that nothing else asks what a
sample is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

V = TypeVar("V", bound="View")


@dataclass
class View:
    """Base of views that are no single tensor: sequences of unequal length, graphs.

    A subclass is a dataclass whose fields are tensors, other views, or plain values. It says how many samples it holds
    (``__len__``), which of them a part has (:meth:`select`), and how several become one (:meth:`concat`).
    """

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must say how many samples it holds: define __len__")

    def select(self: V, index: Tensor) -> V:
        """The samples ``index`` ``[n]`` int64, in that order."""
        raise NotImplementedError(f"{type(self).__name__} must define select(index)")

    @classmethod
    def concat(cls: type[V], views: Sequence[V]) -> V:
        """The samples of all ``views``, one after the other."""
        raise NotImplementedError(f"{cls.__name__} must define concat(views)")

    def mapped(self: V, change: Callable[[Tensor], Tensor]) -> V:
        """The same with ``change`` done to every tensor in it."""
        values = {item.name: _mapped(getattr(self, item.name), change) for item in fields(self)}
        return type(self)(**values)

    def to(self: V, *args: Any, **kwargs: Any) -> V:
        """As of a tensor; a dtype touches floating fields only."""
        device, dtype, blocking, layout = torch._C._nn._parse_to(*args, **kwargs)
        if layout is not None:
            raise ValueError(f"{type(self).__name__} has no memory format")

        def moved(x: Tensor) -> Tensor:
            return x.to(device, dtype if x.is_floating_point() else None, non_blocking=blocking)

        return self.mapped(moved)

    def pin_memory(self: V) -> V:
        return self.mapped(Tensor.pin_memory)

    @property
    def device(self) -> torch.device:
        return leaves(self)[0].device


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return change(value) if isinstance(value, Tensor) else value.mapped(change) if isinstance(value, View) else value


def leaves(view: Any) -> list[Tensor]:
    """All tensors in a view."""
    if isinstance(view, Tensor):
        return [view]
    if not is_dataclass(view):
        return []
    return [leaf for item in fields(view) for leaf in leaves(getattr(view, item.name))]


def mapped(view: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A view, or a list of views, with ``change`` done to every tensor in it."""
    return [mapped(x, change) for x in view] if isinstance(view, list) else _mapped(view, change)


def cast(view: Any, dtype: torch.dtype) -> Any:
    """A view whose floating-point numbers are of ``dtype``."""
    return mapped(view, lambda x: x.to(dtype) if x.is_floating_point() else x)


def nbytes(view: Any) -> int:
    """Bytes of all its tensors."""
    return sum(leaf.numel() * leaf.element_size() for leaf in leaves(view))


def select(view: Any, index: Tensor) -> Any:
    """The samples ``index`` ``[n]`` of a view, in that order."""
    return view[index] if isinstance(view, Tensor) else view.select(index)


def concat(views: Sequence[Any]) -> Any:
    """Several views of one kind as one: the samples of the first, then those of the next."""
    first = views[0]
    if len(views) == 1:
        return first
    return torch.cat(list(views)) if isinstance(first, Tensor) else type(first).concat(views)


def chunk(view: Any, parts: int) -> list[Any]:
    """A view cut into ``parts`` of equal numbers of samples."""
    if isinstance(view, Tensor):
        return list(view.chunk(parts))
    rows = torch.arange(len(view), device=view.device)
    return [view.select(index) for index in rows.chunk(parts)]


def kind(view: Any) -> Any:
    """What views must have in common to pass together: the shape of a sample, or the class of a view."""
    return tuple(view.shape[1:]) if isinstance(view, Tensor) else type(view)


def shape_of(view: Any) -> tuple[int, ...]:
    """The shape of a tensor; () of anything else, which no network of tensors takes."""
    return tuple(view.shape) if isinstance(view, Tensor) else ()


def described(view: Any) -> str:
    """What a message calls a view: its shape, or the name of its class."""
    return str(list(view.shape)) if isinstance(view, Tensor) else type(view).__name__
