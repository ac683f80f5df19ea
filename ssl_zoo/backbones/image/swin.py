"""Swin transformers by name, for images of 32 pixels and of 224."""

from __future__ import annotations

from typing import Any

from ssl_zoo.backbones.image.base import ImageBackbone
from ssl_zoo.backbones.image.factories import timm_model
from ssl_zoo.backbones.image.windows import tiling_window
from ssl_zoo.ranges import Size
from ssl_zoo.sides import Side


def swin_tiny(
    in_channels: Size = 3,
    image_size: Side = 224,
    stem: str = "standard",
    weights: str | None = None,
    patch_size: Size | None = None,
    window_size: Size | None = None,
    **arguments: Any,
) -> ImageBackbone:
    """Swin-T, https://arxiv.org/abs/2103.14030: stages of 2, 2, 6 and 2 blocks, 768 features."""
    return _swin("tiny", in_channels, image_size, stem, weights, patch_size, window_size, arguments)


def swin_small(
    in_channels: Size = 3,
    image_size: Side = 224,
    stem: str = "standard",
    weights: str | None = None,
    patch_size: Size | None = None,
    window_size: Size | None = None,
    **arguments: Any,
) -> ImageBackbone:
    """Swin-S: as Swin-T, with 18 blocks in the third stage."""
    return _swin("small", in_channels, image_size, stem, weights, patch_size, window_size, arguments)


def swin_base(
    in_channels: Size = 3,
    image_size: Side = 224,
    stem: str = "standard",
    weights: str | None = None,
    patch_size: Size | None = None,
    window_size: Size | None = None,
    **arguments: Any,
) -> ImageBackbone:
    """Swin-B: as Swin-S, a third wider: 1024 features."""
    return _swin("base", in_channels, image_size, stem, weights, patch_size, window_size, arguments)


def _swin(
    size: str,
    in_channels: int,
    image_size: Side,
    stem: str,
    weights: str | None,
    patch_size: int | None,
    window_size: int | None,
    arguments: dict[str, Any],
) -> ImageBackbone:
    """timm's network of that size, as :func:`ssl_zoo.backbones.image.timm_model` builds it.

    Args:
        patch_size: Side of a patch in pixels; None: 4, or 1 with ``stem=small``.
        window_size: Side of a window in patches; None: the largest of 4 to 7 that tiles the maps (7 at 224 pixels, 6 at
            192, 4 at 128).
        arguments: timm's own, ``drop_path_rate``, ``depths``, ``embed_dim``, ``num_heads``.
    """
    patch = patch_size or (1 if stem == "small" else 4)
    window = window_size or tiling_window(image_size, patch)
    # Views of other sizes than the images', each padded to whole windows.
    options = {"patch_size": patch, "window_size": window, "strict_img_size": False, "drop_path_rate": 0.0, **arguments}
    return timm_model(f"swin_{size}_patch4_window7_224", in_channels, image_size, stem, weights, **options)
