"""A second set of batch norms for inputs of another distribution (AdvProp, https://arxiv.org/abs/1911.09665; domains:
DSBN, https://arxiv.org/abs/1906.03950)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class DualNorm(nn.Module):
    """Twins of the batch norms of a network, with weights and statistics of their own, which take their places for a
    while. The network itself keeps its layers and names: what is evaluated and exported knows nothing of the twins.

    Args:
        net: Network whose batch norms are copied.
        momentum: Of the twins' running statistics; None: the originals'.
    """

    def __init__(self, net: nn.Module, momentum: float | None = None) -> None:
        super().__init__()
        self.twins = nn.ModuleList(copy.deepcopy(norm) for _, _, norm in _places(net))
        for twin in self.twins:
            assert isinstance(twin, _BatchNorm)
            twin.momentum = twin.momentum if momentum is None else momentum

    @contextmanager
    def inside(self, net: nn.Module) -> Iterator[None]:
        """Let the twins normalise in ``net``, the network that they were made from."""
        places = list(_places(net))
        try:
            for (parent, name, _), twin in zip(places, self.twins, strict=True):
                parent._modules[name] = twin
            yield
        finally:
            for parent, name, norm in places:
                parent._modules[name] = norm

    def divided(self, net: nn.Module, rows: Tensor, twins: Tensor) -> Tensor:
        """``net(rows)`` in two passes: the twins normalise some rows, the originals the others, as if alone in a batch.

        Args:
            net: The network that the twins were made from.
            rows: ``[B, ...]``.
            twins: ``[B]`` bool: which rows the twins normalise.

        Returns:
            ``[B, F]``, in the order of ``rows``.
        """
        with self.inside(net):
            first = net(rows[twins])
        out = first.new_empty(len(rows), *first.shape[1:])
        out[twins], out[~twins] = first, net(rows[~twins])
        return out


def _places(net: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """(parent, name, layer) of every batch norm below ``net``, in the order of modules."""
    for path, module in list(net.named_modules()):
        if isinstance(module, _BatchNorm):
            parent, _, name = path.rpartition(".")
            yield net.get_submodule(parent), name, module
