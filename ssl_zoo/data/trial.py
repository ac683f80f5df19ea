"""The views of one sample, made before anything is built: what does not fit it is an error at once."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_zoo.augmentations.pipeline import EvalView, ViewPipeline
from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.data.damage import Damage, readable
from ssl_zoo.data.source import Source
from ssl_zoo.errors import ConfigError


def views_fit(source: Source, views: ViewPipeline, eval_view: EvalView) -> bool:
    """Whether each view of the first sample that can be read is a single tensor.

    Raises:
        ConfigError: If no sample can be read, or an operation does not take this one.
    """
    loaded = readable(source, 0)
    Damage(source.damage_limit, len(source)).add(loaded.damaged)  # raises where there is too much of it
    if loaded.sample is None:
        raise ConfigError(f"data: none of the {len(source)} samples can be read")
    batch, draw = source.collate([loaded.sample]), Draw(stream_key(0, "try", 0), torch.zeros(1, dtype=torch.int64))
    try:
        made, _ = views(batch, draw)
    except ValueError as error:
        raise ConfigError(f"augmentation.views: {error}") from None
    try:
        eval_view(batch)
    except ValueError as error:
        raise ConfigError(f"augmentation.eval: {error}") from None
    return all(isinstance(view, Tensor) for view in made)
