"""Every method on images of one band and of five: built, a step, and features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from ssl_zoo import build
from ssl_zoo.backbones.base import backbone_of
from ssl_zoo.data.image.source import image_info
from ssl_zoo.errors import ConfigError
from ssl_zoo.optim.schedules import Progress
from tests import helpers
from tests.helpers import CLASSES, METHODS, ROWS

FAST = ("simclr", "mae")  # of one process each kind; the rest is slow together


def banded(name: str, channels: int) -> Any:
    cfg = helpers.tiny_config(name, [f"data.channels={channels}"])
    method = build.build_method(cfg, image_info(64, CLASSES, cfg.data.image_size, channels, ROWS))
    method.progress = Progress(step=2, total=10, steps_per_epoch=4)
    method.bind(ROWS)
    return method.train()


def shape(size: Any, channels: int) -> Sequence[int]:
    """Of a view in :func:`tests.helpers.view_sizes`; a filter (Sobel) has channels of its own."""
    if isinstance(size, list):
        return size
    tiles, side = (size[:-1], size[-1]) if isinstance(size, tuple) else ((), size)
    return (*tiles, channels, side, side)


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in METHODS])
def test_a_method_trains_on_images_of_any_number_of_bands(
    name: str, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if channels == 1 and "channels" in helpers.method_file(name):  # of which it makes several views
        with pytest.raises(ConfigError, match=r"of the views, which must have two or more \(data.channels\)"):
            banded(name, channels)
        return
    method = banded(name, channels)
    monkeypatch.setattr(helpers, "_shape", lambda size: shape(size, channels))
    sizes = helpers.view_sizes(name)
    told = helpers.train_step(method, helpers.tiny_batch(sizes))
    assert math.isfinite(float(told["loss"])) and all(bool(g.isfinite().all()) for g in told["gradients"].values())
    network = backbone_of(method.encoder)
    assert network.origin.in_channels == (sizes[0][0] if isinstance(sizes[0], list) else channels)
    with torch.no_grad():
        features = method.eval().embed(torch.randn(4, network.origin.in_channels, helpers.SIZE, helpers.SIZE))
    assert len(features) == 4 and bool(features.isfinite().all())


def test_bands_that_no_tower_reads_are_told() -> None:
    (told,) = banded("cmc", 5).backbone.told
    assert told == "method.channels=[[0], [1, 2]]: channels 3, 4 of 5 are not read"
    assert banded("cmc", 3).backbone.told == ()
