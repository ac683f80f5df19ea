"""VICRegL: where views come from, what is matched, and what is refused."""

from __future__ import annotations

import pytest
import torch

from ssl_zoo.errors import ConfigError
from tests.helpers import tiny_batch, tiny_method


def test_the_whole_is_alpha_of_the_views_and_the_rest_of_the_places() -> None:
    method = tiny_method("vicregl", ["method.alpha=0.9"], dtype=torch.float64)
    out = method.training_loss(tiny_batch([16, 16], dtype=torch.float64))
    torch.testing.assert_close(out["loss"], 0.9 * out["global"] + 0.1 * out["local"])


def test_a_view_matched_with_itself_has_no_distance() -> None:
    method = tiny_method("vicregl", dtype=torch.float64)
    method.weights = (1.0, 0.0, 0.0)
    batch = tiny_batch([16, 16], dtype=torch.float64)
    batch.views[1] = batch.views[0]
    box = "0/image/random_resized_crop/box"
    batch.extra["1/image/random_resized_crop/box"] = batch.extra[box]
    assert method.training_loss(batch)["loss"].item() == pytest.approx(0.0, abs=1e-20)
    batch.extra["1/image/random_resized_crop/box"] = batch.extra[box] + torch.tensor([3, -5, 0, 0])
    assert method.training_loss(batch)["local"].item() > 1e-6


def test_flips_are_looked_at_only_if_asked() -> None:
    losses = []
    for flip in (False, True):
        method = tiny_method("vicregl", [f"method.flip_grid={flip}", "method.matches=[4,4]"], dtype=torch.float64)
        batch = tiny_batch([16, 16], dtype=torch.float64)
        batch.extra["1/image/flip/flipped"] = torch.arange(8) % 2 == 0
        losses.append(method.training_loss(batch)["local"].item())
    assert losses[0] != losses[1]


def test_small_views_and_transformers_have_places_too() -> None:
    out = tiny_method("vicregl").training_loss(tiny_batch([16, 16, 8]))
    assert out["loss"].isfinite()
    out = tiny_method("vicregl", ["backbone=vit_mini", "backbone.embed_dim=16"], tiny=False).training_loss(
        tiny_batch([16, 16])
    )
    assert out["loss"].isfinite() and out["features"].shape == (8, 16)


def test_what_it_needs_is_said() -> None:
    batch = tiny_batch([16, 16])
    batch.extra = {}
    with pytest.raises(ConfigError, match="must know where view 0 was cut .*begin its ops with image/random_resized"):
        tiny_method("vicregl").training_loss(batch)
    with pytest.raises(ConfigError, match="method.alpha=1.0: wanted above 0 and below 1; 1 is method=vicreg"):
        tiny_method("vicregl", ["method.alpha=1.0"])
    with pytest.raises(ConfigError, match=r"method.matches=\[20\]: wanted two numbers"):
        tiny_method("vicregl", ["method.matches=[20]"])
    options = ["backbone=timm", "backbone.name=regnetx_002", "backbone.stem=standard", "data.image_size=32"]
    with pytest.raises(ConfigError, match="VICRegL needs features of places: backbone 'regnetx_002' has no dense"):
        tiny_method("vicregl", options, tiny=False)
