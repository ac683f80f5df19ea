"""LoCo: one unit is SimCLR, and backbones without stages are refused."""

from __future__ import annotations

import pytest
import torch

from ssl_zoo.errors import ConfigError
from tests.helpers import tiny_batch, tiny_method, train_step

SIZES = [16, 16]
EXACT = torch.float64


def test_one_unit_over_all_stages_is_simclr():
    local = tiny_method("loco", ["method.overlap=2"], EXACT)
    whole = tiny_method("simclr", ["method.sum_directions=false", f"method.temperature={local.temperature}"], EXACT)
    state = {name.replace("projectors.0.", "projector."): value for name, value in local.state_dict().items()}
    whole.load_state_dict(state)
    outs = [train_step(method, tiny_batch(SIZES, 0, EXACT)) for method in (local, whole)]
    assert outs[0]["loss"].item() == pytest.approx(outs[1]["loss"].item(), rel=1e-12)
    for name, gradient in outs[0]["gradients"].items():
        other = outs[1]["gradients"][name.replace("projectors.0.", "projector.")]
        torch.testing.assert_close(gradient, other, rtol=1e-9, atol=1e-12)
    # Each stage ran once, so the running statistics have moved once too.
    for name, value in whole.backbone.named_buffers():
        torch.testing.assert_close(dict(local.backbone.named_buffers())[name], value, msg=name)


def test_units_have_heads_of_their_own_and_report_their_losses():
    method = tiny_method("loco")
    out = method.training_loss(tiny_batch(SIZES))
    assert [head[0].in_features for head in method.projectors] == [16, 32]  # of the maps of stages 2 and 3
    assert {"unit1", "unit2"} < out.keys() and "unit3" not in out
    assert out["loss"].item() == pytest.approx((out["unit1"] + out["unit2"]).item(), rel=1e-6)
    assert out["features"].shape == (8, 32)


def test_no_overlap_is_greedy_infomax():
    assert len(tiny_method("loco", ["method.overlap=0"]).projectors) == 3


def test_what_lies_behind_the_stages_is_not_trained():
    method = tiny_method("loco", ["backbone=convnext_tiny", "data.image_size=32"], tiny=False)
    frozen = [name for name, p in method.backbone.named_parameters() if not p.requires_grad]
    assert frozen and all(name.startswith("net.head.norm") for name in frozen)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["method.overlap=3"], "method.overlap=3: the backbone has 3 stages; wanted 0 to 2"),
        (["backbone=vit_mini"], "'vit_tiny_patch16_224' has no stages; these have: resnet8"),
    ],
)
def test_backbones_that_cannot_be_cut_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        tiny_method("loco", given, tiny="backbone=vit_mini" not in given)
