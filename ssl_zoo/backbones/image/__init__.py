"""Encoders of images; the networks of torchvision and timm by name."""

from ssl_zoo.backbones.image.factories import (
    convnext_tiny,
    resnet18,
    resnet50,
    resnet50x2,
    timm_model,
    torchvision_model,
    vit,
    vit_base,
    vit_huge,
    vit_large,
    vit_small,
    vit_tiny,
)
from ssl_zoo.backbones.image.swin import swin_base, swin_small, swin_tiny

__all__ = [
    "convnext_tiny",
    "resnet18",
    "resnet50",
    "resnet50x2",
    "swin_base",
    "swin_small",
    "swin_tiny",
    "timm_model",
    "torchvision_model",
    "vit",
    "vit_base",
    "vit_huge",
    "vit_large",
    "vit_small",
    "vit_tiny",
]
