"""A second set of batch norms for inputs of another distribution (AdvProp, https://arxiv.org/abs/1911.09665)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
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


def _places(net: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """(parent, name, layer) of every batch norm below ``net``, in the order of modules."""
    for path, module in list(net.named_modules()):
        if isinstance(module, _BatchNorm):
            parent, _, name = path.rpartition(".")
            yield net.get_submodule(parent), name, module
