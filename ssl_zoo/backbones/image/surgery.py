"""What is asked of a network of torchvision, and done to it, before it serves as an encoder."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from ssl_zoo.errors import ConfigError
from ssl_zoo.sides import Side, height_width


def check_size(net: nn.Module, name: str, in_channels: int, image_size: Side) -> None:
    """Networks that do not say their least size: their pooling may leave nothing of a small image (AlexNet, 32)."""
    mode = net.training
    try:
        with torch.no_grad():
            net.eval()(torch.zeros(1, in_channels, *height_width(image_size)))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"backbone.name={name}: cannot take images of {image_size} pixels ({reason}); set a larger data.image_size"
        ) from None
    finally:
        net.train(mode)


def keep_last_size(net: nn.Module) -> None:
    """In place: the last stage of a ResNet keeps the size of its map, as for re-identification."""
    first = cast(Any, net).layer4[0]
    for conv in first.modules():
        if isinstance(conv, nn.Conv2d):
            conv.stride = (1, 1)


def drop_classifier(net: nn.Module, name: str) -> tuple[str, int]:
    """Replace the last linear layer by the identity; returns its name and its input width."""
    linear = [(path, module) for path, module in net.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ConfigError(f"backbone {name!r} has no linear classifier to cut off; take a network that has one")
    path, last = linear[-1]
    net.set_submodule(path, nn.Identity())
    return path, last.in_features


def replace_input(net: nn.Module, in_channels: int) -> None:
    """Give the first convolution another number of channels (torchvision's networks take colour only)."""
    path, old = next((path, module) for path, module in net.named_modules() if isinstance(module, nn.Conv2d))
    conv = nn.Conv2d(
        in_channels,
        old.out_channels,
        cast(Any, old.kernel_size),
        cast(Any, old.stride),
        cast(Any, old.padding),
        bias=old.bias is not None,
        device=old.weight.device,
    )
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    net.set_submodule(path, conv)
