"""Gradient caching: embed a large batch in chunks, take the loss on the whole of it, back-propagate chunk by chunk.

GradCache, Gao et al. 2021, https://arxiv.org/abs/2101.06983 (Sec. 3.2). Every chunk is embedded without keeping its
activations; the loss needs the embeddings only; the backward pass embeds each chunk again when its gradient arrives.
Written with torch's checkpoints, which DDP, gradient scalers and autocast know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ssl_zoo.errors import ConfigError
from ssl_zoo.modules.batch_norm import BatchNorm
from ssl_zoo.passes import Layout, in_part, layout, restored
from ssl_zoo.samples import chunk
from ssl_zoo.seeding import rewinding


def in_chunks(
    module: nn.Module, encode: Callable[[Any], Sequence[Tensor]], views: Any, chunks: int
) -> Sequence[Tensor]:
    """``encode(views)`` for ``chunks`` parts of the rows, one at a time; the same values and gradients.

    Equal to ``encode`` of all rows for networks without batch statistics, and for batch norms whose group divides a
    chunk's samples (``batch_norm.group``); with dropout too, whose masks belong to samples (:mod:`.dropout`).

    Args:
        module: What ``encode`` runs; the running statistics of its batch norms move in the forward pass only.
        encode: Of a view of B samples, or of a list of such, to several ``[B, F]``.
        views: One, or a list of them, of equal numbers of samples.
        chunks: 1: ``encode(views)`` itself, with all activations kept.

    Raises:
        ValueError: If the rows do not divide by ``chunks``.
    """
    if chunks == 1:
        return encode(views)
    several = isinstance(views, (list, tuple))
    first = views[0] if several else views
    rows = len(first)
    if rows % chunks:
        raise ValueError(f"grad_cache={chunks} does not divide the {rows} rows of a process")
    split: Iterable[Any]
    split = zip(*(chunk(view, chunks) for view in views), strict=True) if several else chunk(views, chunks)
    norms, rewind = Norms(module), rewinding(first.device)
    parts = []
    for number, piece in enumerate(split):
        rewind()  # every chunk draws for the whole batch, and takes its own rows
        with in_part(number, chunks):
            if torch.is_grad_enabled():
                parts.append(checkpoint(encode, piece, use_reentrant=False, context_fn=norms.contexts))
            else:  # nothing will be repeated, and a checkpoint does not enter its contexts
                with norms.remembering(layout()):
                    parts.append(encode(piece))
    norms.settle()
    return [torch.cat(outputs) for outputs in zip(*parts, strict=True)]


class Norms:
    """Running statistics of batch norms, which a batch in chunks must move as the whole batch would: once, to the mean.

    Every chunk runs on copies of them.
    """

    def __init__(self, module: nn.Module) -> None:
        self.norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
        self.held = [dict(norm.named_buffers(recurse=False)) for norm in self.norms]
        self.moved: list[list[dict[str, Tensor]]] = []

    @contextmanager
    def forgetting(self, known: Layout) -> Iterator[None]:
        """Around the repetition of a forward pass, which comes with the backward pass: nothing is around it then."""
        before = [dict(norm.named_buffers(recurse=False)) for norm in self.norms]  # another repetition's, inside of one
        for norm, buffers in zip(self.norms, before, strict=True):
            norm._buffers.update({name: buffer.clone() for name, buffer in buffers.items()})
        try:
            with restored(known):
                yield
        finally:
            for norm, buffers in zip(self.norms, before, strict=True):
                norm._buffers.update(buffers)

    @contextmanager
    def remembering(self, known: Layout) -> Iterator[None]:
        """Around a forward pass."""
        with self.forgetting(known):
            yield
            self.moved.append([dict(norm.named_buffers(recurse=False)) for norm in self.norms])

    def contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        known = layout()
        return self.remembering(known), self.forgetting(known)

    @torch.no_grad()
    def settle(self) -> None:
        """After all chunks."""
        for i, buffers in enumerate(self.held):
            for name, buffer in buffers.items():
                values = torch.stack([chunk[i][name] for chunk in self.moved])
                buffer.copy_(values.mean(0) if values.is_floating_point() else values[0])
        self.moved.clear()


def check(module: nn.Module, chunks: int, rows: int, group: int | None) -> None:
    """Whether a batch embedded in chunks is the same as embedded at once.

    Args:
        module: The method.
        chunks: ``method.grad_cache``.
        rows: Samples of a micro-batch in one process.
        group: ``batch_norm.group``.

    Raises:
        ConfigError: If the chunks are unequal, or batch norm's statistics would be those of a chunk.
    """
    if chunks < 1 or rows % chunks:
        fits = max(n for n in range(1, min(max(chunks, 1), rows) + 1) if rows % n == 0)
        raise ConfigError(
            f"method.grad_cache={chunks}: wanted chunks of equal size of the {rows} samples of a process; "
            f"try method.grad_cache={fits}"
        )
    size = rows // chunks
    normed = any(isinstance(part, _BatchNorm) and part.training for part in module.modules())
    if chunks > 1 and normed and (group is None or size % group):
        raise ConfigError(
            f"method.grad_cache={chunks} embeds {size} samples at a time, and batch norm takes its statistics from "
            f"{'the whole batch' if group is None else f'groups of {group} samples'} (batch_norm.group="
            f"{'null' if group is None else group}): set batch_norm.group={size}, or take networks without batch norm"
        )
    if chunks > 1 and any(isinstance(part, BatchNorm) and part.interleaved for part in module.modules()):
        raise ConfigError(
            f"method.grad_cache={chunks}: a chunk holds other samples than a group to which interleaved=true "
            "of batch_norm deals those of the whole batch; set method.grad_cache=1, or batch_norm.interleaved=null"
        )
