"""LeJEPA: its two terms with their weights."""

from __future__ import annotations

import pytest
import torch

from ssl_zoo.errors import ConfigError
from tests.helpers import tiny_batch, tiny_method, view_sizes


def terms(extra=()):
    torch.manual_seed(0)
    return tiny_method("lejepa", extra).training_loss(tiny_batch(view_sizes("lejepa")))


@pytest.mark.parametrize(("convex", "share"), [("true", 0.7), ("false", 1.0)])
def test_the_loss_weighs_both_terms(convex, share):
    out = terms(["method.weight=0.3", f"method.convex={convex}"])
    assert out["loss"].item() == pytest.approx(0.3 * out["sigreg"].item() + share * out["invariance"].item(), rel=1e-5)


def test_pooled_views_are_one_larger_sample():
    # The statistic is proportional to the number of rows: constant outputs of 4 views give 4 times that of one.
    method = tiny_method("lejepa")
    z, slices = torch.ones(4, 8, 3), torch.randn(3, 16)
    assert method.sigreg(z.flatten(0, 1), slices).item() == pytest.approx(4 * method.sigreg(z, slices).item(), rel=1e-5)


def test_directions_change_from_step_to_step():
    method = tiny_method("lejepa")
    batch, later = (tiny_batch(view_sizes("lejepa"), step) for step in (0, 1))
    first = method.training_loss(batch)["sigreg"]
    assert torch.equal(first, method.training_loss(batch)["sigreg"])
    batch.rng = later.rng
    assert not torch.equal(first, method.training_loss(batch)["sigreg"])


def test_a_weight_above_one_is_refused():
    with pytest.raises(ConfigError, match="method.weight=1.5: SIGReg's share of the loss wants 0 to 1"):
        tiny_method("lejepa", ["method.weight=1.5"])
