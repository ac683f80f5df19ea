"""Fully connected networks for rows of tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone, Origin
from ssl_zoo.backbones.weights import start_from
from ssl_zoo.errors import ConfigError, require
from ssl_zoo.ranges import Size
from ssl_zoo.samples import described, shape_of

NORMS: dict[str, Callable[[int], nn.Module] | None] = {"none": None, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


class TableBackbone(Backbone):
    """An encoder of rows ``[B, inputs]``.

    Args:
        inputs: Numbers of a row.
    """

    def __init__(self, net: nn.Module, origin: Origin, out_features: int, inputs: int) -> None:
        super().__init__(net, origin, out_features)
        self.inputs = inputs

    def check(self, view: Any) -> None:
        if len(shape_of(view)) != 2 or view.shape[1] != self.inputs:
            raise ConfigError(
                f"backbone {self.name!r} takes rows of {self.inputs} numbers, got {described(view)}; it was built for "
                "a table with other columns"
            )

    def preprocessing(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """How columns become numbers: ``(x - offset) / scale``, or one number for each of ``values``.

        A run that the training command did not start has not kept it (``auto``).
        """
        kept = config["data"]["source"]["encoding"]
        return {"columns": kept if kept == "auto" else json.loads(kept)}

    def example(self) -> Tensor:
        return torch.randn(2, self.inputs, generator=torch.Generator().manual_seed(0))


def mlp(
    inputs: Size | None = None,
    hidden: Sequence[int] = (256, 256, 256),
    out_features: int = 256,
    norm: Literal["none", "batch", "layer"] = "none",
    last_activation: bool = True,
    weights: str | None = None,
) -> TableBackbone:
    """Linear layers with ReLU: four of 256 in SCARF, https://arxiv.org/abs/2106.15147, Sec. 4.

    Args:
        inputs: Numbers of a row; None: the data say it.
        hidden: Widths before the last layer; -1 is the width of the input.
        out_features: Width of the features; -1 is the width of the input.
        norm: After each hidden layer.
        last_activation: Whether a ReLU follows the last layer too.
        weights: Where to start from, see :func:`ssl_zoo.backbones.weights.start_from`.
    """
    if inputs is None:
        raise ConfigError("backbone.inputs is null, and the data do not say how many numbers a row has; this network "
                          "takes tables, as data=table has them")
    widths = [inputs if width == -1 else width for width in (*hidden, out_features)]
    if min(widths) < 1:
        raise ConfigError(f"backbone: widths must be positive, or -1 for the input's; got {[*hidden, out_features]}")
    require("backbone.norm", norm, NORMS, ConfigError)
    layers = [layer for pair in zip([inputs, *widths], widths[:-1], strict=False) for layer in _hidden(*pair, norm)]
    layers.append(nn.Linear([inputs, *widths][-2], widths[-1]))
    net = nn.Sequential(*layers, nn.ReLU()) if last_activation else nn.Sequential(*layers)
    arguments = {"inputs": inputs, "hidden": list(hidden), "out_features": out_features, "norm": norm,
                 "last_activation": last_activation}
    backbone = TableBackbone(net, Origin("ssl_zoo", f"{__name__}.mlp", arguments), widths[-1], inputs)
    if weights is not None:
        start_from(backbone, weights)
    return backbone


def _hidden(before: int, width: int, norm: str) -> list[nn.Module]:
    made = NORMS[norm]
    return [nn.Linear(before, width), *([] if made is None else [made(width)]), nn.ReLU()]
