"""What DCL, HCL and InvaSpread change in SimCLR, and what they keep."""

import pytest
import torch
import torch.nn.functional as F

from ssl_zoo.losses.contrastive import nt_xent
from ssl_zoo.methods.dcl import DCL
from ssl_zoo.methods.hcl import HCL
from ssl_zoo.methods.invaspread import InvaSpread
from ssl_zoo.optim.schedules import Linear, Progress
from tests.golden.harness import Identity, batch_of, differentiate, no_recipe

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
