"""A head as a list of layers: a linear map, the norm behind it, the activation behind that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

ACTIVATIONS: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.GELU: "gelu", nn.SiLU: "silu"}
SILENT = (nn.Identity, nn.Dropout, nn.Flatten)


@dataclass
class Layer:
    """As in a recorded head.

    Args:
        bias: Whether it is trained; ``frozen`` if it stands still.
        scale, offset: Whether the norm trains one; None without a norm.
    """

    linear: int
    bias: bool | str
    weight: Tensor
    module: nn.Module
    norm: str | None = None
    act: str | None = None
    scale: bool | None = None
    offset: bool | None = None


class NotALayer(TypeError):
    """Something in a head that is no linear map, norm or activation."""


def layers_of(head: nn.Module) -> list[Layer]:
    """The layers of a head in the order in which it was built, which is that in which ours are run."""
    found: list[Layer] = []
    for part in _parts(head):
        if isinstance(part, SILENT):
            continue
        if (linear := _linear(part)) is not None:
            found.append(linear)
        elif not found:
            raise NotALayer(f"a head that begins with {type(part).__name__}")
        elif type(part) in ACTIVATIONS:
            found[-1].act = ACTIVATIONS[type(part)]
        else:
            _take_norm(found[-1], part)
    return found


def _parts(head: nn.Module) -> list[nn.Module]:
    """What has no parts of its own, or is a linear map in spite of them."""
    if _linear(head) is not None or not list(head.children()):
        return [head]
    return [part for child in head.children() for part in _parts(child)]


def _linear(part: Any) -> Layer | None:
    if hasattr(part, "weight_g"):  # normalised rows: the norm belongs to the layer
        biased = getattr(part, "bias", None) is not None
        return Layer(part.weight_v.shape[0], biased, part.weight_v, part, "weight_norm")
    pointwise = isinstance(part, (nn.Conv1d, nn.Conv2d)) and set(part.kernel_size) == {1}
    if not isinstance(part, nn.Linear) and not pointwise:
        return None
    return Layer(part.weight.shape[0], _bias(part.bias), part.weight, part)


def _bias(bias: Any) -> bool | str:
    if bias is None:
        return False
    return True if isinstance(bias, nn.Parameter) and bias.requires_grad else "frozen"


def _take_norm(layer: Layer, part: Any) -> None:
    if not isinstance(part, (_BatchNorm, nn.LayerNorm)):
        raise NotALayer(f"{type(part).__name__}")
    layer.norm = "bn" if isinstance(part, _BatchNorm) else "ln"
    trained = [isinstance(x, nn.Parameter) and x.requires_grad for x in (part.weight, part.bias)]
    layer.scale, layer.offset = trained
