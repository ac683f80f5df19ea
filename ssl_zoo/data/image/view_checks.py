"""What is tried of a configuration's views before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from ssl_zoo.augmentations.image.views import EvalView, ViewPipeline
from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.errors import ConfigError
from ssl_zoo.sides import Side, height_width


def check_views(
    views: ViewPipeline, eval_view: EvalView, channels: int, stored_size: Side | None, image_size: Side
) -> None:
    """Raise a ConfigError for operations that do not fit the images or one another.

    Args:
        views, eval_view: Of the data module.
        channels: Of the images.
        stored_size: Their size; None: they differ.
        image_size: Of the views.
    """
    if stored_size is None:
        _check_cuts({"augmentation.views": views.views, "augmentation.eval": [eval_view.view]})
    height, width = height_width(stored_size or image_size)
    image = torch.zeros(1, channels, height, width)
    draw = Draw(stream_key(0, "try", 0), torch.zeros(1, dtype=torch.int64))
    tries: dict[str, Callable[[], Any]]
    tries = {"views": lambda: views(image, draw), "eval": lambda: eval_view(image)}
    for name, made in tries.items():
        try:
            made()
        except ValueError as error:
            raise ConfigError(f"augmentation.{name}: {error}") from None


def _check_cuts(pipelines: dict[str, Iterable[Any]]) -> None:
    """Images of different sizes can be stacked only after something has cut them."""
    for name, views in pipelines.items():
        loose = [str(i) for i, view in enumerate(views) if not view.crops_first]
        if loose:
            raise ConfigError(
                f"{name}: view {', '.join(loose)} does not begin with a crop or a resize, and the images of this data "
                "set differ in size; put image/random_resized_crop or image/resize_center_crop first"
            )
