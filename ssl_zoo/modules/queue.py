"""First-in first-out memory of keys."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_zoo.modules.float32 import Float32State


class Staged(Float32State):
    """State that is written *after* the backward pass of the micro-batch that produced it.

    A write in place before backward would break autograd, and would make a key a negative of its own query.
    Writers only stage; the base class of methods calls :meth:`commit` right after each backward. Its buffers keep
    float32 where the networks are in half precision.
    """

    def __init__(self) -> None:
        super().__init__()
        self._staged: list[Tensor] = []

    def stage(self, rows: Tensor) -> None:
        self._staged.append(rows.detach())

    def commit(self) -> None:
        """Write what was staged, in call order."""
        staged, self._staged = self._staged, []
        for rows in staged:
            self.write(rows)

    def write(self, rows: Tensor) -> None:
        raise NotImplementedError(f"{type(self).__name__} must define write(rows)")


class Queue(Staged):
    """Ring of the last ``size`` keys (MoCo, Sec. 3.2): reading (``keys``) and writing (``push``) are separate calls.

    Args:
        size: Keys held; a multiple of the rows pushed at once.
        dim: Width of a key.
        rows: Rows that one push will bring (the micro-batch over all devices), checked at once when given.
    """

    keys: Tensor

    def __init__(self, size: int, dim: int, rows: int | None = None) -> None:
        super().__init__()
        if rows is not None:
            self._check(size, rows)
        self.size = size
        # Own generator: building a queue must not change the networks that are initialised after it.
        start = torch.randn(size, dim, generator=torch.Generator().manual_seed(0))
        self.register_buffer("keys", nn.functional.normalize(start, dim=1))
        self.pushed = 0  # rows written so far; a Python number, so that asking for it never waits for the device

    @property
    def full(self) -> bool:
        """Whether every row has been written, i.e. none of the random rows of the start is left."""
        return self.pushed >= self.size

    def get_extra_state(self) -> dict[str, int]:
        return {"pushed": self.pushed}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.pushed = state["pushed"]

    @staticmethod
    def _check(size: int, rows: int) -> None:
        if size % rows:
            raise ValueError(
                f"queue size {size} is not a multiple of the {rows} rows that one micro-batch over all devices pushes; "
                f"try {max(size // rows, 1) * rows}"
            )

    def push(self, rows: Tensor) -> None:
        """Stage ``[N, D]`` gathered keys; every rank pushes the same rows."""
        self._check(self.size, len(rows))
        self.stage(rows)

    @torch.no_grad()
    def write(self, rows: Tensor) -> None:
        where = torch.arange(self.pushed, self.pushed + len(rows), device=self.keys.device) % self.size
        self.keys.index_copy_(0, where, rows.to(self.keys.dtype))
        self.pushed += len(rows)
