"""What DCL, HCL, InvaSpread and SupContrast change in SimCLR, and what they keep."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ssl_zoo import build
from ssl_zoo.errors import ConfigError
from ssl_zoo.losses.contrastive import nt_xent
from ssl_zoo.methods.dcl import DCL
from ssl_zoo.methods.hcl import HCL
from ssl_zoo.methods.invaspread import InvaSpread
from ssl_zoo.methods.simclr import SimCLR
from ssl_zoo.methods.supcon import SupCon
from ssl_zoo.optim.schedules import Linear, Progress
from tests.golden.harness import Identity, batch_of, differentiate, no_recipe
from tests.helpers import tiny_batch, tiny_config, tiny_method, train_step

VIEWS = [torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
UNIT = [F.normalize(view, dim=1) for view in VIEWS]


def test_dcl_is_below_simclr_by_the_positive_in_the_denominator() -> None:
    loss = DCL(Identity(5), no_recipe(), Identity, 0.5, sum_directions=False).training_loss(batch_of(VIEWS))["loss"]
    z = torch.cat(UNIT)
    scores = (z @ z.T / 0.5).exp().fill_diagonal_(0)
    positive = scores.diagonal(4).repeat(2)
    wanted = (scores.sum(1) - positive).log() - positive.log()
    assert loss.item() == pytest.approx(wanted.mean().item(), rel=1e-12)
    assert loss < nt_xent(*UNIT, *UNIT, 0, 0.5)
    summed = DCL(Identity(5), no_recipe(), Identity, 0.5).training_loss(batch_of(VIEWS))["loss"]
    assert summed.item() == pytest.approx(2 * loss.item())


def test_hcl_without_concentration_and_false_negatives_is_simclr() -> None:
    method = HCL(Identity(5), no_recipe(), Identity, 0.5, beta=0.0, positive_share=0.0)
    loss = method.training_loss(batch_of(VIEWS))["loss"]
    assert loss.item() == pytest.approx(nt_xent(*UNIT, *UNIT, 0, 0.5).item(), rel=1e-12)


def test_hcl_follows_a_schedule_of_its_concentration() -> None:
    method = HCL(Identity(5), no_recipe(), Identity, 0.5, beta=Linear(2.0, 0.0))
    method.progress = Progress(5, 10, 1)
    half = method.training_loss(batch_of(VIEWS))["loss"]
    wanted = HCL(Identity(5), no_recipe(), Identity, 0.5, beta=1.0).training_loss(batch_of(VIEWS))["loss"]
    assert half.item() == wanted.item()


def test_hcl_refuses_a_share_of_one() -> None:
    with pytest.raises(ValueError, match="method.positive_share=1.0; wanted 0 or more and below 1"):
        HCL(Identity(5), no_recipe(), Identity, positive_share=1.0)


def test_invaspread_stops_the_gradient_of_the_second_factor() -> None:
    methods = [InvaSpread(Identity(5), no_recipe(), Identity, stop_gradient=stop) for stop in (True, False)]
    stopped, full = (differentiate(method, VIEWS) for method in methods)
    assert stopped["loss"] == full["loss"] and abs(stopped["view0"] - full["view0"]).max() > 1e-3


def test_dcl_with_negatives_apart_leaves_no_positive_in() -> None:
    with pytest.raises(ValueError, match="method.apart=true takes the positive out for good, and method.leak"):
        DCL(Identity(5), no_recipe(), Identity, leak=-103.6, apart=True)
    apart, one = (DCL(Identity(5), no_recipe(), Identity, 0.5, apart=x) for x in (True, None))
    assert apart.training_loss(batch_of(VIEWS))["loss"] != one.training_loss(batch_of(VIEWS))["loss"]


def test_simclr_with_a_base_temperature_is_supcon_without_labels() -> None:
    batch = replace(batch_of(VIEWS), label=torch.full((4,), -1))
    options = {"temperature": 0.5, "base_temperature": 0.07}
    ours = SimCLR(Identity(5), no_recipe(), Identity, sum_directions=False, **options).training_loss(batch)["loss"]
    wanted = SupCon(Identity(5), no_recipe(), Identity, **options).training_loss(batch)["loss"]
    assert ours.item() == pytest.approx(wanted.item(), rel=1e-12)
    assert ours.item() == pytest.approx(0.5 / 0.07 * nt_xent(*UNIT, *UNIT, 0, 0.5).item(), rel=1e-12)


@pytest.mark.parametrize("evaluated", [True, False])
def test_invaspread_trains_with_half_the_weight_and_evaluates_its_unit_embeddings_if_asked(evaluated: bool) -> None:
    words = ["method.negative_weight=0.5", f"method.evaluate_head={evaluated}"]
    method, batch = tiny_method("invaspread", words), tiny_batch([16, 16])
    assert train_step(method, batch)["loss"].isfinite()
    assert method.training_loss(batch)["features"].shape == method.eval().embed(batch.views[0]).shape
    h = method.backbone(batch.views[0])
    wanted = F.normalize(method.projector(h), dim=1) if evaluated else h
    torch.testing.assert_close(method.embed(batch.views[0]), wanted)


def test_invaspread_refuses_a_weight_of_zero() -> None:
    with pytest.raises(ConfigError, match="method.negative_weight=0: InvaSpread wants a number above 0"):
        build.check_signatures(tiny_config("invaspread", ["method.negative_weight=0"]))
