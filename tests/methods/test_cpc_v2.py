"""CPC v2: patches, and how distances are counted."""

from __future__ import annotations

import pytest
import torch

from ssl_zoo.errors import ConfigError
from tests.helpers import tiny_batch, tiny_method, view_sizes


def test_a_whole_image_is_cut_into_the_patches_of_the_views() -> None:
    method = tiny_method("cpc_v2").eval()
    assert view_sizes("cpc_v2") == [(49, 4)]
    image = tiny_batch([16]).views[0]
    patches = torch.stack([image[:, :, 2 * r : 2 * r + 4, 2 * c : 2 * c + 4] for r in range(7) for c in range(7)], 1)
    grid = method.grid(patches)
    assert grid.shape == (8, 32, 7, 7)
    torch.testing.assert_close(grid[:, :, 2, 5], method.backbone(image[:, :, 4:8, 10:14]), rtol=1e-4, atol=1e-5)
    assert torch.equal(method.grid(image), grid)
    torch.testing.assert_close(method.embed(image), grid.mean((2, 3)))


def test_the_double_loop_counts_far_rows_more_often() -> None:
    batch = tiny_batch([(49, 4)])
    nested = tiny_method("cpc_v2").training_loss(batch)
    equal = tiny_method("cpc_v2", ["method.weighting=equal"]).training_loss(batch)
    terms = [nested[f"rows{r}"].item() for r in range(2, 7)]
    assert "rows7" not in nested
    assert nested["loss"].item() == pytest.approx(sum((r - 1) * term for r, term in enumerate(terms, 2)), rel=1e-5)
    assert equal["loss"].item() == pytest.approx(sum(terms), rel=1e-5)


def test_a_prediction_for_each_distance() -> None:
    method = tiny_method("cpc_v2", ["method.shared=false"])
    method.training_loss(tiny_batch([(49, 4)]))["loss"].backward()
    assert len(method.predictors) == 5 and all(p.weight.grad.any() for p in method.predictors)


def test_a_grid_without_rows_to_predict_is_refused() -> None:
    with pytest.raises(ConfigError, match="method.patch=0.75 cuts images of 16 px into 1 rows of patches; wanted 3 or"):
        tiny_method("cpc_v2", ["method.patch=0.75"])
