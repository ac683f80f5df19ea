"""The configuration groups, as a package that Hydra reads (``pkg://ssl_zoo.conf``)."""

from typing import Any

from omegaconf import OmegaConf


def by_scale(scale: str, small: str, large: str) -> str:
    """The choice for the scale of the data: ``${by_scale:${scale},sgd/small,byol/large}``."""
    return {"small": small, "large": large}[scale]


def by_network(backbone: Any, vit: Any, resnet: Any) -> Any:
    """The value for a ResNet, by name, or for any other network: ``${by_network:${backbone},0.05,5.0e-4}``."""
    said = f"{backbone['_target_']} {OmegaConf.select(backbone, 'name')}"
    return resnet if "resnet" in said else vit


def by_method(method: str, usual: str, *own: str) -> str:
    """The choice of data for any method, or that of the method's name: ``${by_method:${method},graph,graphcl}``."""
    return method if method in own else usual


OmegaConf.register_new_resolver("by_scale", by_scale, replace=True)
OmegaConf.register_new_resolver("by_method", by_method, replace=True)
OmegaConf.register_new_resolver("by_network", by_network, replace=True)
