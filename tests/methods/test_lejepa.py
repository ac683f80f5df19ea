"""LeJEPA: its two terms with their weights."""

from __future__ import annotations

import pytest
import torch

from ssl_zoo import build, config
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


def test_a_centre_of_more_views_than_there_are_is_refused():
    build.check_signatures(config.load(["method=lejepa", "data=synthetic", "method.centre_views=4"]))
    wanted = "method.centre_views=5: .* augmentation.views gives 4; wanted 1 to 4, or null for all"
    with pytest.raises(ConfigError, match=wanted):
        build.check_signatures(config.load(["method=lejepa", "data=synthetic", "method.centre_views=5"]))


@pytest.mark.parametrize(
    ("words", "target", "decay"),
    [
        ([], "vit_small", 0.05),
        (["backbone=resnet50"], "resnet50", 5e-4),
        (["backbone=timm", "backbone.name=resnet34"], "timm_model", 5e-4),
        (["backbone=convnext_tiny"], "convnext_tiny", 0.05),
    ],
)
def test_the_network_chooses_the_weight_decay(words, target, decay):
    cfg = config.load(["method=lejepa", "data=imagenet", *words])
    assert cfg.backbone._target_.endswith(target) and cfg.optimizer["values"].weight_decay == decay


def test_the_large_networks_patches_tile_the_local_crops():
    cfg = config.load(["method=lejepa", "data=imagenet"])
    assert [view.size for view in cfg.augmentation.views] == [224, 98] and cfg.backbone.patch_size == 14
