"""Projectors and predictors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import nn

from ssl_zoo.errors import require
from ssl_zoo.ranges import Positive

Norm = Literal["none", "batch", "batch_no_offset", "batch_no_affine", "layer"]


def _batch_no_offset(width: int) -> nn.Module:
    """Batch norm with a scale and a constant offset of 0: the last layer of SimCLR's head (``center=False``)."""
    norm = nn.BatchNorm1d(width)
    del norm.bias
    norm.register_buffer("bias", torch.zeros(width), persistent=False)  # no parameter: nothing trains or decays it
    return norm


NORMS: dict[str, Callable[[int], nn.Module | None]] = {
    "none": lambda width: None,
    "batch": nn.BatchNorm1d,
    "batch_no_offset": _batch_no_offset,
    "batch_no_affine": lambda width: nn.BatchNorm1d(width, affine=False),
    "layer": nn.LayerNorm,
}
Head = Callable[[int], Any]  # a head to be: called with the width of its input, gives a module with ``out_features``

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": lambda: nn.ReLU(inplace=True), "gelu": nn.GELU}


def _linear(in_features: int, out_features: int, bias: bool | Literal["frozen"]) -> nn.Linear:
    layer = nn.Linear(in_features, out_features, bias=bool(bias))
    if bias == "frozen":
        start = layer.bias.detach().clone()
        del layer.bias
        layer.register_buffer("bias", start)  # in the state under its usual name, but not a parameter
    return layer


def _start_normal(layers: nn.Sequential, std: float) -> None:
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class MLP(nn.Sequential):
    """Linear layers with a norm and an activation between them; ``hidden: []`` is one linear layer.

    Layers are numbered as in the authors' ``nn.Sequential`` heads (SwAV, SimSiam, Barlow Twins, VICReg, MoCo v2).

    Args:
        in_features: Width of the input ``[B, in_features]``.
        hidden: Widths of the hidden layers; -1 is the width of the input.
        out_features: Width of the output; -1 is the width of the input.
        norm: After each hidden layer: none, batch, batch_no_offset, batch_no_affine or layer.
        bias: Whether hidden layers have one.
        last_norm: After the last layer, as ``norm``; no activation follows.
        last_bias: Whether the last layer has one; ``frozen`` keeps its random start for ever (SimSiam's code).
        activation: After each hidden layer: relu or gelu.
        init_std: Deviation of truncated normal weights, with biases 0 (DINO, MSN); None: torch's start.

    Raises:
        ValueError: On an unknown norm or activation, or a width that is neither positive nor -1.
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        out_features: int,
        norm: Norm = "batch",
        bias: bool = True,
        last_norm: Norm = "none",
        last_bias: bool | Literal["frozen"] = False,
        activation: Literal["relu", "gelu"] = "relu",
        init_std: Positive | None = None,
    ) -> None:
        for kind, name, known in (
            ("norm", norm, NORMS),
            ("last_norm", last_norm, NORMS),
            ("activation", activation, ACTIVATIONS),
            ("last_bias", str(last_bias).lower(), ("true", "false", "frozen")),
        ):
            require(f"MLP: {kind}", name, known)
        widths = [in_features if width == -1 else width for width in (*hidden, out_features)]
        if min(widths) < 1:
            raise ValueError(f"MLP: widths must be positive, or -1 for the input's; got {[*hidden, out_features]}")
        layers: list[nn.Module | None] = []
        for before, width in zip([in_features, *widths], widths[:-1], strict=False):
            layers += [_linear(before, width, bias), NORMS[norm](width), ACTIVATIONS[activation]()]
        layers += [_linear([in_features, *widths][-2], widths[-1], last_bias), NORMS[last_norm](widths[-1])]
        super().__init__(*(layer for layer in layers if layer is not None))
        self.out_features = widths[-1]
        if init_std is not None:
            _start_normal(self, init_std)

    def __getitem__(self, index: slice | int) -> Any:
        """One layer, or several as an ``nn.Sequential``: ``head[:3]`` is where SimCLR v2 starts to fine-tune."""
        layers = list(self)[index]
        return nn.Sequential(*layers) if isinstance(layers, list) else layers


class NoHead(nn.Identity):
    """Nothing between features and loss: the ablation of SimCLR's head (https://arxiv.org/abs/2002.05709, Sec. 4.2).

    Args:
        in_features: Width of the input ``[B, in_features]``, which is that of the output.
    """

    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.out_features = in_features


def first_layers(head: nn.Sequential, count: int) -> nn.Sequential:
    """The beginning of a head, where SimCLR v2 starts to fine-tune; the modules are the head's own.

    A layer is a linear map with the norm and the activation behind it, as ``ft_proj_selector`` of tf2/model.py in
    google-research/simclr@383d414 counts.

    Args:
        head: Linear maps, norms and activations in a row.
        count: 0: none, what the head receives; 1: up to the first activation; -1: the whole head.

    Raises:
        ValueError: If the head has fewer layers.
    """
    starts = [i for i, layer in enumerate(head) if isinstance(layer, nn.Linear)]
    if not -1 <= count <= len(starts):
        raise ValueError(f"a head of {len(starts)} layers has no first {count}; wanted 0 to {len(starts)}, or -1")
    end = [*starts, len(head)][count] if count else 0
    return nn.Sequential(*list(head)[:end])


def same_width(projector: Any, predictor: Any) -> None:
    """A prediction is compared with a projection.

    Raises:
        ValueError: If the two heads differ in ``out_features``, naming both.
    """
    if projector.out_features != predictor.out_features:
        raise ValueError(
            f"method.predictor.out_features={predictor.out_features} differs from the projector's "
            f"{projector.out_features}, which it predicts; use -1 (the width of its input)"
        )
