"""The configuration groups, as a package that Hydra reads (``pkg://ssl_zoo.conf``)."""

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf


def by_scale(scale: str, small: str, large: str) -> str:
    """The choice for the scale of the data: ``${by_scale:${scale},sgd/small,byol/large}``."""
    return {"small": small, "large": large}[scale]


def by_method(method: str, default: str, own: Mapping[str, str]) -> str:
    """The choice for a method: ``${by_method:${method},table,{scarf: scarf}}``.

    Data choose the views and the network of their own kind by it; a method that ``own`` does not name takes the
    default.
    """
    return own.get(method, default)


def by_network(backbone: Any, vit: Any, resnet: Any) -> Any:
    """The value for a ResNet, by name, or for any other network: ``${by_network:${backbone},0.05,5.0e-4}``."""
    said = f"{backbone['_target_']} {OmegaConf.select(backbone, 'name')}"
    return resnet if "resnet" in said else vit


def unless_same(value: str, other: str, instead: str) -> str:
    """A value, unless it is the other one: ``${unless_same:${study.arm.second},${study.arm.first},alone}``."""
    return instead if value == other else value


OmegaConf.register_new_resolver("by_scale", by_scale, replace=True)
OmegaConf.register_new_resolver("by_method", by_method, replace=True)
OmegaConf.register_new_resolver("by_network", by_network, replace=True)
OmegaConf.register_new_resolver("unless_same", unless_same, replace=True)
